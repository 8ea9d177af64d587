"""The minibatch loop: a generator of states, one an epoch, each of which can be saved, listed and resumed."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, in_double, largest, quiet, to_numpy
from ..errors import HypothesisError, ShapeError
from ..mon import equilibrium
from ..networks import MonNetwork, SolveOptions
from . import alpha as alphas
from . import schedules
from .optimisers import AdamState, adam_init, adam_step

__all__ = ["Recipe", "Record", "State", "Step", "evaluate", "minibatches", "start", "train"]

EVALUATION_TOL = 1e-4  # certified distance at which accuracies are measured
EVALUATION_BATCH = 2000


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to train. `PAPER` is appendix D's for the dense network.

    Attributes
    ----------
    epochs, batch : int, >= 1
    learning_rate : float, > 0
        The largest of the schedule.
    schedule : {"constant", "step", "one-cycle"}
    weight_decay : float, >= 0
        Decoupled. It keeps the Lipschitz constant of I - W, and with it the number of iterations, small.
    tol, stop
        As in `mon.equilibrium`, for both passes.
    alpha : {"best", "tuned"}
        Chosen anew at the start of every epoch.
    """

    epochs: int = 13
    batch: int = 128
    learning_rate: float = 5e-3
    schedule: str = "one-cycle"
    weight_decay: float = 0.2
    tol: float = 1e-2
    stop: str = "certificate"
    alpha: str = "best"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch"):
            if not isinstance(getattr(self, name), Integral) or getattr(self, name) < 1:
                raise HypothesisError(f"{name} must be an integer >= 1; got {getattr(self, name)!r}.")
        if not 0 <= self.weight_decay < math.inf:
            raise HypothesisError(f"weight_decay must be finite and >= 0; got {self.weight_decay!r}.")
        schedules.by_name(self.schedule, self.learning_rate, self.epochs)
        alphas.by_name(self.alpha)


PAPER = Recipe(40, 128, 1e-3, "step", weight_decay=0.0, tol=1e-2, stop="relative-change", alpha="tuned")


class Record(NamedTuple):
    """What one epoch did. Iterations are means over the steps; `certified_error` is the largest ||z - z*||_2 used."""

    epoch: int
    loss: float
    train_accuracy: float
    test_accuracy: float
    forward_iterations: float
    backward_iterations: float
    certified_error: float
    alpha: float
    learning_rate: float
    seconds: float


class Step(NamedTuple):
    """What one minibatch did; `minibatch` counts from 0 in every epoch."""

    minibatch: int
    loss: float
    size: int
    correct: int
    forward_iterations: int
    backward_iterations: int
    certified_error: float


@dataclasses.dataclass(frozen=True, eq=False)
class State:
    """Everything that training continues from: parameters, optimiser, random numbers, history."""

    network: MonNetwork
    optimiser: AdamState
    rng: Mapping[str, Any]
    history: tuple[Record, ...] = ()


def start(network: MonNetwork, rng: np.random.Generator) -> State:
    """The state before the first epoch; `rng` (PCG64) is copied, not advanced."""
    return State(network, adam_init(network.params), rng.bit_generator.state)


def minibatches(rng: np.random.Generator, count: int, batch: int) -> Iterator[np.ndarray]:
    """A random permutation of 0..count-1 in pieces of `batch`, the last perhaps shorter.

    Examples
    --------
    >>> import numpy as np
    >>> [len(rows) for rows in minibatches(np.random.default_rng(0), 10, 4)]
    [4, 4, 2]
    """
    order = rng.permutation(count)
    return (order[i : i + batch] for i in range(0, count, batch))


def train(
    state: State, data: Any, recipe: Recipe, *, on_step: Callable[[Step], object] | None = None
) -> Iterator[State]:
    r"""Epochs of Adam on the mean cross-entropy, from `state` to ``recipe.epochs``: one `State` an epoch.

    The same from any of the states that it yielded: a resumed training is the uninterrupted one, bit for bit.

    Parameters
    ----------
    state : State, from `start` or a checkpoint
    data : datasets.Dataset
    recipe : Recipe
    on_step : callable, optional
        Called with a `Step` after every minibatch.

    Raises
    ------
    ConvergenceError
        A forward or backward pass did not reach its tolerance.
    """
    if data.x_train.shape[0] == 0:
        raise ShapeError("data must hold training images; x_train is empty.")
    while len(state.history) < recipe.epochs:
        state = _epoch(state, data, recipe, on_step or (lambda step: None))
        yield state


