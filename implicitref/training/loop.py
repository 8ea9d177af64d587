"""The minibatch loop: a generator of states, one an epoch or one a pause, which can be saved, listed and resumed."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, as_number, count, from_numpy, in_double, mapped, quiet
from ..errors import HypothesisError, ShapeError
from ..losses import count_correct
from ..mon import equilibrium
from ..networks import MonNetwork, SolveOptions
from . import alpha as alphas
from . import augmentations, schedules
from .optimisers import AdamState, adam_init, adam_step

__all__ = ["Learner", "Recipe", "Record", "State", "Step", "evaluate", "minibatches", "start", "train"]

EVALUATION_TOL = 1e-4  # certified distance at which accuracies are measured
EVALUATION_BATCH, EVALUATION_ENTRIES = 2000, 2**23  # samples, and entries of their states, that are solved together
CERTIFIED_EVERY = 100  # minibatches: where the stopping rule does not need the certificate it is a sample


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
        Chosen anew at the start of every epoch, and every `alpha_every` minibatches.
    alpha_every : int >= 1, or None
    augment : {"none", "crop", "crop-flip"}
        See `augmentations`; for networks on images.
    parts : int, >= 1
        Into how many parts a minibatch is split to be solved: the memory is that of one.
    """

    epochs: int = 12
    batch: int = 128
    learning_rate: float = 5e-3
    schedule: str = "one-cycle"
    weight_decay: float = 0.2
    tol: float = 1e-2
    stop: str = "certificate"
    alpha: str = "best"
    alpha_every: int | None = None
    augment: str = "none"
    parts: int = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "parts", *(["alpha_every"] if self.alpha_every is not None else [])):
            count(name, getattr(self, name))
        decay = as_number(self.weight_decay)
        if decay is None or not 0 <= decay < math.inf:
            raise HypothesisError(f"weight_decay must be finite and >= 0; got {self.weight_decay!r}.")
        schedules.by_name(self.schedule, self.learning_rate, self.epochs)
        alphas.by_name(self.alpha)
        augmentations.by_name(self.augment)


IMAGES = Recipe(
    2, learning_rate=3e-2, weight_decay=0.03, tol=3e-2, stop="relative-change", alpha="tuned", alpha_every=100, parts=6
)
RECIPES = {"mon-fc": Recipe(), "mon-conv": IMAGES, "mon-multitier": dataclasses.replace(IMAGES, epochs=1)}
PAPER = Recipe(40, 128, 1e-3, "step", weight_decay=0.0, tol=1e-2, stop="relative-change", alpha="tuned")


class Record(NamedTuple):
    """What one epoch did. Iterations are means over the steps; `certified_error` is the largest ||z - z*||_2 used.

    For fixed point networks backward iterations are the rule's products with dT/dz', and what is None does not exist.
    """

    epoch: int
    loss: float
    train_accuracy: float
    test_accuracy: float
    forward_iterations: float
    backward_iterations: float
    certified_error: float | None
    alpha: float | None
    learning_rate: float
    seconds: float


class Step(NamedTuple):
    """What one minibatch did; `minibatch` counts from 0 in every epoch.

    Under stop = "relative-change" `certified_error` is that of the last minibatch where it was computed.
    """

    minibatch: int
    loss: float
    size: int
    correct: int
    forward_iterations: int
    backward_iterations: int
    certified_error: float | None
    alpha: float | None
    seconds: float


@dataclasses.dataclass(frozen=True, eq=False)
class State:
    """Everything that training continues from: parameters, optimiser, random numbers, history.

    `rng` is the generator's state at the start of the epoch, `steps` what is done of it.
    """

    network: Any
    optimiser: AdamState
    rng: Mapping[str, Any]
    history: tuple[Record, ...] = ()
    steps: tuple[Step, ...] = ()


class Learner(NamedTuple):
    """What training asks of a kind of network: a gradient with its `Step` and new running moments, and an accuracy."""

    gradients: Callable[[State, Array, Array, Any], tuple[dict[str, Array], Step, dict[str, Array]]]
    accuracy: Callable[[State, Any, Any], float]


def learner_of_mon(workers: int = 1) -> Learner:
    """Of monotone operator networks, parts of a batch solved in that many threads."""
    return Learner(functools.partial(_gradients, workers), functools.partial(_accuracy, workers))


def start(network: Any, rng: np.random.Generator) -> State:
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
    state: State,
    data: Any,
    recipe: Any,
    *,
    on_step: Callable[[Step], object] | None = None,
    pause: Callable[[], bool] | None = None,
    learner: Learner | None = None,
) -> Iterator[State]:
    r"""Epochs of Adam on the mean cross-entropy, from `state` to ``recipe.epochs``: one `State` an epoch.

    The same from any of the states that it yielded: a resumed training is the uninterrupted one, bit for bit.

    Parameters
    ----------
    state : State, from `start` or a checkpoint
    data : datasets.Dataset
    recipe : Recipe, or what `learner` takes for one
    on_step : callable, optional
        Called with a `Step` after every minibatch.
    pause : callable, optional
        Asked after every minibatch and every epoch; where it says True, the state at that point is the last yielded.
    learner : Learner, optional
        By default that of monotone operator networks.

    Raises
    ------
    ConvergenceError
        A forward or backward pass did not reach its tolerance.
    """
    if data.x_train.shape[0] == 0:
        raise ShapeError("data must hold training images; x_train is empty.")
    learner = learner or learner_of_mon()
    while len(state.history) < recipe.epochs:
        state = _epoch(state, data, recipe, learner, on_step or (lambda step: None), pause or (lambda: False))
        yield state
        if state.steps or (pause and pause()):
            return


