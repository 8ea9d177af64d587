"""The executable reference for implicit-depth networks: operators, proximal maps, splittings and gradients by hand."""

import importlib
from typing import Any

from . import activations, arrays, errors, losses, mon, operators, splitting
from .errors import ConvergenceError, HypothesisError, ShapeError

__version__ = "0.1.0"

_ON_DEMAND = (
    "claims",
    "crosscheck",
    "datasets",
    "estimators",
    "fixed_point",
    "layers",
    "networks",
    "persistence",
    "plotting",
    "sequential",
    "training",
    "well_posed",
)
_FUNCTIONS = {"load": "persistence", "save": "persistence"}


def __getattr__(name: str) -> Any:
    if name in _ON_DEMAND:
        return importlib.import_module(f".{name}", __name__)
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(f".{_FUNCTIONS[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


__all__ = [
    "ConvergenceError",
    "HypothesisError",
    "ShapeError",
    "activations",
    "arrays",
    "claims",
    "crosscheck",
    "datasets",
    "errors",
    "estimators",
    "fixed_point",
    "layers",
    "load",
    "losses",
    "mon",
    "networks",
    "operators",
    "persistence",
    "plotting",
    "save",
    "sequential",
    "splitting",
    "training",
    "well_posed",
]
