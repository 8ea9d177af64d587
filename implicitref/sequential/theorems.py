r"""Theorems 2 and 3: with ReLU, self-loops change nothing but the scale of a row.

For a < 1 and any c, ``x = relu(a x + c)`` has the one solution ``x = relu(c)/(1 - a) = relu(c/(1 - a))``: relu is
positively homogeneous. Row k of an upper triangular A sees only itself and rows computed before it, so dividing it by
``1 - a_kk`` removes its self-loop, and multiplying by eps = 1 - a_kk brings it back. One formula serves

* the whole matrix of a model, A (n, n), upper triangular;
* one block row [A_ii, A_i,i-1, ..., A_i1] of (13), (n_i, n_i + ... + n_1), A_ii upper triangular: Theorem 3;
* one row [a_ii, a_i,i-1, ..., a_i1], (1, i): Theorem 2, n_j = 1.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ..activations import relu
from ..arrays import Array, alongside, as_number, checked, from_numpy, is_array, like, namespace, owned
from ..errors import HypothesisError, ShapeError
from .model import BlockTriangularModel, checked_matrices, checked_sizes

__all__ = ["SelfLoopModel", "add_self_loops", "remove_self_loops", "remove_self_loops_vjp", "with_self_loops"]


def remove_self_loops(A: Array, B: Array) -> tuple[Array, Array]:
    r"""The explicit rows with the features of the implicit ones, gamma = a/(1 - a_kk), lam = b/(1 - a_kk).

    ``z = relu(A z + B x)`` if and only if ``z = relu(gamma z + lam x)``, for every x: the coefficients do not depend on
    the sample, unlike what the quantifier of Theorem 3 says [GREEDY-Thm2, GREEDY-Thm3, GREEDY-Eq15].

    Parameters
    ----------
    A : array (k, n), k <= n
        Upper triangular, -1 < a_kk < 1 [GREEDY-Eq13].
    B : array (k, p)

    Returns
    -------
    gamma, lam : array (k, n), (k, p)
        gamma is strictly upper triangular.

    Raises
    ------
    ShapeError, HypothesisError

    Examples
    --------
    >>> import numpy as np
    >>> remove_self_loops(np.array([[0.5, 3.0], [0.0, -0.6]]), np.array([[1.0], [4.0]]))
    (array([[0., 6.],
           [0., 0.]]), array([[2. ],
           [2.5]]))
    """
    A, B = _checked_rows("A", A, "B", B)
    a = _diagonal(A)
    if float(namespace(a).max(namespace(a).abs(a))) >= 1:
        raise HypothesisError(
            f"the diagonal of A must lie in (-1, 1) [GREEDY-Eq13]; got {float(_farthest(a, 0.0)):.6g}. "
            "Without it the self-loop need not have a fixed point that Picard's iteration finds."
        )
    return namespace(A).triu(A, k=1) / (1 - a), B / (1 - a)


# gamma = a/e, lam = b/e with e = 1 - a_kk, so for every row
# d(<dgamma, gamma> + <dlam, lam>) = (<dgamma, da> + <dlam, db>)/e + (<dgamma, gamma> + <dlam, lam>) da_kk/e.


def remove_self_loops_vjp(A: Array, B: Array, dgamma: Array, dlam: Array) -> tuple[Array, Array]:
    """Gradient of ``<dgamma, gamma> + <dlam, lam>`` for A (its upper triangle) and B."""
    gamma, lam = remove_self_loops(A, B)
    xp, scale = namespace(A), 1 - _diagonal(A)
    loops = xp.sum(dgamma * gamma, axis=1, keepdims=True) + xp.sum(dlam * lam, axis=1, keepdims=True)
    return (xp.triu(dgamma, k=1) + loops * _identity(A)) / scale, dlam / scale


def add_self_loops(gamma: Array, lam: Array, eps: Any) -> tuple[Array, Array]:
    r"""The implicit rows with the features of the explicit ones, A = (1 - eps) I + eps gamma, B = eps lam.

    The converse of Theorems 2 and 3. "Let eps > 0" allows a_kk <= -1, which (13) excludes; it needs 0 < eps < 2, and
    eps = 1 leaves gamma as it is [GREEDY-Thm2, GREEDY-Thm3].

    Parameters
    ----------
    gamma, lam : array (k, n), (k, p), k <= n
        gamma strictly upper triangular.
    eps : float or array (k,), in (0, 2)
        One number, or one a row: ``eps = 1 - diag(A)`` undoes `remove_self_loops`.

    Returns
    -------
    A, B : array (k, n), (k, p)

    Raises
    ------
    ShapeError, HypothesisError

    Examples
    --------
    >>> import numpy as np
    >>> add_self_loops(np.array([[0.0, 6.0], [0.0, 0.0]]), np.array([[2.0], [2.5]]), 0.5)
    (array([[0.5, 3. ],
           [0. , 0.5]]), array([[1.  ],
           [1.25]]))
    """
    gamma, lam = _checked_rows("gamma", gamma, "lam", lam)
    if bool(namespace(gamma).any(_diagonal(gamma) != 0)):
        raise HypothesisError(
            f"gamma must be strictly upper triangular, without self-loops of its own [GREEDY-Eq15]; its diagonal holds "
            f"{float(_farthest(_diagonal(gamma), 0.0)):.3g}."
        )
    scale = _checked_eps(eps, gamma)
    return (1 - scale) * _identity(gamma) + scale * gamma, scale * lam


@dataclasses.dataclass(frozen=True, eq=False)
class SelfLoopModel:
    r"""The non-strict ReLU model: ``z = relu(A z + B x)``, ``y = C z`` with A upper triangular [GREEDY-Eq13].

    Well posed since the Perron eigenvalue of |A| is its largest |a_kk| < 1. Features, gradients and so training need
    no fixed-point iteration: they go through the explicit model of Theorem 3.

    Parameters
    ----------
    A, B, C : array (n, n), (n, p), (q, n)
        Block L first, as in BlockTriangularModel; A_ij = 0 for i < j, A_ii upper triangular, -1 < a_kk < 1.
    sizes : sequence of int
        (n_1, ..., n_L).
    history : tuple
        What training recorded, one entry a block.

    Examples
    --------
    >>> import numpy as np
    >>> model = SelfLoopModel(np.array([[0.5]]), np.array([[1.0]]), np.array([[1.0]]), (1,))
    >>> model.features(np.array([[3.0]]))
    array([[6.]])
    """

    A: Array
    B: Array
    C: Array
    sizes: tuple[int, ...]
    history: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        sizes = checked_sizes(self.sizes)
        A, B, C = checked_matrices(self.A, self.B, self.C, sizes)
        remove_self_loops(A, B)
        for name, value in {"A": owned(A), "B": owned(B), "C": owned(C), "sizes": sizes}.items():
            object.__setattr__(self, name, value)

    @property
    def explicit(self) -> BlockTriangularModel:
        """The strict model with the same features: n blocks of one state, gamma and lam in place of A and B."""
        return BlockTriangularModel(*remove_self_loops(self.A, self.B), self.C, (1,) * sum(self.sizes))

    @property
    def params(self) -> dict[str, Array]:
        """A, B, C by name."""
        return {"A": self.A, "B": self.B, "C": self.C}

    def features(self, x: Array) -> Array:
        """z = relu(A z + B x): (batch, p) to (batch, n)."""
        return self.explicit.features(x)

    def predict(self, x: Array) -> Array:
        """y = C z: (batch, p) to (batch, q)."""
        return self.explicit.predict(x)

    def predict_vjp(self, x: Array, z: Array, dy: Array) -> dict[str, Array]:
        """Gradient of ``sum_batch <dy, predict(x)>`` for A, B, C and x, at z = features(x)."""
        grads = self.explicit.predict_vjp(x, z, dy)
        dA, dB = remove_self_loops_vjp(self.A, self.B, grads["A"], grads["B"])
        return {**grads, "A": dA, "B": dB}


def with_self_loops(model: BlockTriangularModel, eps: Any) -> SelfLoopModel:
    """The non-strict model with the features and predictions of a strict one; eps in (0, 2), one number or one a state.

    This is how a non-strict model is trained: train the strict one, whose features are the same set [GREEDY-Thm3].

    Raises
    ------
    HypothesisError
        The activation is not ReLU, or eps lies outside (0, 2).
    """
    if model.activation is not relu:
        raise HypothesisError(
            f"self-loops can be added and removed for ReLU only [GREEDY-Thm3]; got {model.activation!r}, which is not "
            "positively homogeneous with slopes 0 and 1: leaky_relu(.1) with a_kk = .5 has slope .0526 below 0, not .1."
        )
    return SelfLoopModel(*add_self_loops(model.A, model.B, eps), model.C, model.sizes)


# ------------------------------------------------------------------------------------------------
# diagonals of wide matrices, and what is refused


def _identity(A: Array) -> Array:
    """(I, 0), shaped like A."""
    return from_numpy(np.eye(*A.shape), A)


def _diagonal(A: Array) -> Array:
    """a_kk as a column (k, 1)."""
    return namespace(A).sum(A * _identity(A), axis=1, keepdims=True)


def _farthest(values: Array, centre: float) -> Array:
    """The entry farthest from `centre`."""
    xp = namespace(values)
    flat = xp.reshape(values, (-1,))
    return flat[int(xp.argmax(xp.abs(flat - centre)))]


def _checked_rows(first: str, A: Any, second: str, B: Any) -> tuple[Array, Array]:
    A = checked(first, A, 2)
    B = alongside(second, checked(second, B, 2), A)
    xp = namespace(A)
    if not 1 <= A.shape[0] <= A.shape[1] or B.shape[0] != A.shape[0]:
        raise ShapeError(
            f"{first}, {second} must have shapes (k, n), (k, p), 1 <= k <= n, the rows' own states first; got "
            f"{tuple(A.shape)}, {tuple(B.shape)}."
        )
    below = A - xp.triu(A)
    if bool(xp.any(below != 0)):
        raise HypothesisError(
            f"{first} must be upper triangular, the state computed last first [GREEDY-Eq13]; got "
            f"{float(xp.max(xp.abs(below))):.3g} below the diagonal."
        )
    return A, B


def _checked_eps(eps: Any, gamma: Array) -> Array:
    """eps as a number or a column, in (0, 2)."""
    number = as_number(eps)
    if number is None and not is_array(eps):
        raise HypothesisError(f"eps must be a number or an array (k,), in (0, 2) [GREEDY-Thm3]; got {eps!r}.")
    if number is None and tuple(eps.shape) != (gamma.shape[0],):
        raise ShapeError(f"eps must be a number or have shape ({gamma.shape[0]},); got {tuple(eps.shape)}.")
    xp = namespace(gamma)
    column = xp.reshape(like(gamma, eps if number is None else number), (-1, 1))
    if not bool(xp.all(xp.abs(1 - column) < 1)):  # in the dtype: eps = 1e-17 leaves a diagonal of 1
        raise HypothesisError(
            f"eps must lie in (0, 2), so that the diagonal 1 - eps lies in (-1, 1) [GREEDY-Eq13, GREEDY-Thm3]; got "
            f"{float(_farthest(column, 1.0)):.6g}."
        )
    return column
