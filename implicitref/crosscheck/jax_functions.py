"""JAX functions as targets. jax is imported when `from_jax` is called, not before."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..activations import relu
from ..errors import HypothesisError
from .targets import PROMISES, Target, target
from .transfer import host

__all__ = ["from_jax"]


def from_jax(
    function: Callable[[Any, Any], Any],
    params: Any,
    *,
    kind: str = "mon-dense",
    names: Mapping[str, str] | None = None,
    T: Callable[[Any, Any, Any], Any] | None = None,
    activation: Any = relu,
    tol: float | None = None,
    rule: str = "implicit",
    second: bool = False,
    name: str | None = None,
    **settings: Any,
) -> Target:
    r"""A target from a JAX function ``(params, x) -> z``; its gradients are those of jax.vjp.

    Parameters
    ----------
    function : callable
    params : pytree of arrays
        Unless x64 is enabled JAX makes them float32, and the layer is judged as one of float32.
    names : dict, optional
        From the names of the package (A, B, U, b, ``A.0``, ...) to the paths of the leaves, keys joined by dots; by
        default every leaf is called by its path.
    T : callable ``(params, z, x) -> z``, for kind "generic"
    second : bool
        Check the second derivative by x too.
    kind, activation, tol, rule, name, **settings
        As in `from_callable`.

    Raises
    ------
    ImportError, HypothesisError
    """
    jax = _jax()
    leaves, tree = jax.tree_util.tree_flatten_with_path(params)
    paths = [".".join(_key(entry) for entry in path) for path, _ in leaves]
    wanted = {path: path for path in paths} if names is None else dict(names)
    missing = sorted(set(wanted.values()) - set(paths))
    if missing:
        raise HypothesisError(f"names: params has no {', '.join(missing)}; it has {', '.join(paths)}.")
    arrays = tuple(jax.numpy.asarray(leaf) for _, leaf in leaves)
    layer = _Function(jax, function, tree, arrays, {ours: paths.index(at) for ours, at in wanted.items()}, T)
    if kind == "generic":
        settings = {"T": None if T is None else layer, "start": layer.start, **settings}
    hessian, called = layer.second if second else None, name or str(getattr(function, "__name__", "function"))
    made = target(kind, layer.forward, layer.backward, layer.read, activation, settings, tol, rule, hessian, called)
    return layer.rounded(made, tol)


def _jax() -> Any:
    try:
        return importlib.import_module("jax")
    except ImportError as error:
        raise ImportError("from_jax needs JAX: pip install jax.") from error


def _key(entry: Any) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)


@dataclasses.dataclass(frozen=True, eq=False)
class _Function:
    """A function of parameters and x with NumPy at both ends; as T of a generic target its products too."""

    jax: Any
    function: Any
    tree: Any
    arrays: tuple[Any, ...]
    places: dict[str, int]
    map: Any

    @property
    def params(self) -> Any:
        """The pytree."""
        return self.jax.tree_util.tree_unflatten(self.tree, self.arrays)

    def rounded(self, made: Target, tol: float | None) -> Target:
        """The target with the precision of the parameters, where NumPy has none such."""
        dtype = self.jax.numpy.result_type(*(self.arrays or (float,)))
        if not self.arrays and dtype == np.float32:  # JAX without x64 makes float32 of every x
            single = np.dtype(np.float32)
            return dataclasses.replace(made, dtype=single, tol=PROMISES[single] if tol is None else tol)
        if dtype not in (self.jax.numpy.bfloat16, np.float16):
            return made
        unit = float(self.jax.numpy.finfo(dtype).eps)
        return dataclasses.replace(made, dtype=np.dtype(np.float32), unit=unit, tol=unit if tol is None else tol)

    def read(self) -> dict[str, np.ndarray]:
        """The parameters; JAX cannot change them."""
        return {name: host(self.arrays[place]) for name, place in self.places.items()}

    def array(self, x: np.ndarray) -> Any:
        """An array of the dtype of the parameters."""
        dtype = self.arrays[0].dtype if self.arrays else None
        return self.jax.numpy.asarray(x, dtype=dtype)

    def forward(self, x: np.ndarray) -> Any:
        """z."""
        return self.function(self.params, self.array(x))

    def backward(self, x: np.ndarray, dz: np.ndarray) -> dict[str, Any]:
        """Gradients by jax.vjp."""
        _, vjp = self.jax.vjp(self.function, self.params, self.array(x))
        by_params, by_x = vjp(self.array(dz))
        return {**self._named(by_params), "x": by_x}

    def _named(self, grads: Any) -> dict[str, Any]:
        leaves = self.jax.tree_util.tree_leaves(grads)
        return {name: leaves[place] for name, place in self.places.items()}

    def second(self, x: np.ndarray, dz: np.ndarray, v: np.ndarray) -> Any:
        """The derivative of the gradient by x along v, by reverse over reverse."""

        def gradient(at: Any) -> Any:
            return self.jax.vjp(lambda x: self.function(self.params, x), at)[1](self.array(dz))[0]

        return self.jax.vjp(gradient, self.array(x))[1](self.array(v))[0]

    # As a fixed-point map: T(z, x) and its products, see fixed_point.maps

    def start(self, x: np.ndarray) -> np.ndarray:
        """A state of zeros."""
        return np.zeros(tuple(self.forward(x).shape))

    def __call__(self, z: np.ndarray, x: np.ndarray) -> np.ndarray:
        """T(z, x)."""
        return host(self.map(self.params, self.array(z), self.array(x)))

    def vjp_state(self, z: np.ndarray, x: np.ndarray, g: np.ndarray) -> np.ndarray:
        """K' g."""
        _, vjp = self.jax.vjp(lambda at: self.map(self.params, at, self.array(x)), self.array(z))
        return host(vjp(self.array(g))[0]).astype(np.float64)

    def jvp_state(self, z: np.ndarray, x: np.ndarray, v: np.ndarray) -> np.ndarray:
        """K v."""
        step = (lambda at: self.map(self.params, at, self.array(x))), (self.array(z),), (self.array(v),)
        return host(self.jax.jvp(*step)[1]).astype(np.float64)

    def vjp_params(self, z: np.ndarray, x: np.ndarray, g: np.ndarray) -> dict[str, np.ndarray]:
        """Gradients of <g, T> by the parameters and by x."""
        at = self.array(z)
        _, vjp = self.jax.vjp(lambda p, x: self.map(p, at, x), self.params, self.array(x))
        by_params, by_x = vjp(self.array(g))
        found = {**self._named(by_params), "x": by_x}
        return {name: host(block).astype(np.float64) for name, block in found.items()}
