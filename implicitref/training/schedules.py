"""Schedules: the learning rate, or Adam's beta_1, as a function of the epochs done (a fraction within an epoch)."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..arrays import one_of, positive
from ..errors import HypothesisError

__all__ = ["NAMES", "Schedule", "by_name", "constant", "one_cycle", "step_decay"]

Schedule = Callable[[float], float]


def constant(value: float) -> Schedule:
    """The same value for ever."""
    return lambda epoch: value


def step_decay(rate: float, every: float, factor: float = 0.1) -> Schedule:
    """``rate * factor^floor(epoch/every)``; Table D1 has factor 0.1 every 10 or 25 epochs.

    Examples
    --------
    >>> decay = step_decay(1.0, every=10, factor=0.5)
    >>> decay(9.9), decay(10), decay(25)
    (1.0, 0.5, 0.25)
    """
    every = positive("every", every)
    return lambda epoch: rate * factor ** math.floor(epoch / every)


def one_cycle(low: float, high: float, up: float, down: float, hold: float) -> Schedule:
    """Low to high in `up` epochs, back in `down`, then low: piecewise linear [MON-AppD.2-onecycle].

    The paper's rate is ``one_cycle(1e-3, 1e-2, 30, 30, 5)`` and its beta_1 the same with 0.95 and 0.85.

    Examples
    --------
    >>> beta1 = one_cycle(0.95, 0.85, 30, 30, 5)
    >>> [round(beta1(epoch), 3) for epoch in (0, 15, 30, 60, 64)]
    [0.95, 0.9, 0.85, 0.95, 0.95]
    """
    up, down = positive("up", up), positive("down", down)
    if hold < 0:
        raise HypothesisError(f"hold must be >= 0; got {hold!r}.")

    def value(epoch: float) -> float:
        towards = epoch / up if epoch <= up else max(0.0, 1 - (epoch - up) / down)
        return low + (high - low) * towards

    return value


def _constant(rate: float, epochs: int) -> tuple[Schedule, Schedule]:
    return constant(rate), constant(0.9)


def _step(rate: float, epochs: int) -> tuple[Schedule, Schedule]:
    # a quarter of the epochs at each rate: Table D1's 10 of 40
    return step_decay(rate, max(1, math.ceil(epochs / 4))), constant(0.9)


def _one_cycle(rate: float, epochs: int) -> tuple[Schedule, Schedule]:
    # the paper's 30 + 30 + 5 epochs and its 1e-3 to 5e-2 to 1e-3, both to scale
    unit = epochs / 65
    shape = 30 * unit, 30 * unit, 5 * unit
    return one_cycle(rate / 50, rate, *shape), one_cycle(0.95, 0.85, *shape)


NAMES = {"constant": _constant, "step": _step, "one-cycle": _one_cycle}


def by_name(name: str, rate: float, epochs: int) -> tuple[Schedule, Schedule]:
    """Learning rate and beta_1 for a training of `epochs` epochs whose largest rate is `rate`."""
    made: Callable[..., tuple[Schedule, Schedule]] = one_of("schedule", name, NAMES)
    return made(positive("learning_rate", rate), epochs)
