"""Training as pure functions: optimisers, schedules, step size tuning, the loop, checkpoints, progress."""

from . import alpha, archives, augmentations, checkpoints, jfb, optimisers, progress, schedules
from .jfb import FixedPointRecipe
from .loop import Learner, Recipe, Record, State, Step, evaluate, minibatches, start, train

__all__ = [
    "FixedPointRecipe",
    "Learner",
    "Recipe",
    "Record",
    "State",
    "Step",
    "alpha",
    "archives",
    "augmentations",
    "checkpoints",
    "evaluate",
    "jfb",
    "minibatches",
    "optimisers",
    "progress",
    "schedules",
    "start",
    "train",
]
