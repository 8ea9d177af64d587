"""The array library on which the code under check runs: validations compute on the host, the package elsewhere.

Problems are drawn with NumPy, so they are the same everywhere. Inside ``on("torch")`` a validation sees the package
through a border: what it hands over is moved to torch, what it gets back is moved to NumPy, objects of the package stay
on the other side. The oracles, NumPy and SciPy, never notice. What came back from the other library is counted: a check
of which nothing did ran on NumPy, whatever was asked for, and the report says so.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..arrays import Array, is_array, to_numpy

__all__ = ["Border", "missing", "on"]

PACKAGE = __package__.rpartition(".")[0]
AT_HOME = {  # NumPy and SciPy by design: spectra, examples, the solvers of shallow problems, a proposition written out
    f"{PACKAGE}.{name}"
    for name in (
        "splitting.rates", "fixed_point.theory", "fixed_point.examples", "sequential.solvers", "sequential.convex",
        "operators.strided.proposition_c1", "datasets",
    )
}  # fmt: skip


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
        raise ImportError("CuPy finds no GPU here")
    return cupy.asarray  # type: ignore[no-any-return]


_MOVES: dict[str, Callable[[], Callable[[np.ndarray], Array]]] = {"cupy": _cupy, "torch": _torch, "jax": _jax}
_INSTALL = {"cupy": "cupy-cuda12x", "torch": "torch", "jax": "jax"}


def missing(name: str) -> str:
    """Why this library cannot be used and what to install, or nothing."""
    try:
        if name != "numpy":
            _MOVES[name]()
    except ImportError as error:
        return f"--backend {name} cannot be used: {error}. Install it with: pip install {_INSTALL[name]}"
    return ""


@contextlib.contextmanager
def on(name: str) -> Iterator[Border]:
    """Inside, the validations that are loaded see the package across the border to this library."""
    border = Border(_MOVES[name]() if name != "numpy" else np.asarray)
    with contextlib.ExitStack() as stack:
        if name != "numpy":
            _close(border, stack)
        yield border


def _close(border: Border, stack: contextlib.ExitStack) -> None:
    for module in [m for n, m in sys.modules.items() if n.startswith(f"{__package__}.") and n != __name__]:
        for name, value in list(vars(module).items()):
            if _has_package(value):
                stack.callback(setattr, module, name, value)
                setattr(module, name, border.inward(border.outward(value)))
    border.crossed = 0


class Border:
    """What crosses it: arrays are moved, containers entry by entry, objects of the package become `Abroad`."""

    def __init__(self, move: Callable[[np.ndarray], Array]) -> None:
        self.move = move
        self.crossed = 0  # arrays of the other library that came back
        self._abroad: dict[int, tuple[Any, Abroad]] = {}

    def outward(self, value: Any) -> Any:
        """What the package gets of a host's value."""
        if type(value) is Abroad:
            return _target(value)
        if type(value) is np.ndarray:
            return self.move(value)
        if _is_package(value):
            return self._rebuilt(value)
        if inspect.isfunction(value) or isinstance(value, np.ufunc):
            return lambda *arguments: self.outward(value(*map(self.inward, arguments)))
        return _each(self.outward, value)

    def inward(self, value: Any) -> Any:
        """What the host gets of a value of the package."""
        if is_array(value):
            self.crossed += not isinstance(value, np.ndarray | np.generic)
            return np.array(to_numpy(value))
        if _is_package(value):
            if id(value) not in self._abroad:  # one for one, so that `is` keeps its meaning
                self._abroad[id(value)] = value, Abroad(self, self._rebuilt(value))
            return self._abroad[id(value)][1]
        if inspect.isgenerator(value):
            return map(self.inward, value)
        return _each(self.inward, value)

    def _rebuilt(self, value: Any) -> Any:
        # a record made on the host: by a validation when it was loaded, or by the package from a seed
        if not dataclasses.is_dataclass(value) or isinstance(value, type):
            return value
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        moved = {name: self.outward(field) for name, field in fields.items()}
        return dataclasses.replace(value, **moved) if any(moved[n] is not fields[n] for n in fields) else value


class Abroad:
    """An object of the package on the other side: its attributes, calls and results cross the border."""

    def __init__(self, border: Border, target: Any) -> None:
        self.__dict__["_there"] = border, target

    def __getattr__(self, name: str) -> Any:
        border, target = self.__dict__["_there"]
        return border.inward(getattr(target, name))

    def __setattr__(self, name: str, value: Any) -> None:
        border, target = self.__dict__["_there"]
        setattr(target, name, border.outward(value))

    def __delattr__(self, name: str) -> None:
        delattr(_target(self), name)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        border, target = self.__dict__["_there"]
        if any(is_array(x) and type(x) is not np.ndarray for x in arguments):
            return target(*arguments, **named)  # called from the other side: a function of the package put into it
        return border.inward(target(*map(border.outward, arguments), **border.outward(named)))

    def __repr__(self) -> str:
        return repr(_target(self))

    # what isinstance and dataclasses.replace ask for

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(_target(instance) if type(instance) is Abroad else instance, _target(self))

    @property
    def __class__(self) -> Any:
        return self.__dict__["_there"][0].inward(type(_target(self)))

    @property
    def __dataclass_fields__(self) -> Any:
        return _target(self).__dataclass_fields__


def _target(value: Abroad) -> Any:
    return value.__dict__["_there"][1]


def _is_package(value: Any) -> bool:
    """Whether it is a module of the package, or made of it; exceptions are caught by name and stay what they are."""
    if inspect.isclass(value) and issubclass(value, BaseException):
        return False
    if isinstance(value, tuple | list | dict) or type(value) is Abroad:
        return False
    home = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", None) or ""
    name = f"{home}.{getattr(value, '__qualname__', '')}"
    if home in AT_HOME or name in AT_HOME or name.startswith(f"{__package__}."):
        return False
    return f"{home}.".startswith(f"{PACKAGE}.")


def _has_package(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_package, value.values()))
    return any(map(_has_package, value)) if isinstance(value, tuple | list) else _is_package(value)


def _each(function: Callable[[Any], Any], value: Any) -> Any:
    """`function` of every entry of a container; any other value, and a container that stays the same, as it is."""
    if isinstance(value, dict):
        return {key: function(entry) for key, entry in value.items()}
    if not isinstance(value, tuple | list):
        return value
    entries = [function(entry) for entry in value]
    if all(new is old for new, old in zip(entries, value, strict=True)):
        return value
    return type(value)(*entries) if hasattr(value, "_fields") else type(value)(entries)
