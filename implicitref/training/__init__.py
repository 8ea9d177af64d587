"""Training as pure functions: optimisers, schedules, step size tuning, the loop, checkpoints, progress."""

from . import alpha, archives, augmentations, checkpoints, optimisers, progress, schedules
from .loop import Recipe, Record, State, Step, evaluate, minibatches, start, train

__all__ = [
    "Recipe",
    "Record",
    "State",
    "Step",
    "alpha",
    "archives",
    "augmentations",
    "checkpoints",
    "evaluate",
    "minibatches",
    "optimisers",
    "progress",
    "schedules",
    "start",
    "train",
]
