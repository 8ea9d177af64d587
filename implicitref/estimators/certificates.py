r"""Predictions with what is certain about them, from bounds on the state.

If ``||z - z*|| <= e`` then the margin of class i over j, ``<c_i - c_j, z> + const``, is off by at most
``||c_i - c_j|| e``. Where the bound is given entry by entry, ``|c_i - c_j|' e`` is smaller.

For inputs, let ``z*`` and ``z* + d`` be the equilibria of x and x + h. An activation that is a prox moves so that
``(p - d) d >= s d^2`` in every entry, p = W d + U h being the change in front of it, so that with
``S = sym(I - W) + s I >= (m + s) I``

    <S d, d> <= <U h, d>:  y = S^(1/2) d lies in the ball of centre q/2 and radius ||q||/2,  q = S^(-1/2) U h.

Hence ``||d|| <= ||U|| ||h||/(m + s)`` [NEW-sensitivity], and for a margin with gradient c at the state, v = S^(-1/2) c,

    |<c, d>| = |<v, y>| <= (|<v, q>| + ||v|| ||q||)/2 <= (||Q'v|| + ||Q||_2 ||v||)/2 ||h||,   Q = S^(-1/2) U,

which is between one half and the whole of ``||c|| ||U||/(m + s)`` where S is a multiple of the identity.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, eps, like, namespace, norm, to_numpy
from ..networks import Images, MonNetwork
from ..operators import MonotoneDense
from ..well_posed import Slopes, bound

__all__ = [
    "CertifiedClasses",
    "CertifiedValues",
    "doubts",
    "entrywise_lipschitz",
    "input_lipschitz",
    "lead",
    "pairs",
    "radius",
    "readout_rounding",
    "state_lengths",
    "together",
]

STEPS = 4  # rounding that a factorisation, a product or a norm may lose, in units of n eps


class CertifiedClasses(NamedTuple):
    """A prediction (n_samples,), certified bounds on the states' Euclidean errors, and where the class is certain.

    Where `certain` holds, the exact state has the predicted class too.
    """

    prediction: Array
    bound: Array
    certain: np.ndarray


class CertifiedValues(NamedTuple):
    """A prediction, certified bounds on the states' Euclidean errors, and on the prediction's, shaped like it."""

    prediction: Array
    bound: Array
    error: Array


def pairs(weight: Array) -> Array:
    """The differences ``c_i - c_j`` of the rows of a readout, i before j: (classes^2, n)."""
    weight = to_numpy(weight).astype(np.float64)
    return (weight[:, None] - weight[None, :]).reshape(-1, weight.shape[1])


def lead(logits: np.ndarray, doubt: Any = 0.0) -> np.ndarray:
    """What the largest logit is ahead of each other, less `doubt`: (batch, classes), inf for itself."""
    ahead = logits.max(axis=1, keepdims=True) - logits - doubt
    ahead[np.arange(len(logits)), logits.argmax(axis=1)] = math.inf
    return np.asarray(ahead)


def radius(logits: np.ndarray, doubt: np.ndarray, lipschitz: np.ndarray) -> np.ndarray:
    r"""``min_j (margin over j - doubt)/lipschitz_j``, 0 where the class is not certain: (batch,).

    Parameters
    ----------
    logits : array (batch, classes)
    doubt : array (batch, classes)
        How far each margin may be off.
    lipschitz : array (classes, classes)
        Of the margin of i over j as a function of the input.

    Examples
    --------
    >>> import numpy as np
    >>> radius(np.array([[3.0, 1.0]]), np.zeros((1, 2)), np.array([[0.0, 4.0], [4.0, 0.0]]))
    array([0.5])
    """
    ahead, slopes = lead(logits, doubt), lipschitz[logits.argmax(axis=1)]
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = np.where(ahead > 0, ahead / slopes, 0.0)  # slope 0: the margin never moves, and inf/inf is its own
    return np.asarray(np.where(np.isnan(reach), math.inf, reach).min(axis=1))


def readout_rounding(features: Array, weight: Array, bias: Any, terms: int) -> Array:
    r"""How far ``weight features + bias`` as computed may be off, features being sums of so many terms: (batch, k).

    Examples
    --------
    >>> import numpy as np
    >>> off = readout_rounding(np.ones((1, 10)), np.full((1, 10), 0.1), 0.0, 10)
    >>> bool(abs(np.ones(10) @ np.full(10, 0.1) - 1) < off[0, 0] < 1e-14)
    True
    """
    xp = namespace(features)
    size = xp.abs(features) @ xp.abs(like(features, weight)).T + xp.abs(like(features, bias))
    return (terms + 3) * eps(features) * size


def together(slack: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """What the largest logit and another may be off together: (batch, classes)."""
    return np.asarray(slack + slack[np.arange(len(logits)), logits.argmax(axis=1)][:, None])


def upwards(values: Any, terms: int) -> np.ndarray:
    """Lengths computed by sums of so many terms, enlarged by what they may have lost."""
    return np.asarray(values * (1 + STEPS * terms * np.finfo(np.float64).eps))


# ------------------------------------------------------------------------------------------------
# models with certificates entry by entry: z = phi(A z + B x), logits C z


def doubts(C: np.ndarray, logits: np.ndarray, error: np.ndarray) -> np.ndarray:
    """How far the margins of the largest logit may be off where ``|z - z*| <= error``: (batch, classes)."""
    best = C[logits.argmax(axis=1)]
    return np.stack([np.sum(np.abs(best - row) * error, axis=1) for row in C], axis=1)


def entrywise_lipschitz(A: np.ndarray, B: np.ndarray, rows: np.ndarray) -> np.ndarray:
    r"""``|| |c|' (I - |A|)^-1 |B| ||_2`` for every row c: ``|d| <= |A| |d| + |B| |h|`` for a CONE map [GREEDY-Thm1]."""
    # column by column, rounding included, the certificate of |B| as the solution for phi = 0
    columns = np.abs(B).T
    reach = bound(A, columns, 0 * columns, Slopes(0 * columns)).T
    return upwards(np.linalg.norm(np.abs(rows) @ reach, axis=1), sum(B.shape))


