"""Training of fixed point networks: a recipe and a learner for `loop.train`, one code for every gradient rule."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from ..arrays import Array, count, from_numpy, positive, to_numpy
from ..errors import ConvergenceError
from ..fixed_point import Rule, implicit, rule_named
from ..networks import FixedPointNetwork
from . import augmentations, schedules
from .loop import Learner, State, Step
from .team import Team

__all__ = ["LEARNER", "FixedPointRecipe", "learner_of"]

ADJOINT_TOL = 1e-3  # relative, of the implicit rule: float32 goes no further than 1e-5 through the moments of a batch
EVALUATION_SHARE, EVALUATION_BATCH = 0.2, 500  # of the tolerance in training; samples that are solved together


@dataclasses.dataclass(frozen=True)
class FixedPointRecipe:
    """How to train a fixed point network.

    Attributes
    ----------
    epochs, batch : int, >= 1
    learning_rate, schedule, weight_decay, augment
        As in `loop.Recipe`.
    tol : float, > 0
        Of the forward iteration: ``||T(z) - z||_2 <= tol sqrt(batch)``.
    max_iter : int, >= 1
        The cap of that iteration [JFB-Tab2].
    rule : str
        "jfb", "neumann:k", "implicit" or "implicit:solver", see `fixed_point.rule_named`.
    """

    epochs: int = 5
    batch: int = 128
    learning_rate: float = 1e-2
    schedule: str = "one-cycle"
    weight_decay: float = 0.0
    tol: float = 0.5
    max_iter: int = 50
    rule: str = "jfb"
    augment: str = "none"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "max_iter"):
            count(name, getattr(self, name))
        positive("tol", self.tol)
        rule_of(self.rule)
        schedules.by_name(self.schedule, self.learning_rate, self.epochs)
        augmentations.by_name(self.augment)


def rule_of(name: str) -> Rule:
    """The rule of that name, the implicit one solved to the tolerance of training."""
    rule = rule_named(name)
    _, _, solver = name.partition(":")
    return implicit(solver or "picard", tol=ADJOINT_TOL) if name.startswith("implicit") else rule


def learner_of(team: Team | None = None) -> Learner:
    """What `loop.train` does with a minibatch and with a test set; a team shares the minibatches out."""
    return Learner(functools.partial(_gradients, team), _accuracy)


def _gradients(
    team: Team | None, state: State, x: Array, labels: Array, recipe: FixedPointRecipe
) -> tuple[dict[str, Array], Step, dict[str, Array]]:
    network = state.network
    how: dict[str, Any] = {"tol": recipe.tol, "max_iter": recipe.max_iter}
    if team is None or x.shape[0] < team.members:
        found = network.training_pass(x, labels, rule_of(recipe.rule), **how)
    else:
        found = team.training_pass(network, x, labels, recipe.rule, **how)
    step = Step(
        minibatch=len(state.steps),
        loss=found.loss,
        size=x.shape[0],
        correct=_correct(found.logits, labels),
        forward_iterations=found.solution.iterations,
        backward_iterations=found.products,
        certified_error=None,
        alpha=None,
        seconds=0.0,
    )
    return found.grads, step, found.statistics


def _accuracy(state: State, data: Any, recipe: FixedPointRecipe) -> float:
    # Evaluation mode, where nothing makes the map of a half-trained network a contraction: an image that has not
    # settled after as many applications as in training is judged by its last iterate, as in the papers.
    network, tol, right, count = state.network, EVALUATION_SHARE * recipe.tol, 0, len(data.x_test)
    like = next(iter(network.params.values()))
    for i in range(0, count, EVALUATION_BATCH):
        x = from_numpy(data.x_test[i : i + EVALUATION_BATCH].reshape(-1, *network.image), like)
        right += _correct(network.S(_settled(network, x, tol, recipe.max_iter)), data.y_test[i : i + EVALUATION_BATCH])
    return right / count if count else float("nan")


def _settled(network: FixedPointNetwork, x: Array, tol: float, max_iter: int) -> Array:
    try:
        return network.solve(x, tol=tol, max_iter=max_iter).z
    except ConvergenceError as error:
        return error.solution.z


def _correct(logits: Array, labels: Array) -> int:
    return int(np.count_nonzero(to_numpy(logits).argmax(axis=1) == to_numpy(labels)))


LEARNER = learner_of()
