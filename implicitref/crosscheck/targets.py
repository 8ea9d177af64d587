"""A target: the layer to be checked, as plain data and two functions from NumPy arrays to NumPy arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..activations import Activation, ZeroBorder, relu
from ..arrays import is_array
from ..errors import HypothesisError
from .equations import KINDS, equation
from .transfer import host
from .weights import flat

__all__ = ["PROMISES", "Target", "from_callable"]

# relative accuracy that solvers of a layer are usually asked for, by the significant digits of its dtype
PROMISES = {np.dtype(np.float64): 1e-8, np.dtype(np.float32): 1e-5, np.dtype(np.float16): 1e-2}


@dataclasses.dataclass(frozen=True, eq=False)
class Target:
    r"""A layer to be checked.

    Attributes
    ----------
    kind : {"mon-dense", "mon-conv", "mon-multitier", "fixed-point", "implicit", "generic"}
    forward : callable ``x -> z``
    backward : callable ``(x, dz) -> dict``
        Gradient of ``sum(dz * forward(x))`` by every parameter, by name, and by "x".
    read : callable ``() -> dict``
        The parameters as they are now.
    activation : Activation or ZeroBorder
    settings : mapping
        m, size, sizes, stride, image, border of a monotone layer; T, start, input_shape of a generic one.
    dtype : numpy.dtype
        In which the layer computes.
    tol : float
        Relative accuracy that its solvers promise.
    rule : str
        What its gradient is meant to be: "implicit", "jfb" or "neumann:k".
    second : callable ``(x, dz, v) -> H v``, optional
        The derivative of the gradient by x along v.
    name : str
    unit : float
        eps of the arithmetic; that of dtype, or larger (bfloat16).
    """

    kind: str
    forward: Callable[[np.ndarray], Any]
    backward: Callable[[np.ndarray, np.ndarray], Mapping[str, Any]]
    read: Callable[[], dict[str, np.ndarray]]
    activation: Any
    settings: Mapping[str, Any]
    dtype: Any
    tol: float
    rule: str = "implicit"
    second: Callable[[np.ndarray, np.ndarray, np.ndarray], Any] | None = None
    name: str = "layer"
    unit: float = 0.0

    def rounded(self, x: np.ndarray) -> np.ndarray:
        """`x` as the layer can hold it, in float64."""
        x = x.astype(self.dtype).astype(np.float64)
        if self.unit <= np.finfo(self.dtype).eps:
            return x
        mantissa, exponent = np.frexp(x)
        return np.asarray(np.ldexp(np.round(mantissa * 2 / self.unit) * self.unit / 2, exponent))

    def equation(self) -> Any:
        """What it claims to solve, with its parameters as they are now, in float64."""
        return equation(self.kind, self.read(), self.activation, self.settings)


def from_callable(
    forward: Callable[[np.ndarray], Any],
    backward: Callable[[np.ndarray, np.ndarray], Mapping[str, Any]],
    parameters: Mapping[str, Any],
    *,
    kind: str = "mon-dense",
    activation: Any = relu,
    tol: float | None = None,
    rule: str = "implicit",
    second: Callable[[np.ndarray, np.ndarray, np.ndarray], Any] | None = None,
    name: str = "layer",
    **settings: Any,
) -> Target:
    r"""A target from functions of NumPy arrays.

    Parameters
    ----------
    forward, backward, kind, activation, tol, rule, second, name
        See `Target`; tol is 1e-8 for float64 and 1e-5 for float32 unless given.
    parameters : dict of arrays
        A, B, U, b, g, h of a monotone layer (without U, x is the injection); lists, or ``A.0``, ``A.1``, for
        several tiers; W, U, b of a fixed-point layer; A, B, C, D, b of an implicit model. They decide the dtype.
    **settings
        m, size, sizes, stride, image, border; T, start, input_shape. See `Target`.

    Examples
    --------
    >>> import numpy as np
    >>> half = {"W": np.array([[0.5]])}                             # z = z/2 + x = 2 x
    >>> def backward(x, dz):
    ...     return {"W": (2 * dz).T @ (2 * x), "x": 2 * dz}
    >>> from implicitref.activations import leaky_relu
    >>> from implicitref.crosscheck import check
    >>> check(from_callable(lambda x: 2 * x, backward, half, kind="fixed-point", activation=leaky_relu(1.0))).verdict
    'pass'
    """
    held = flat({k: [*map(host, v)] if isinstance(v, list | tuple) else host(v) for k, v in parameters.items()})
    return target(kind, forward, backward, lambda: held, activation, settings, tol, rule, second, name)


def target(
    kind: str,
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    read: Callable[[], dict[str, np.ndarray]],
    activation: Any,
    settings: Mapping[str, Any],
    tol: float | None,
    rule: str,
    second: Callable[..., Any] | None,
    name: str,
) -> Target:
    """A `Target` with its dtype found and its claims checked."""
    if kind not in KINDS:
        raise HypothesisError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}.")
    if rule not in ("implicit", "jfb") and not (rule[:8] == "neumann:" and rule[8:].isdecimal()):
        raise HypothesisError(
            f"rule must be 'implicit', 'jfb' or 'neumann:k', what the gradient is meant to be; got {rule!r}."
        )
    if second is not None and rule != "implicit":
        raise HypothesisError(f"a second derivative is checked of rule='implicit' only; got rule={rule!r}.")
    params = read()
    _known(kind, params, activation, settings)
    dtype = _dtype(params)
    promised = PROMISES[dtype] if tol is None else float(tol)
    found = Target(kind, forward, backward, read, activation, settings, dtype, promised, rule, second, name)
    found.equation()  # what is missing is said now
    return found


# by kind: parameters, of which a tier has its own as ``A.0``, and settings; what is not read would be judged unseen
KNOWN: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "mon-dense": (("A", "B", "U", "b", "g", "h"), ("m",)),
    "mon-conv": (("A", "B", "U", "b", "g", "h"), ("m", "size", "image", "border")),
    "mon-multitier": (("A", "B", "S", "U", "b", "g", "gs", "h"), ("m", "sizes", "stride", "image", "border")),
    "fixed-point": (("W", "U", "b"), ()),
    "implicit": (("A", "B", "C", "D", "b"), ()),
    "generic": ((), ("T", "start", "input_shape")),
}


def _known(kind: str, params: Mapping[str, Any], activation: Any, settings: Mapping[str, Any]) -> None:
    names, options = KNOWN[kind]
    strange = [name for name in params if kind != "generic" and name.partition(".")[0] not in names]
    if strange:
        raise HypothesisError(
            f"parameters of kind {kind} are called {', '.join(names)}; got {', '.join(strange)}. Rename them, and "
            "leave out what is not part of the layer: names={'A': 'its name in the model', ...} for PyTorch and JAX."
        )
    unread = [name for name in settings if name not in options]
    if unread:
        raise HypothesisError(f"kind {kind} has the settings {', '.join(options) or 'none'}; got {', '.join(unread)}.")
    if not isinstance(activation, Activation | ZeroBorder):
        raise TypeError(f"activation must be one of implicitref.activations, such as relu; got {activation!r}.")
    if kind == "generic" and settings.get("T", True) is None:
        raise HypothesisError("kind generic needs T, the map whose fixed point is returned; got None.")


def _dtype(params: Mapping[str, Any]) -> np.dtype[Any]:
    kinds: list[np.dtype[Any]] = [np.asarray(p).dtype for p in params.values() if is_array(p)]
    narrow = sorted((d for d in kinds if d in PROMISES), key=lambda d: d.itemsize)
    return narrow[0] if narrow else np.dtype(np.float64)
