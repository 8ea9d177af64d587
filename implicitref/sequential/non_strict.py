r"""Training models with self-loops: Algorithm 1 on (13), through the explicit constraint (15).

What (13) asks of block i, implicit in X_i, is by Theorem 3 an explicit model of its own: n_i units one after another,
fed by ``u = [z_{i-1}, ..., z_1, x]``. Its gradient is one substitution backwards, so any local search serves. The
self-loops are added at the end, with any eps in (0, 2): they do not change what the model computes.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..activations import relu
from ..arrays import Array, checked, from_numpy, is_array, to_numpy
from ..losses import LOSSES
from .inputs import seed_of
from .model import BlockTriangularModel, Record, partition
from .solvers import Solver, minimised
from .theorems import SelfLoopModel, add_self_loops, with_self_loops
from .training import greedy

__all__ = ["Rows", "coupled", "fit_non_strict", "greedy_non_strict"]

DRAWS, SCALE, MAX_ITER = 3, 0.3, 200


def fit_non_strict(
    x: Array,
    y: Array,
    order: int,
    n_blocks: int,
    *,
    eps: Any = 0.5,
    loss: str = "squared",
    solver: str | Solver | None = None,
    random_state: int | np.random.Generator | None = None,
) -> SelfLoopModel:
    r"""A model with self-loops trained block after block on (13), without a fixed-point iteration [GREEDY-Eq13].

    Parameters
    ----------
    x, y : array (m, p), (m, q)
        As in `fit`; labels (m,) for the cross-entropy.
    order, n_blocks : int
        2 <= n_blocks <= order.
    eps : float or array (order,), in (0, 2)
        The diagonal of A is 1 - eps [GREEDY-Thm3].
    loss, solver, random_state
        As in `fit`.

    Raises
    ------
    ShapeError, HypothesisError

    Examples
    --------
    >>> import numpy as np
    >>> x = np.column_stack([np.linspace(-1, 1, 40), np.ones(40)])
    >>> model = fit_non_strict(x, np.abs(x[:, :1]), 4, 2, eps=0.25, random_state=0)
    >>> np.diag(model.A), bool(np.max(np.abs(model.predict(x) - np.abs(x[:, :1]))) < 0.01)
    (array([0.75, 0.75, 0.75, 0.75]), True)
    """
    sizes, host = partition(order, n_blocks), to_numpy(checked("x", x, 2))
    add_self_loops(np.zeros((order, order)), np.zeros((order, 1)), eps)  # refuses a wrong eps before training
    targets = to_numpy(y) if is_array(y) else y
    *_, explicit = greedy_non_strict(host, targets, sizes, loss=loss, solver=solver, random_state=random_state)
    model = dataclasses.replace(with_self_loops(explicit, eps), sizes=sizes, history=explicit.history)
    return dataclasses.replace(model, **{name: from_numpy(value, x) for name, value in model.params.items()})


def greedy_non_strict(
    x: np.ndarray,
    y: np.ndarray,
    sizes: Sequence[int],
    *,
    loss: str = "squared",
    solver: str | Solver | None = None,
    random_state: int | np.random.Generator | None = None,
) -> Iterator[BlockTriangularModel]:
    """Algorithm 1 for (13): the explicit model, blocks of one unit, after each of the blocks in `sizes`.

    Each block is first trained without couplings among its units (7), then with them, so the loss never rises.
    """
    rng, done = np.random.default_rng(seed_of(random_state)), 0
    model: BlockTriangularModel | None = None
    for n in sizes:
        before = (1,) * done
        strict = next(greedy(x, y, (*before, n), loss=loss, solver=solver, random_state=rng, start=model))
        model, done = coupled(strict, x, y, loss, rng), done + n
        yield model


class Rows(NamedTuple):
    """The explicit rows of one block, ``z_i = relu(T z_i + V u)``, and C of all blocks so far; T strictly upper."""

    T: np.ndarray
    V: np.ndarray
    C: np.ndarray

    def unit(self) -> BlockTriangularModel:
        """The block on its own: n_i units one after another, fed by u."""
        n = len(self.T)
        return BlockTriangularModel(self.T, self.V, self.C[:, :n], (1,) * n)

    def flat(self) -> np.ndarray:
        """T, V and C as one vector."""
        return np.concatenate([part.ravel() for part in self])

    def at(self, theta: np.ndarray) -> Rows:
        """The rows that `theta` lists."""
        parts = np.split(theta, np.cumsum([self.T.size, self.V.size]))
        return Rows(*(new.reshape(old.shape).astype(old.dtype) for new, old in zip(parts, self, strict=True)))


def coupled(
    model: BlockTriangularModel, x: np.ndarray, y: np.ndarray, loss: str, rng: np.random.Generator
) -> BlockTriangularModel:
    r"""The last block of a strict model with its units coupled, and no larger loss.

    L-BFGS on T, V and C, the best from T = 0 and from a few small T that are drawn: a solution of (7) is often
    stationary in T, where no unit bends inside the region of another.
    """
    began, n, z = time.perf_counter(), model.sizes[-1], model.features(x)
    u = np.hstack([z[:, n:], x])
    first = Rows(np.zeros((n, n), z.dtype), np.hstack([model.A[:n, n:], model.B[:n]]), np.asarray(model.C))
    target = np.argmax(y, axis=1) if loss == "cross-entropy" and y.ndim == 2 else y
    drawn = [SCALE * np.triu(rng.normal(size=(n, n)), 1).astype(z.dtype) for _ in range(DRAWS if n > 1 else 0)]
    starts = [first, *(first._replace(T=T) for T in drawn)]
    tried = [first, *(searched(rows, u, target, loss) for rows in starts)]
    values = [value_and_gradients(rows, u, target, loss)[0] for rows in tried]
    best, last = tried[int(np.argmin(values))], model.history[-1]
    dead = int(np.sum(~best.unit().features(u).any(axis=0)))
    seconds = last.seconds + time.perf_counter() - began
    return _replaced(model, best, Record(len(model.history), last.before, min(values), dead, seconds))


def searched(rows: Rows, u: np.ndarray, target: np.ndarray, loss: str) -> Rows:
    """Where L-BFGS ends that begins at `rows`."""

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = value_and_gradients(rows.at(theta), u, target, loss)
        return value, gradient.flat()

    return rows.at(minimised(objective, rows.flat(), MAX_ITER))


# y = C_i f + C_<i z, f the features of the unit at u = [z, x]


def value_and_gradients(rows: Rows, u: np.ndarray, target: np.ndarray, loss: str) -> tuple[float, Rows]:
    """The loss of (13) at the explicit rows, and its gradient for T, V and C."""
    unit, n = rows.unit(), len(rows.T)
    f = unit.features(u)
    z = np.hstack([f, u[:, : rows.C.shape[1] - n]])
    value, dy = LOSSES[loss](z @ rows.C.T, target)
    grads = unit.predict_vjp(u, f, dy)
    return value, Rows(grads["A"], grads["B"], dy.T @ z)


def _replaced(model: BlockTriangularModel, rows: Rows, record: Record) -> BlockTriangularModel:
    """The model with these rows for its last block, in blocks of one unit, and the record in its history."""
    n, old = len(rows.T), model.A.shape[0] - len(rows.T)
    A, B = np.array(model.A), np.array(model.B)
    A[:n], B[:n] = np.hstack([rows.T, rows.V[:, :old]]), rows.V[:, old:]
    return BlockTriangularModel(A, B, rows.C, (1,) * len(A), relu, (*model.history[:-1], record))
