"""The array libraries that the package runs on, each as a small object that moves NumPy arrays there and back."""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np


class Unavailable(Exception):
    """The library is not installed, or its device is missing."""


@dataclasses.dataclass(frozen=True)
class Backend:
    """``backend(values)`` is an array of the library, ``backend.numpy(x)`` brings one back."""

    name: str
    convert: Callable[[np.ndarray], Any]
    back: Callable[[Any], np.ndarray]
    eps: float = float(np.finfo(np.float64).eps)

    def __call__(self, values: Any) -> Any:
        return self.convert(np.asarray(values, dtype=np.float64))

    def numpy(self, x: Any) -> np.ndarray:
        return np.asarray(self.back(x))

    @property
    def double(self) -> bool:
        return self.eps < 1e-12

    @property
    def is_numpy(self) -> bool:
        return self.name.startswith("numpy")


EPS32 = float(np.finfo(np.float32).eps)


def _readonly(values: np.ndarray) -> np.ndarray:
    copy = values.copy()
    copy.flags.writeable = False
    return copy


def _numpy64() -> Backend:
    return Backend("numpy-float64", np.array, np.asarray)


def _numpy32() -> Backend:
    return Backend("numpy-float32", lambda v: np.array(v, dtype=np.float32), np.asarray, EPS32)


def _numpy_readonly() -> Backend:
    return Backend("numpy-readonly", _readonly, np.asarray)


def _strict(device: str, double: bool = True) -> Backend:
    xp = _library("array_api_strict")
    place = xp.Device(device)
    dtype = xp.float64 if double else xp.float32
    cpu = xp.Device("CPU_DEVICE")
    return Backend(
        f"strict-{device}",
        lambda v: xp.asarray(v if double else v.astype(np.float32), dtype=dtype, device=place),
        lambda x: np.asarray(x.to_device(cpu)),
        float(xp.finfo(dtype).eps),
    )


def _torch() -> Backend:
    torch = _library("torch")
    torch.set_num_threads(1)
    return Backend("torch", lambda v: torch.asarray(v.copy()), lambda x: x.numpy())


def _jax() -> Backend:
    jax = _library("jax")
    jax.config.update("jax_enable_x64", True)
    return Backend("jax", jax.numpy.asarray, np.asarray)


def _cupy() -> Backend:
    cupy = _library("cupy")
    if not cupy.cuda.is_available():
        raise Unavailable("cupy is installed, but cupy.cuda.is_available() is False: no CUDA device")
    return Backend("cupy", cupy.asarray, cupy.asnumpy)


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Unavailable(f"{name} cannot be imported: {error}") from None


MAKERS: dict[str, Callable[[], Backend]] = {
    "numpy-float64": _numpy64,
    "numpy-float32": _numpy32,
    "numpy-readonly": _numpy_readonly,
    "strict": functools.partial(_strict, "CPU_DEVICE"),
    "strict-device1": functools.partial(_strict, "device1"),
    "strict-no-float64": functools.partial(_strict, "no_float64", double=False),
    "torch": _torch,
    "jax": _jax,
    "cupy": _cupy,
}


@functools.cache
def make(name: str) -> Backend:
    """The backend called `name`; raises Unavailable with the reason."""
    return MAKERS[name]()