def _epoch(state: State, data: Any, recipe: Recipe, on_step: Callable[[Step], object]) -> State:
    began, epoch, count = time.perf_counter(), len(state.history), data.x_train.shape[0]
    rng = _generator(state.rng)
    network, optimiser = state.network, state.optimiser
    rate, beta1 = schedules.by_name(recipe.schedule, recipe.learning_rate, recipe.epochs)
    batches = list(minibatches(rng, count, recipe.batch))
    alpha = alphas.by_name(recipe.alpha)(network, data.x_train[batches[0]], tol=recipe.tol, stop=recipe.stop)
    options: SolveOptions = {"alpha": alpha, "tol": recipe.tol, "stop": recipe.stop}
    steps = []
    with quiet():  # a parameter that overflows is refused by name in the next step
        for index, rows in enumerate(batches):
            when = epoch + index / len(batches)
            grads, step = _gradients(network, data.x_train[rows], data.y_train[rows], index, options)
            params, optimiser = adam_step(
                network.params, grads, optimiser, rate(when), beta1(when), weight_decay=recipe.weight_decay
            )
            network = network.replace(**params)
            steps.append(step)
            on_step(step)
    accuracy = evaluate(network, data.x_test, data.y_test, alpha=alpha)
    record = _record(epoch, steps, count, accuracy, alpha, rate(epoch), time.perf_counter() - began)
    return State(network, optimiser, rng.bit_generator.state, (*state.history, record))


def _gradients(
    network: MonNetwork, x: Array, labels: Array, index: int, options: SolveOptions
) -> tuple[dict[str, Array], Step]:
    loss, grads, forward, backward = network.gradients(x, labels, **options)
    correct = _correct(network, forward.z, labels)
    error = largest(forward.bound)
    return grads, Step(index, loss, x.shape[0], correct, forward.iterations, backward.iterations, error)


def _record(
    epoch: int, steps: list[Step], count: int, accuracy: float, alpha: float, rate: float, seconds: float
) -> Record:
    def mean(name: str) -> float:
        return float(np.mean([getattr(step, name) for step in steps]))

    return Record(
        epoch=epoch + 1,
        loss=mean("loss"),
        train_accuracy=sum(step.correct for step in steps) / count,
        test_accuracy=accuracy,
        forward_iterations=mean("forward_iterations"),
        backward_iterations=mean("backward_iterations"),
        certified_error=max(step.certified_error for step in steps),
        alpha=alpha,
        learning_rate=rate,
        seconds=seconds,
    )


def _generator(state: Mapping[str, Any]) -> np.random.Generator:
    rng = np.random.default_rng()
    rng.bit_generator.state = state
    return rng


def _correct(network: MonNetwork, z: Array, labels: Array) -> int:
    return int(np.count_nonzero(to_numpy(network.readout(z)).argmax(axis=1) == to_numpy(labels)))


def evaluate(
    network: MonNetwork, x: Array, labels: Array, *, tol: float = EVALUATION_TOL, alpha: float | None = None
) -> float:
    """The share of x (count, d) classified right, every equilibrium certified to `tol`; NaN for an empty set.

    Solved in float64, where the device has it: float32 certifies little below 1e-4 on trained weights.
    """
    right = 0
    for i in range(0, x.shape[0], EVALUATION_BATCH):
        part = slice(i, i + EVALUATION_BATCH)
        injection = in_double(network.inject(x[part]))
        solution = equilibrium(network.W, injection, network.activation, tol=tol, alpha=alpha)
        right += _correct(network, solution.z, labels[part])
    return right / x.shape[0] if x.shape[0] else float("nan")
