"""The executable reference for implicit-depth networks: operators, proximal maps, splittings and gradients by hand."""

import importlib
from typing import TYPE_CHECKING, Any

from .errors import ConvergenceError, HypothesisError, ShapeError

if TYPE_CHECKING:  # at run time each is imported at its first use
    from . import (
        activations,
        arrays,
        claims,
        crosscheck,
        datasets,
        errors,
        estimators,
        fixed_point,
        layers,
        losses,
        mon,
        networks,
        operators,
        persistence,
        plotting,
        sequential,
        splitting,
        training,
        well_posed,
    )
    from .persistence import load, save

__version__ = "0.1.0"

_FUNCTIONS = {"load": "persistence", "save": "persistence"}


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(f".{_FUNCTIONS[name]}", __name__), name)
    if name in __all__:
        return importlib.import_module(f".{name}", __name__)
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
