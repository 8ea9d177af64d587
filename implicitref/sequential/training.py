r"""Algorithm 1: one block after the other, each supervised directly, as a generator of models."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..activations import Activation, relu
from ..arrays import Array, checked, from_numpy, namespace, to_numpy
from ..errors import HypothesisError
from .inputs import check_start, checked_targets, seed_of
from .model import Block, BlockTriangularModel, Record, check_activation, checked_sizes, partition
from .problem import Problem, Solved, unread, value
from .refinement import refine
from .solvers import SOLVERS, Solver, dead

__all__ = ["augment", "fit", "greedy", "memory"]

DEFAULTS = {"squared": "variable-projection", "cross-entropy": "adam"}
FITTING = DEFAULTS | {"cross-entropy": "adam-brief"}  # in `fit`, where `refine` follows
TRIES = 3  # draws for a block in which units are off on every sample


def fit(
    x: Array,
    y: Array,
    order: int,
    n_blocks: int | Sequence[int],
    *,
    loss: str = "squared",
    solver: str | Solver | None = None,
    activation: Activation = relu,
    random_state: int | np.random.Generator | None = None,
) -> BlockTriangularModel:
    r"""A block-triangular model trained by Algorithm 1 [GREEDY-Alg1], for the cross-entropy then by `refine`.

    Parameters
    ----------
    x : array (m, p)
        As it is: without a constant column (`augment`) a ReLU model is positively homogeneous [GREEDY-SecV-bias].
    y : array (m, q)
        Targets; for the cross-entropy rows of the identity, or integer labels (m,), of which the largest says how
        many outputs there are.
    order : int
        n, the number of states.
    n_blocks : int, or sequence of int
        2 <= L <= n, or the sizes (n_1, ..., n_L) themselves [GREEDY-Rem3].
    loss, solver, activation, random_state
        As in `greedy`. With a `solver` the model is the last that `greedy` yields; without one it is what was found to
        predict best: variable projection for the squared loss, and for the cross-entropy Adam, a few epochs a block,
        then on all blocks together.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.linspace(-1, 1, 50)[:, None]
    >>> model = fit(augment(x), np.abs(x), 4, 2, random_state=0)
    >>> float(np.max(np.abs(model.predict(augment(x)) - np.abs(x)))) < 0.05
    True
    >>> [record.loss <= record.before for record in model.history]
    [True, True]
    """
    sizes, seed = _sizes(order, n_blocks), seed_of(random_state)
    chosen = FITTING.get(loss) if solver is None else solver
    models = greedy(x, y, sizes, loss=loss, solver=chosen, activation=activation, random_state=seed)
    model = functools.reduce(lambda _, model: model, models)
    return model if solver is not None else finished(model, x, y, loss, seed)


def finished(
    model: BlockTriangularModel, x: Array, y: Array, loss: str, random_state: int | np.random.Generator | None
) -> BlockTriangularModel:
    """What `fit` makes of the blocks that `greedy` found by the solver of `FITTING`: all refined together, or left."""
    return refine(model, x, y, random_state=random_state) if loss == "cross-entropy" else model


def greedy(
    x: Array,
    y: Array,
    sizes: Sequence[int],
    *,
    loss: str = "squared",
    solver: str | Solver | None = None,
    activation: Activation = relu,
    random_state: int | np.random.Generator | None = None,
    start: BlockTriangularModel | None = None,
) -> Iterator[BlockTriangularModel]:
    r"""Algorithm 1: block i on top of blocks 1, ..., i-1, which stay, with C optimised anew (6), (7) [GREEDY-Alg1].

    The loss never rises from block to block: a block that would raise it is replaced by one that is always off.

    Parameters
    ----------
    x, y : array (m, p), (m, q)
    sizes : sequence of int
        (n_1, ..., n_L).
    loss : {"squared", "cross-entropy"}
        Half the squared distance (8) or (9), per sample.
    solver : {"variable-projection", "alternating", "l-bfgs", "adam", "adam-brief", "adam-paper"} or callable, optional
        What solves (7): a function of a `Problem` and random numbers. By default variable projection for the squared
        loss, Adam for the cross-entropy.
    activation : Activation
    random_state : int, numpy.random.Generator or None
        An int gives the same model every time.
    start : BlockTriangularModel, optional
        One that an earlier run yielded: training goes on behind its last block and, with the same `random_state`, an
        int, ends where the uninterrupted run does, bit for bit.

    Yields
    ------
    BlockTriangularModel
        After every block, with one more `Record` in its history, in the library of `x`.
    """
    x = checked("x", x, 2)
    targets = checked_targets(y, x, loss)
    sizes, chosen = checked_sizes(sizes), _solver(solver, loss)
    check_activation(activation)
    outputs = y.shape[1] if y.ndim == 2 else int(targets.max()) + 1
    check_start(start, sizes, x, outputs, activation)
    C = np.zeros((outputs, 0), to_numpy(x[:0, :]).dtype) if start is None else to_numpy(start.C)
    return _greedy(x, targets, C, sizes, loss, chosen, activation, seed_of(random_state), start)


def _greedy(
    x: Array,
    targets: np.ndarray,
    C: np.ndarray,
    sizes: tuple[int, ...],
    loss: str,
    solver: Solver,
    activation: Activation,
    seed: int,
    model: BlockTriangularModel | None,
) -> Iterator[BlockTriangularModel]:
    n, host = sum(sizes), to_numpy(x)
    seen = np.concatenate([np.empty((len(host), n), host.dtype), host], axis=1)  # [z_L, ..., z_1, x], from the right
    for V in _weights(model):
        n = _written(seen, n, V, activation)
    for i in range(0 if model is None else len(model.sizes), len(sizes)):
        began = time.perf_counter()
        problem = Problem(seen[:, n:], targets, C, sizes[i], loss, activation)
        found, before, after = _block(problem, solver, np.random.default_rng([seed, i]))
        off = int(dead(problem, found.V).sum())
        n, C = _written(seen, n, found.V, activation), found.C
        record = Record(i + 1, before, after, off, time.perf_counter() - began)
        model = _grown(model, found, activation, record, x)
        yield model


def _written(seen: np.ndarray, n: int, V: np.ndarray, activation: Activation) -> int:
    """phi(V u) to the left of u = seen[:, n:], where nothing is yet; where u begins from then on."""
    seen[:, n - len(V) : n] = activation(seen[:, n:] @ V.T)
    return n - len(V)


def _block(problem: Problem, solver: Solver, rng: np.random.Generator) -> tuple[Solved, float, float]:
    """The best of up to three draws, with the loss before and after; fewer where no unit is dead."""
    best = Solved(np.zeros((problem.units, problem.u.shape[1]), problem.u.dtype), unread(problem))
    lowest = before = value(problem, best)
    for _ in range(TRIES):
        found = solver(problem, rng)
        loss = value(problem, found)
        if loss <= lowest:
            best, lowest = found, loss
        if not dead(problem, found.V).any():
            break
    return best, before, lowest


def _grown(
    model: BlockTriangularModel | None, found: Solved, activation: Activation, record: Record, x: Array
) -> BlockTriangularModel:
    V, C = (from_numpy(part, x) for part in found)
    n, before = V.shape[0], 0 if model is None else model.A.shape[0]
    block = Block(V[:, :before], V[:, before:], C[:, :n])
    grown = BlockTriangularModel.from_blocks([block], activation) if model is None else model.append(block)
    return dataclasses.replace(grown, C=C, history=(*(model.history if model else ()), record))


def _weights(model: BlockTriangularModel | None) -> list[np.ndarray]:
    """V of every block that is there."""
    if model is None:
        return []
    return [np.concatenate([to_numpy(block.A), to_numpy(block.B)], axis=1) for block in model.blocks]


def augment(x: Array) -> Array:
    """[x, 1]: a constant column, so that units have offsets [GREEDY-SecV-bias].

    Examples
    --------
    >>> import numpy as np
    >>> augment(np.array([[2.0], [3.0]]))
    array([[2., 1.],
           [3., 1.]])
    """
    x = checked("x", x, 2)
    xp = namespace(x)
    return xp.concat([x, xp.ones_like(x[:, :1])], axis=1)


def memory(sizes: Sequence[int], m: int, p: int, q: int) -> tuple[tuple[int, ...], int]:
    r"""Numbers that each subproblem optimises, features included, and those of end-to-end training [GREEDY-Rem5].

    ``n_i (n_1 + ... + n_{i-1} + m + p) + q (n_1 + ... + n_i)`` for i = 1, ..., L, and ``n (n + m + p + q)``.

    Examples
    --------
    >>> memory((2, 2), 10, 1, 1)
    ((24, 30), 64)
    """
    sizes = checked_sizes(sizes)
    n, before = sum(sizes), [sum(sizes[:i]) for i in range(len(sizes))]
    stages = tuple(k * (b + m + p) + q * (b + k) for k, b in zip(sizes, before, strict=True))
    return stages, n * (n + m + p + q)


# ------------------------------------------------------------------------------------------------
# what is refused


def _sizes(order: int, n_blocks: Any) -> tuple[int, ...]:
    if np.ndim(n_blocks) == 0:
        return partition(order, n_blocks)
    sizes = checked_sizes(n_blocks)
    if sum(sizes) != order:
        raise HypothesisError(f"the sizes of the blocks must sum to order = {order}; got {sizes}, {sum(sizes)}.")
    return sizes


def _solver(solver: str | Solver | None, loss: str) -> Solver:
    if callable(solver):
        return solver
    name = DEFAULTS[loss] if solver is None else solver
    if name not in SOLVERS:
        raise HypothesisError(f"solver must be one of {', '.join(SOLVERS)}, or a function; got {solver!r}.")
    return SOLVERS[name]
