"""Training as pure functions: optimisers, schedules, step size tuning, the loop, checkpoints, progress."""

from . import alpha, augmentations, blocks, checkpoints, implicit, jfb, optimisers, progress, schedules
from .implicit import ImplicitRecipe, Samples, projected_gradient
from .jfb import FixedPointRecipe
from .loop import Learner, Recipe, Record, State, Step, evaluate, minibatches, start, train

__all__ = [
    "FixedPointRecipe",
    "ImplicitRecipe",
    "Learner",
    "Recipe",
    "Record",
    "Samples",
    "State",
    "Step",
    "alpha",
    "augmentations",
    "blocks",
    "checkpoints",
    "evaluate",
    "implicit",
    "jfb",
    "minibatches",
    "optimisers",
    "progress",
    "projected_gradient",
    "schedules",
    "start",
    "train",
]
