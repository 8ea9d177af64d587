"""The array library on which the code under check runs; problems are drawn on the host, then moved, so they are equal.

A validation moves what it hands to the package with `there` and what comes back with `here`, and compares on the host.
What never calls `there` ran on NumPy only, whatever was asked for: `on` counts, so that nobody has to promise.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..arrays import Array, to_numpy

__all__ = ["NAMES", "here", "missing", "on", "there"]


@dataclasses.dataclass
class Place:
    """A library, how NumPy arrays get there, and how many went."""

    name: str
    move: Callable[[np.ndarray], Array]
    moved: int = 0


def _torch() -> Callable[[np.ndarray], Array]:
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    return lambda x: torch.asarray(x.copy())


def _jax() -> Callable[[np.ndarray], Array]:
    jax = importlib.import_module("jax")
    jax.config.update("jax_enable_x64", True)
    return jax.numpy.asarray  # type: ignore[no-any-return]


def _cupy() -> Callable[[np.ndarray], Array]:
    cupy = importlib.import_module("cupy")
    if not cupy.cuda.is_available():
        raise ImportError("it finds no GPU here")
    return cupy.asarray  # type: ignore[no-any-return]


_MOVES: dict[str, Callable[[], Callable[[np.ndarray], Array]]] = {
    "numpy": lambda: lambda x: x, "cupy": _cupy, "torch": _torch, "jax": _jax
}  # fmt: skip
_INSTALL = {"cupy": "cupy-cuda12x", "torch": "torch", "jax": "jax"}
NAMES = tuple(_MOVES)
_place: contextvars.ContextVar[Place | None] = contextvars.ContextVar("_place", default=None)


def missing(name: str) -> str:
    """Why this library cannot be used and what to install, or nothing."""
    try:
        _MOVES[name]()
    except ImportError as error:
        return f"--backend {name} cannot be used: {error}. Install it with: pip install {_INSTALL[name]}"
    return ""


@contextlib.contextmanager
def on(name: str) -> Iterator[Place]:
    """Inside, `there` leads to this library."""
    place = Place(name, _MOVES[name]())
    token = _place.set(place)
    try:
        yield place
    finally:
        _place.reset(token)


def there(x: Any) -> Array:
    """A NumPy array as one of the library that is being checked; itself where that is NumPy."""
    place = _place.get()
    if place is None:
        return np.asarray(x)
    place.moved += 1
    return place.move(np.asarray(x))


def here(x: Array) -> np.ndarray:
    """A result on the host."""
    return to_numpy(x)