def _epoch(
    state: State,
    data: Any,
    recipe: Any,
    learner: Learner,
    on_step: Callable[[Step], object],
    pause: Callable[[], bool],
) -> State:
    epoch, rng = len(state.history), _generator(state.rng)
    batches = list(minibatches(rng, data.x_train.shape[0], recipe.batch))
    draw = augmentations.by_name(recipe.augment)(rng, data.black)
    rate, beta1 = schedules.by_name(recipe.schedule, recipe.learning_rate, recipe.epochs)
    with quiet():  # a parameter that overflows is refused by name in the next step
        for index in range(len(state.steps), len(batches)):
            began, rows = time.perf_counter(), batches[index]
            x = _inputs(state.network, draw(index, data.x_train[rows].reshape(-1, *state.network.input_shape)))
            grads, step, statistics = learner.gradients(state, x, data.y_train[rows], recipe)
            when, old = epoch + index / len(batches), state.network.params
            params, optimiser = adam_step(
                old, grads, state.optimiser, rate(when), beta1(when), weight_decay=recipe.weight_decay
            )
            network = state.network.replace(**state.network.projected(params), **statistics)
            steps = *state.steps, step._replace(seconds=time.perf_counter() - began)
            state = dataclasses.replace(state, network=network, optimiser=optimiser, steps=steps)
            on_step(steps[-1])
            if pause() and len(steps) < len(batches):
                return state
    began = time.perf_counter()
    accuracy = learner.accuracy(state, data, recipe)
    record = _record(state, data.x_train.shape[0], accuracy, rate(epoch), time.perf_counter() - began)
    return State(state.network, state.optimiser, rng.bit_generator.state, (*state.history, record))


def _accuracy(workers: int, state: State, data: Any, recipe: Recipe) -> float:
    tol, alpha = EVALUATION_TOL if recipe.stop == "certificate" else recipe.tol, state.steps[-1].alpha
    return evaluate(state.network, data.x_test, data.y_test, tol=tol, alpha=alpha, stop=recipe.stop, workers=workers)


def _inputs(network: Any, x: Array) -> Array:
    # from the host, where it is stored and augmented, to wherever the network is
    return from_numpy(x, next(iter(network.params.values()))) if type(x) is np.ndarray else x


def _gradients(
    workers: int, state: State, x: Array, labels: Array, recipe: Recipe
) -> tuple[dict[str, Array], Step, dict[str, Array]]:
    index, network = len(state.steps), state.network
    chosen = index % (recipe.alpha_every or index + 1) == 0
    choose = alphas.by_name(recipe.alpha)
    alpha = choose(network, x, tol=recipe.tol, stop=recipe.stop) if chosen else state.steps[-1].alpha
    options: SolveOptions = {"alpha": alpha, "tol": recipe.tol, "stop": recipe.stop}
    certify = recipe.stop == "certificate" or index % CERTIFIED_EVERY == 0
    found = network.accumulate(x, labels, recipe.parts, workers=workers, certify=certify, **options)
    error = found.certified_error if certify else state.steps[-1].certified_error
    iterations = found.forward_iterations, found.backward_iterations
    step = Step(index, found.loss, x.shape[0], found.correct, *iterations, error, alpha, 0.0)
    return found.grads, step, {}


def _record(state: State, count: int, accuracy: float, rate: float, seconds: float) -> Record:
    def mean(name: str) -> float:
        return float(np.mean([getattr(step, name) for step in state.steps]))

    return Record(
        epoch=len(state.history) + 1,
        loss=mean("loss"),
        train_accuracy=sum(step.correct for step in state.steps) / count,
        test_accuracy=accuracy,
        forward_iterations=mean("forward_iterations"),
        backward_iterations=mean("backward_iterations"),
        certified_error=max((e for step in state.steps if (e := step.certified_error) is not None), default=None),
        alpha=state.steps[-1].alpha,
        learning_rate=rate,
        seconds=seconds + sum(step.seconds for step in state.steps),
    )


def _generator(state: Mapping[str, Any]) -> np.random.Generator:
    rng = np.random.default_rng()
    rng.bit_generator.state = state
    return rng


def evaluate(
    network: MonNetwork,
    x: Array,
    labels: Array,
    *,
    tol: float = EVALUATION_TOL,
    alpha: float | None = None,
    stop: str = "certificate",
    workers: int = 1,
) -> float:
    """The share of the inputs x that is classified right, every equilibrium solved to `tol`; NaN for an empty set.

    Certified in float64, where the device has it: float32 certifies little below 1e-4 on trained weights. Rows
    (count, d) serve networks on images too.
    """
    batch = max(1, min(EVALUATION_BATCH, EVALUATION_ENTRIES // max(1, math.prod(network.W.state_shape))))

    def right(i: int) -> int:
        part = x[i : i + batch].reshape(-1, *network.input_shape)
        injection = network.inject(_inputs(network, part))
        injection = in_double(injection) if stop == "certificate" else injection
        start = network.start(injection, alpha)
        solution = equilibrium(network.W, injection, network.activation, start=start, tol=tol, alpha=alpha, stop=stop)
        return count_correct(network.readout(solution.z), labels[i : i + batch])

    total = sum(mapped(right, range(0, x.shape[0], batch), workers))
    return total / x.shape[0] if x.shape[0] else float("nan")
