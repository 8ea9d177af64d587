"""The executable reference for implicit-depth networks: operators, proximal maps, splittings and gradients by hand."""

from . import activations, arrays, errors, layers, losses, mon, operators, splitting
from .errors import ConvergenceError, HypothesisError, ShapeError

__version__ = "0.1.0"

__all__ = [
    "ConvergenceError",
    "HypothesisError",
    "ShapeError",
    "activations",
    "arrays",
    "errors",
    "layers",
    "losses",
    "mon",
    "operators",
    "splitting",
]
