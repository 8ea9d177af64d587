"""PyTorch layers as targets. torch is imported when `from_torch` is called, not before."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..activations import relu
from ..errors import HypothesisError
from .targets import Target, target
from .transfer import host

__all__ = ["from_torch"]


def from_torch(
    module: Any,
    *,
    kind: str = "mon-dense",
    names: Mapping[str, str] | None = None,
    T: Callable[[Any, Any], Any] | None = None,
    activation: Any = relu,
    tol: float | None = None,
    rule: str = "implicit",
    second: bool = False,
    name: str | None = None,
    **settings: Any,
) -> Target:
    r"""A target from a torch module ``x -> z``; its gradients are those of autograd.

    Parameters
    ----------
    module : torch.nn.Module
        Taken as it is, mode, device and dtype included.
    names : dict, optional
        From the names of the package (A, B, U, b, ``A.0``, ...) to those of ``module.named_parameters()``, buffers
        included; by default every parameter keeps its own name.
    T : callable ``(z, x) -> z``, for kind "generic"
        The map whose fixed point the module returns, made of the module's parameters.
    second : bool
        Check the second derivative by x too, through a double backward pass.
    kind, activation, tol, rule, name, **settings
        As in `from_callable`.

    Raises
    ------
    ImportError, HypothesisError
    """
    torch = _torch()
    layer = _Module(torch, module, _tensors(module, names), T)
    if kind == "generic":
        settings = {"T": None if T is None else layer, "start": layer.start, **settings}
    hessian = layer.second if second else None
    called = name or type(module).__name__
    made = target(kind, layer.forward, layer.backward, layer.read, activation, settings, tol, rule, hessian, called)
    return layer.rounded(made, tol)


def _torch() -> Any:
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise ImportError("from_torch needs PyTorch: pip install torch.") from error


def _tensors(module: Any, names: Mapping[str, str] | None) -> dict[str, Any]:
    own = {**dict(module.named_buffers()), **dict(module.named_parameters())}
    wanted = {name: name for name, _ in module.named_parameters()} if names is None else dict(names)
    missing = sorted(set(wanted.values()) - set(own))
    if missing:
        raise HypothesisError(f"names: the module has no {', '.join(missing)}; it has {', '.join(own)}.")
    return {ours: own[theirs] for ours, theirs in wanted.items()}


@dataclasses.dataclass(frozen=True, eq=False)
class _Module:
    """A module with NumPy at both ends; as T of a generic target its products too."""

    torch: Any
    module: Any
    tensors: dict[str, Any]
    map: Any

    @property
    def first(self) -> Any:
        """A tensor to follow in dtype and device."""
        return next(iter(self.tensors.values()), self.torch.zeros(1, dtype=self.torch.float64))

    def rounded(self, made: Target, tol: float | None) -> Target:
        """The target with the precision of the module, where NumPy has none such."""
        if self.first.dtype not in (self.torch.bfloat16, self.torch.float16):
            return made
        unit = float(self.torch.finfo(self.first.dtype).eps)
        return dataclasses.replace(made, dtype=np.dtype(np.float32), unit=unit, tol=unit if tol is None else tol)

    def read(self) -> dict[str, np.ndarray]:
        """The parameters as they are now."""
        return {name: host(tensor) for name, tensor in self.tensors.items()}

    def tensor(self, x: np.ndarray, grad: bool = False) -> Any:
        """A tensor where the module lives."""
        made = self.torch.tensor(x, dtype=self.first.dtype, device=self.first.device)
        return made.requires_grad_(grad)

    def forward(self, x: np.ndarray) -> Any:
        """z."""
        return self.module(self.tensor(x))

    def backward(self, x: np.ndarray, dz: np.ndarray) -> dict[str, Any]:
        """Gradients by autograd; zero where the graph does not reach."""
        given = self.tensor(x, grad=True)
        return self._vjp(self.module(given), self.tensor(dz), {"x": given})

    def _vjp(self, z: Any, dz: Any, inputs: dict[str, Any]) -> dict[str, Any]:
        trained = {name: tensor for name, tensor in self.tensors.items() if tensor.requires_grad}
        at = {**trained, **inputs}
        if not z.requires_grad:
            return {name: self.torch.zeros_like(value) for name, value in at.items()}
        grads = self.torch.autograd.grad(z, list(at.values()), dz, allow_unused=True)
        return {
            name: self.torch.zeros_like(value) if g is None else g
            for (name, value), g in zip(at.items(), grads, strict=True)
        }

    def second(self, x: np.ndarray, dz: np.ndarray, v: np.ndarray) -> Any:
        """The derivative of the gradient by x along v, by a double backward pass."""
        given, along = self.tensor(x, grad=True), self.tensor(v)
        (g,) = self.torch.autograd.grad(self.module(given), given, self.tensor(dz), create_graph=True)
        if not g.requires_grad:
            return self.torch.zeros_like(given)
        (h,) = self.torch.autograd.grad(g, given, along, allow_unused=True)
        return self.torch.zeros_like(given) if h is None else h

    # As a fixed-point map: T(z, x) and its products, see fixed_point.maps

    def start(self, x: np.ndarray) -> np.ndarray:
        """A state of zeros."""
        return np.zeros(tuple(self.forward(x).shape))

    def __call__(self, z: np.ndarray, x: np.ndarray) -> np.ndarray:
        """T(z, x)."""
        return host(self.map(self.tensor(z), self.tensor(x)))

    def vjp_state(self, z: np.ndarray, x: np.ndarray, g: np.ndarray) -> np.ndarray:
        """K' g."""
        at = self.tensor(z, grad=True)
        (found,) = self.torch.autograd.grad(self.map(at, self.tensor(x)), at, self.tensor(g))
        return host(found).astype(np.float64)

    def jvp_state(self, z: np.ndarray, x: np.ndarray, v: np.ndarray) -> np.ndarray:
        """K v."""
        given = self.tensor(x)
        _, found = self.torch.autograd.functional.jvp(lambda at: self.map(at, given), self.tensor(z), self.tensor(v))
        return host(found).astype(np.float64)

    def vjp_params(self, z: np.ndarray, x: np.ndarray, g: np.ndarray) -> dict[str, np.ndarray]:
        """Gradients of <g, T> by the parameters and by x."""
        given = self.tensor(x, grad=True)
        found = self._vjp(self.map(self.tensor(z), given), self.tensor(g), {"x": given})
        return {name: host(block).astype(np.float64) for name, block in found.items()}
