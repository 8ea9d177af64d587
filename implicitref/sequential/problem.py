r"""The i-th subproblem (7) of Algorithm 1: its loss and gradient by hand.

In the order of the paper, newest first: ``u = [z_{i-1}, ..., z_1, x]`` is everything that block i sees, its weights
are ``V = [A_i,i-1, ..., A_i1, B_i]``, its features ``z_i = phi(V u)``, the prediction ``C [z_i, z_{i-1}, ..., z_1]``.
Training runs on the host, in NumPy.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..activations import Activation
from ..arrays import Array, from_numpy, namespace, zeros
from ..losses import LOSSES

__all__ = ["Problem", "Solved", "extended", "start", "value", "value_and_gradients"]

SAMPLE = 1000  # samples from which spreads are judged


class Problem(NamedTuple):
    """What is known before block i: u (m, n_1 + ... + n_{i-1} + p), targets, the readout C (q, n_1 + ... + n_{i-1})."""

    u: Array
    target: Array
    C: Array
    units: int
    loss: str
    activation: Activation

    @property
    def z(self) -> Array:
        """The features so far (m, n_1 + ... + n_{i-1}), a view."""
        return self.u[:, : self.C.shape[1]]

    def rows(self, chosen: np.ndarray) -> Problem:
        """The same for some samples."""
        return self._replace(u=self.u[chosen], target=self.target[chosen])


class Solved(NamedTuple):
    """V (n_i, n_1 + ... + n_{i-1} + p) and the re-optimised readout C (q, n_1 + ... + n_i), block i first."""

    V: Array
    C: Array


def extended(u: Array, V: Array, activation: Activation) -> Array:
    """[phi(V u), u]: what the next block sees."""
    xp = namespace(u)
    return xp.concat([activation(u @ xp.matrix_transpose(V)), u], axis=1)


def value(problem: Problem, solved: Solved) -> float:
    """The loss (8) or (9), divided by the number of samples [GREEDY-Eq7]."""
    return value_and_gradients(problem, solved, False)[0]


# G = d loss/d y; y = C z gives dC = G'z and dz = G C; z_i = phi(V u) gives dV = (dz_i phi'(V u))'u


def value_and_gradients(problem: Problem, solved: Solved, gradients: bool = True) -> tuple[float, Solved]:
    r"""The loss of (7) and its gradient for V and C, with z_1, ..., z_{i-1} fixed [GREEDY-Rem2].

    Examples
    --------
    >>> import numpy as np
    >>> from implicitref import activations
    >>> u, y = np.array([[1.0], [-1.0]]), np.array([[3.0], [0.0]])
    >>> problem = Problem(u, y, np.zeros((1, 0)), 1, "squared", activations.relu)
    >>> value_and_gradients(problem, Solved(np.array([[2.0]]), np.array([[1.0]])))
    (0.25, Solved(V=array([[-0.5]]), C=array([[-1.]])))
    """
    u, (V, C), xp = problem.u, solved, namespace(problem.u)
    pre = u @ xp.matrix_transpose(V)
    z = xp.concat([problem.activation(pre), problem.z], axis=1)
    loss, G = LOSSES[problem.loss](z @ xp.matrix_transpose(C), problem.target)
    if not gradients:
        return loss, solved
    dpre = (G @ C[:, : problem.units]) * problem.activation.derivative(pre)
    return loss, Solved(xp.matrix_transpose(dpre) @ u, xp.matrix_transpose(G) @ z)


# ------------------------------------------------------------------------------------------------
# where a search begins


def start(problem: Problem, rng: np.random.Generator) -> Solved:
    """Weights drawn, with C_i = 0: the loss is that of the blocks before, which no accepted step raises."""
    return Solved(hyperplanes(problem, rng, problem.units), unread(problem))


def unread(problem: Problem) -> Array:
    """[0, C]: the readout that does not look at block i."""
    xp = namespace(problem.C)
    return xp.concat([zeros((problem.C.shape[0], problem.units), problem.C), problem.C], axis=1)


def hyperplanes(problem: Problem, rng: np.random.Generator, count: int) -> Array:
    r"""Rows V with Gaussian directions, the pre-activations of order 1; each kink goes through a sample that is drawn.

    Through it, if u has a constant column to carry the offset (the last such column does); else through the origin.
    """
    seen = _sample(problem.u, rng)
    spread = seen.std(axis=0)
    width = np.maximum(spread, np.sqrt(np.mean(spread**2)))  # a column that hardly varies is not blown up
    V = np.where(spread > 0, rng.normal(size=(count, spread.size)), 0) / np.where(width > 0, width, 1)
    V /= math.sqrt(max(1, int(np.count_nonzero(spread))))
    constant = np.flatnonzero((spread == 0) & (seen[0] != 0))
    if constant.size:
        at = seen[rng.integers(len(seen), size=count)]
        V[:, constant[-1]] = -np.sum(V * at, axis=1) / seen[0, constant[-1]]
    return from_numpy(V, problem.u)


def _sample(u: Array, rng: np.random.Generator) -> np.ndarray:
    rows = np.arange(len(u)) if len(u) <= SAMPLE else rng.choice(len(u), SAMPLE, replace=False)
    return np.asarray(u[rows], dtype=np.float64)
