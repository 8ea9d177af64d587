r"""End-to-end training of implicit models by projected gradient steps: what GREEDY compares its method with.

Every step solves (3) and its adjoint, a fixed-point equation in a matrix variable each, moves all parameters, and
projects A on the ball ``||A||_inf <= radius`` [GREEDY-Eq4, GREEDY-Rem4].
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

from ..arrays import Array, count, largest, positive
from ..losses import count_correct, loss_named
from ..networks import ImplicitGradients, ImplicitModel
from . import schedules
from .loop import Learner, State, Step

__all__ = ["LEARNER", "ImplicitRecipe", "Samples", "projected_gradient"]

EVALUATION_BATCH = 5000


def projected_gradient(
    model: ImplicitModel,
    x: Array,
    target: Array,
    learning_rate: float,
    *,
    loss: str = "squared",
    tol: float = 1e-6,
) -> Iterator[tuple[ImplicitModel, ImplicitGradients]]:
    r"""Models and what was found at the one before: ``p+ = p - rate dp``, then A+ on its ball; the whole batch at once.

    The method line by line; `loop.train` with `LEARNER` is the same on minibatches with Adam's direction.

    Examples
    --------
    >>> import numpy as np
    >>> from implicitref.networks import ImplicitModel
    >>> one = np.array([[1.0]])
    >>> steps = projected_gradient(ImplicitModel(one / 2, one, one), one, 0 * one, 0.1)      # yhat = 2 C, loss yhat^2/2
    >>> [round(found.loss, 3) for _, found in zip(range(3), (found for _, found in steps))]
    [2.0, 0.038, 0.035]
    """
    rate = positive("learning_rate", learning_rate)
    while True:
        found = model.gradients(x, target, loss, tol=tol)
        moved = {name: p - rate * found.grads[name] for name, p in model.params.items()}
        model = model.replace(**model.projected(moved))
        yield model, found


@dataclasses.dataclass(frozen=True)
class ImplicitRecipe:
    """How to train an implicit model end to end: Adam and the projection, on minibatches.

    Attributes
    ----------
    loss : {"squared", "cross-entropy"}
    epochs, batch : int, >= 1
    learning_rate, schedule, weight_decay
        As in `loop.Recipe`; the paper has Adam at 0.01 (interpolation) and 0.001 (images), 200 epochs.
    tol : float, > 0
        Certified error of every entry of the state, absolute, and of the adjoint, relative.
    max_iter : int, >= 1
    """

    loss: str = "squared"
    epochs: int = 200
    batch: int = 256
    learning_rate: float = 1e-2
    schedule: str = "constant"
    weight_decay: float = 0.0
    tol: float = 1e-4
    max_iter: int = 1000
    augment: ClassVar[str] = "none"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "max_iter"):
            count(name, getattr(self, name))
        loss_named(self.loss)
        positive("tol", self.tol)
        schedules.by_name(self.schedule, self.learning_rate, self.epochs)


@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
    """Rows x (count, d) and targets (count, q), or labels (count,), for `loop.train`.

    A `datasets.Dataset` serves as well.
    """

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array
    black: float = 0.0


def _gradients(
    state: State, x: Array, target: Array, recipe: ImplicitRecipe
) -> tuple[dict[str, Array], Step, dict[str, Array]]:
    found = state.network.gradients(x, target, recipe.loss, tol=recipe.tol, max_iter=recipe.max_iter)
    return found.grads, recorded(state, x, found, _correct(found.prediction, target, recipe.loss)), {}


def recorded(state: State, x: Array, found: ImplicitGradients, correct: Any) -> Step:
    """What the history keeps of a step."""
    return Step(
        minibatch=len(state.steps),
        loss=found.loss,
        size=x.shape[0],
        correct=correct,
        forward_iterations=found.forward.iterations,
        backward_iterations=found.backward.iterations,
        certified_error=largest(found.forward.bound),
        alpha=None,
        seconds=0.0,
    )


def _accuracy(state: State, data: Any, recipe: ImplicitRecipe) -> float:
    count, right = len(data.x_test), 0
    if recipe.loss != "cross-entropy" or not count:
        return float("nan")
    for i in range(0, count, EVALUATION_BATCH):
        part = slice(i, i + EVALUATION_BATCH)
        prediction = state.network.predict(data.x_test[part], tol=recipe.tol, max_iter=recipe.max_iter)
        right += _correct(prediction, data.y_test[part], recipe.loss)
    return right / count


def _correct(prediction: Array, target: Array, loss: str) -> Any:
    # what has no labels has no accuracy: NaN, also in the record of the epoch
    return count_correct(prediction, target) if loss == "cross-entropy" else float("nan")


LEARNER = Learner(_gradients, _accuracy)