# ------------------------------------------------------------------------------------------------
# monotone operator networks


def input_lipschitz(network: MonNetwork, gradients: Array) -> np.ndarray:
    r"""How fast ``<c, features(z*)>`` can move with the input, for every row c of `gradients` (k, features).

    ``(||Q'v|| + ||Q||_2 ||v||)/2``, see above; S is the whole matrix for dense networks and (m + s) I for others.
    Rounding is covered by a few units of n eps [NEW-sensitivity].

    Examples
    --------
    >>> import numpy as np
    >>> from implicitref.networks import mon_network
    >>> one = np.eye(1)
    >>> arrays = {"U": 2 * one, "b": one[0], "A": 0 * one, "B": one, "m": 1.0, "Wout": one, "bout": one[0]}
    >>> input_lipschitz(mon_network(arrays), 3 * one).round(9)          # z* = relu(2 x + 1)
    array([6.])
    """
    network = on_host(network)
    c = at_state(network, gradients)
    v, across, size = (_dense if isinstance(network.W, MonotoneDense) else _by_modulus)(network, c)
    return upwards((across + size * v) / 2, math.prod(network.W.state_shape) + math.prod(network.input_shape))


def state_lengths(network: MonNetwork, gradients: Array) -> np.ndarray:
    """How fast the same move with the state: their Euclidean norms as functions of it."""
    return upwards(norm(at_state(on_host(network), gradients)), math.prod(network.W.state_shape))


def on_host(network: MonNetwork) -> MonNetwork:
    """The network in NumPy's float64."""
    return network.following(np.zeros(0))


def at_state(network: MonNetwork, gradients: Array) -> np.ndarray:
    """Gradients for the features as gradients for the state."""
    rows = to_numpy(gradients).astype(np.float64)
    return np.asarray(network.ends.features_vjp(network.W, rows))


def _dense(network: MonNetwork, c: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """||v||, ||Q'v|| and ||Q||_2; those of (m + s) I where rounding outweighs m."""
    W, U, strong = network.W.to_dense(), network.U, network.activation.strong
    values, basis = np.linalg.eigh(np.eye(len(W)) - (W + W.T) / 2)
    # any matrix below S will do: the one computed less what W and its eigenvalues may be off
    values = values + strong - STEPS * len(W) * np.finfo(np.float64).eps * (1 + np.linalg.norm(W))
    if values[0] < (network.W.m + strong) / 2:
        return _by_modulus(network, c)
    Q, v = (basis.T @ U) / np.sqrt(values)[:, None], (c @ basis) / np.sqrt(values)
    return np.linalg.norm(v, axis=1), np.linalg.norm(v @ Q, axis=1), float(np.linalg.norm(Q, 2))


def _by_modulus(network: MonNetwork, c: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """The same with S = (m + s) I."""
    modulus = network.W.m + network.activation.strong
    across = norm(network.ends.inject_vjp(network.W, network.U, c))
    return norm(c) / math.sqrt(modulus), across / modulus, injection_norm(network) / math.sqrt(modulus)


def injection_norm(network: MonNetwork) -> float:
    r"""An upper bound of ``||U||_2``, exact for matrices.

    A convolution of zero-padded images is a block of the circular one on a grid without wrapping, whose norm is the
    largest of its DFT blocks.
    """
    U = network.U
    if not isinstance(network.ends, Images):
        return float(np.linalg.norm(U, 2))
    grid = tuple(side + 2 * (network.ends.border + U.shape[-1]) for side in network.ends.image[1:])
    blocks = np.fft.fft2(U, s=grid).transpose(2, 3, 0, 1)
    return float(np.linalg.norm(blocks, 2, axis=(-2, -1)).max())
