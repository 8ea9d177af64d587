r"""What a target claims to compute, as equations that this package solves: the state, and the gradient at any state.

A `Layer` is ``z* = sigma(W z* + injection(x))``, an `OwnMap` is ``z* = T(z*, x)`` with T known by its products; both
answer the same questions. A `Point` is one of them at a state, where one line gives the gradient:
``dpre = J (dz + W' dpre)`` [MON-Thm3], with J = 1 and W' = K' where T is all that is known.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from .. import mon
from ..activations import Activation, ZeroBorder
from ..arrays import eps, norm
from ..errors import ConvergenceError, HypothesisError, ShapeError
from ..fixed_point.maps import contraction, linearise
from ..networks.ends import Images, Rows
from ..operators import MonotoneConv, MonotoneDense, MonotoneMultiTier
from . import systems
from .weights import PlainWeight, flat, nested

__all__ = ["KINDS", "Layer", "OwnMap", "Point", "Solved", "equation"]

Blocks = dict[str, np.ndarray]
KINDS = ("mon-dense", "mon-conv", "mon-multitier", "fixed-point", "implicit", "generic")
PATIENCE, NEWTON = 12, 40  # iterations without a gain that end Picard's; Newton steps
OPERATOR_PARAMETERS = ("A", "B", "S", "g", "gs", "h")


class Solved(NamedTuple):
    """A state of every sample, and how far it may be from the equilibrium, certified or estimated."""

    z: np.ndarray
    bound: np.ndarray
    certified: bool


@dataclasses.dataclass(frozen=True)
class Direct:
    """x is the injection itself, perhaps with a bias."""

    def input_shape(self, U: Any) -> tuple[int, ...] | None:
        """As the state: unknown here."""
        return None

    def inject(self, W: Any, x: np.ndarray, U: Any, b: np.ndarray) -> np.ndarray:
        """X + b, b one number a channel."""
        return x + b.reshape(b.shape + (1,) * (x.ndim - 2)) if b.size else x

    def inject_vjp(self, W: Any, U: Any, dy: np.ndarray) -> np.ndarray:
        """dy."""
        return dy

    def inject_vjp_params(self, W: Any, x: np.ndarray, dy: np.ndarray) -> tuple[Any, np.ndarray]:
        """None, and the gradient by b."""
        return None, dy.sum(axis=(0, *range(2, dy.ndim)))


# ------------------------------------------------------------------------------------------------
# z = sigma(W z + U x + b)


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    r"""``z = sigma(W z + U x + b)``, and for kind "implicit" the output ``C z + D x``.

    Attributes
    ----------
    kind : str
    W : operator, or PlainWeight
    U, b : array or None
    activation : Activation or ZeroBorder
    ends : how inputs enter: networks.ends.Rows or Images, or Direct
    names : what U and b are called
    C, D : array or None
    """

    kind: str
    W: Any
    U: Any
    b: Any
    activation: Activation | ZeroBorder
    ends: Any
    names: tuple[str, str] = ("U", "b")
    C: Any = None
    D: Any = None

    @property
    def params(self) -> Blocks:
        """Every parameter by name."""
        outside = {self.names[0]: self.U, self.names[1]: self.b, "C": self.C, "D": self.D}
        return {**flat(self.W.params), **{name: value for name, value in outside.items() if value is not None}}

    @property
    def hidden(self) -> bool:
        """Whether only C z + D x is seen of the state."""
        return self.C is not None

    @property
    def monotone(self) -> bool:
        """Whether W is an operator of Proposition 1."""
        return not isinstance(self.W, PlainWeight)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one sample."""
        found = self.ends.input_shape(self.U)
        return tuple(self.W.state_shape if found is None else found)

    def inject(self, x: np.ndarray) -> np.ndarray:
        """U x + b."""
        return np.asarray(self.ends.inject(self.W, x, self.U, self._bias))

    @property
    def _bias(self) -> np.ndarray:
        if self.b is not None:
            return np.asarray(self.b)
        return np.zeros(0 if self.U is None else self.U.shape[0])

    def output(self, z: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Z, or C z + D x."""
        if self.C is None:
            return z
        return np.asarray(z @ self.C.T + (0 if self.D is None else x @ self.D.T))

    def cotangent(self, dy: np.ndarray) -> np.ndarray:
        """The cotangent at z from that at the output."""
        return dy if self.C is None else dy @ self.C

    def output_shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return tuple(self.W.state_shape if self.C is None else (self.C.shape[0],))

    def step(self, z: np.ndarray, x: np.ndarray) -> np.ndarray:
        """sigma(W z + U x + b)."""
        return np.asarray(self.activation(self.W.matvec(z) + self.inject(x)))

    def point(self, z: np.ndarray, x: np.ndarray, dy: np.ndarray) -> Point:
        """The layer at a state."""
        pre = self.W.matvec(z) + self.inject(x)
        return Point(self, z, x, dy, self.cotangent(dy), pre, self.activation.derivative(pre), self.W)

    def weight_blocks(self, point: Point, z: np.ndarray, dpre: np.ndarray) -> Blocks:
        """Gradients by the parameters of W."""
        return flat(self.W.vjp(z, dpre))

    def state_blocks(self, point: Point, z: np.ndarray, dpre: np.ndarray) -> Blocks:
        """Every block that is linear in the state, for a state z: the parameters of W, and C."""
        found = self.weight_blocks(point, z, dpre)
        return found if self.C is None else {**found, "C": point.dy.T @ z}

    def injection_blocks(self, point: Point, x: np.ndarray, dpre: np.ndarray) -> Blocks:
        """Gradients by U, b, C, D and x."""
        dU, db = self.ends.inject_vjp_params(self.W, x, dpre)
        found = {self.names[0]: dU, self.names[1]: db, "x": np.asarray(self.ends.inject_vjp(self.W, self.U, dpre))}
        if self.C is not None:
            found |= {"C": point.dy.T @ point.z, "D": point.dy.T @ x}
            found["x"] = found["x"] + (0 if self.D is None else point.dy @ self.D)
        return {name: value for name, value in found.items() if name == "x" or self.params.get(name) is not None}

    @functools.cached_property
    def amplification(self) -> float | None:
        r"""A bound on ``||(I - J W')^-1||`` for every J in [0, 1], or None where none is proven.

        ``1 + ||W||/m`` [NEW-adjoint-norms], ``1/(1 - gamma)`` [NEW-cert-F1], or ``||(I - |W|)^-1||`` of the class of
        Perron and Frobenius [GREEDY-Thm1].
        """
        if self.monotone:
            return float(1 + (1 + self.W.lipschitz()) / self.W.m)
        W = self.W.matrix
        gamma = float(np.linalg.norm(W, 2)) / (1 + self.activation.strong)
        perron = float(np.max(np.abs(np.linalg.eigvals(np.abs(W))), initial=0.0))
        known: list[float] = [1 / (1 - gamma)] if gamma < 1 else []
        known += [float(np.linalg.norm(np.linalg.inv(np.eye(len(W)) - np.abs(W)), 2))] if perron < 1 - 1e-9 else []
        return min(known) if known else None

    def solve(self, x: np.ndarray, near: np.ndarray | None = None) -> Solved:
        """The equilibrium, as exactly as float64 allows; where there may be several, one near a given state."""
        if self.monotone:
            return self._by_splitting(x)
        return _by_newton(self, x, np.zeros_like(self.inject(x)) if near is None else near)

    def _by_splitting(self, x: np.ndarray) -> Solved:
        injection = self.inject(x)
        tol = 1e-13 * (1 + float(np.max(norm(injection), initial=0.0))) / min(1.0, float(self.W.m))
        try:
            solution = mon.equilibrium(self.W, injection, self.activation, tol=tol, max_iter=5000)
        except ConvergenceError as error:  # its floor: the bound says how far that is
            solution = error.solution
        return Solved(np.ascontiguousarray(solution.z), np.asarray(solution.bound), True)


# ------------------------------------------------------------------------------------------------
# z = T(z, x), T known by its products


@dataclasses.dataclass(frozen=True, eq=False)
class OwnMap:
    """``z = T(z, x)`` with the T that the caller gave, see `fixed_point.maps`; a state starts as `start`."""

    T: Any
    start: Callable[[np.ndarray], np.ndarray]
    params: Blocks
    input_shape: tuple[int, ...] | None = None
    kind: str = "generic"
    monotone: bool = False
    hidden: bool = False

    def output(self, z: np.ndarray, x: np.ndarray) -> np.ndarray:
        """z."""
        return z

    def cotangent(self, dy: np.ndarray) -> np.ndarray:
        """dy."""
        return dy

    def output_shape(self) -> None:
        """As T makes it."""
        return None

    def step(self, z: np.ndarray, x: np.ndarray) -> np.ndarray:
        """T(z, x)."""
        return np.asarray(self.T(z, x), dtype=np.float64)

    def point(self, z: np.ndarray, x: np.ndarray, dy: np.ndarray) -> Point:
        """The map at a state."""
        return Point(self, z, x, dy, dy, z, np.ones_like(z), linearise(self.T, z, x))

    def weight_blocks(self, point: Point, z: np.ndarray, dpre: np.ndarray) -> Blocks:
        """Gradients by the parameters of T, and by x where T offers it."""
        return flat(self.T.vjp_params(z, point.x, dpre))

    def state_blocks(self, point: Point, z: np.ndarray, dpre: np.ndarray) -> Blocks:
        """Not known of a T that only has products; see the judgement of such."""
        return {}

    def injection_blocks(self, point: Point, x: np.ndarray, dpre: np.ndarray) -> Blocks:
        """None: T says all in one call."""
        return {}

    @property
    def amplification(self) -> float | None:
        """1/(1 - gamma) where gamma is known."""
        gamma = contraction(self.T)
        return None if gamma is None else 1 / (1 - gamma)

    def solve(self, x: np.ndarray, near: np.ndarray | None = None) -> Solved:
        """The fixed point, by Picard's and then Newton's iteration from `start`, or from a given state."""
        return _by_newton(self, x, self.start(x) if near is None else near)


def _by_newton(equation: Any, x: np.ndarray, start: np.ndarray) -> Solved:
    # Picard's iteration, plain and damped, as long as it gains; then Newton steps z - (I - K)^-1 (z - T(z))
    z = np.asarray(start, dtype=np.float64)
    for damping in (1.0, 0.3):
        z = _picard(equation, x, z, damping)
    for _ in range(NEWTON):
        change = equation.step(z, x) - z
        following = _shortened(equation, x, z, _newton_step(equation, z, x, change), _length(change))
        if following is None:
            break
        z = following
    return _estimated(equation, z, x)


def _picard(equation: Any, x: np.ndarray, z: np.ndarray, damping: float) -> np.ndarray:
    best, shortest, waited = z, math.inf, 0
    while waited < PATIENCE:
        change = equation.step(z, x) - z
        waited += 1
        if _length(change) < 0.999 * shortest:
            best, shortest, waited = z, _length(change), 0
        z = z + damping * change
    return best


def _length(change: np.ndarray) -> float:
    length = float(np.max(norm(change), initial=0.0))
    return length if math.isfinite(length) else math.inf


def _shortened(equation: Any, x: np.ndarray, z: np.ndarray, step: np.ndarray, length: float) -> np.ndarray | None:
    # the first of z + step, z + step/2, ... with a smaller residual; None where there is none
    for halvings in range(12):
        trial = z + step / 2**halvings
        if _length(equation.step(trial, x) - trial) < length:
            return np.asarray(trial)
    return None


def _newton_step(equation: Any, z: np.ndarray, x: np.ndarray, change: np.ndarray) -> np.ndarray:
    point = equation.point(z, x, equation.output(z, x))
    moved = systems.solve(point.jacobian, change) if point.forward_products else change
    return moved if np.all(np.isfinite(moved)) else change


def _estimated(equation: Any, z: np.ndarray, x: np.ndarray) -> Solved:
    point = equation.point(z, x, equation.output(z, x))
    hidden = 4 * eps(z) * math.sqrt(math.prod(z.shape[1:])) * (norm(z) + norm(point.pre) + 1e-300)
    factor = equation.amplification
    certified = factor is not None
    if factor is None:
        factor = 2 * systems.inverse_norm(point.transposed, z)
    return Solved(z, factor * (norm(equation.step(z, x) - z) + hidden), certified)


# ------------------------------------------------------------------------------------------------
# An equation at a state


@dataclasses.dataclass(frozen=True, eq=False)
class Point:
    """An equation at a state: everything that a gradient there is made of."""

    equation: Any
    z: np.ndarray
    x: np.ndarray
    dy: np.ndarray
    dz: np.ndarray
    pre: np.ndarray
    jac: np.ndarray
    W: Any

    @property
    def forward_products(self) -> bool:
        """Whether K v can be had, not only K' g."""
        return isinstance(self.equation, Layer) or hasattr(self.equation.T, "jvp_state")

    def jacobian(self, v: np.ndarray) -> np.ndarray:
        """J W v."""
        return np.asarray(self.jac * self.W.matvec(v))

    def transposed(self, u: np.ndarray) -> np.ndarray:
        """J W' u."""
        return np.asarray(self.jac * self.W.rmatvec(u))

    @functools.cached_property
    def dpre(self) -> np.ndarray:
        """The gradient at the pre-activation: ``dpre = J (dz + W' dpre)``."""
        return systems.solve(self.transposed, self.jac * self.dz)

    @functools.cached_property
    def adjoint(self) -> np.ndarray:
        """``q = dz + W' dpre``, the gradient at the state."""
        return np.asarray(self.dz + self.W.rmatvec(self.dpre))

    def blocks(self, dpre: np.ndarray) -> Blocks:
        """The gradient by every parameter and by x that a dpre gives."""
        weights = self.equation.weight_blocks(self, self.z, dpre)
        return {**weights, **self.equation.injection_blocks(self, self.x, dpre)}

    def part(self, samples: slice) -> Point:
        """The same for some samples."""
        return self.equation.point(self.z[samples], self.x[samples], self.dy[samples])  # type: ignore[no-any-return]


# ------------------------------------------------------------------------------------------------
# From the data of a target


def equation(kind: str, params: Mapping[str, np.ndarray], activation: Any, settings: Mapping[str, Any]) -> Any:
    """The equation that a target of this kind claims to solve, in float64."""
    if kind not in KINDS:
        raise HypothesisError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}.")
    wide = {name: np.asarray(value, dtype=np.float64) for name, value in params.items()}
    try:
        return _MAKERS[kind](kind, wide, activation, dict(settings))
    except KeyError as missing:
        raise HypothesisError(f"A target of kind {kind} needs {missing}; it has {', '.join(params)}.") from missing


def _monotone(kind: str, params: Blocks, activation: Any, settings: dict[str, Any]) -> Layer:
    own = {name: params[name] for name in params if name.partition(".")[0] in OPERATOR_PARAMETERS}
    take = {"mon-dense": (), "mon-conv": ("size",), "mon-multitier": ("sizes",)}[kind]
    further = {name: settings[name] for name in take} | {k: settings[k] for k in ("stride",) if k in settings}
    make: Any = {"mon-dense": MonotoneDense, "mon-conv": MonotoneConv, "mon-multitier": MonotoneMultiTier}[kind]
    W = make(**nested(own), m=settings["m"], **further)
    return Layer(kind, W, params.get("U"), params.get("b"), activation, _ends(params.get("U"), settings))


def _ends(U: Any, settings: Mapping[str, Any]) -> Any:
    if U is None:
        return Direct()
    if U.ndim == 2:
        return Rows()
    if U.ndim != 4 or U.shape[2:] != (3, 3):
        raise ShapeError(f"U must be a matrix (n, d) or kernels (n, c, 3, 3); got shape {U.shape}. Pass U x as x.")
    return Images(tuple(settings["image"]), settings.get("border", 0))


def _fixed_point(kind: str, params: Blocks, activation: Any, settings: dict[str, Any]) -> Layer:
    W, U = PlainWeight(params["W"], "W"), params.get("U")
    if U is not None and U.ndim != 2:
        raise ShapeError(f"U of a fixed-point layer must be a matrix (n, d); got shape {U.shape}. Pass U x as x.")
    return Layer(kind, W, U, params.get("b"), activation, Direct() if U is None else Rows())


def _implicit(kind: str, params: Blocks, activation: Any, settings: dict[str, Any]) -> Layer:
    W, names = PlainWeight(params["A"], "A"), ("B", "b")
    return Layer(kind, W, params["B"], params.get("b"), activation, Rows(), names, params.get("C"), params.get("D"))


def _generic(kind: str, params: Blocks, activation: Any, settings: dict[str, Any]) -> OwnMap:
    start = settings.get("start", lambda x: np.zeros(x.shape))
    return OwnMap(settings["T"], start, params, settings.get("input_shape"))


_MAKERS: dict[str, Callable[..., Any]] = {
    "mon-dense": _monotone,
    "mon-conv": _monotone,
    "mon-multitier": _monotone,
    "fixed-point": _fixed_point,
    "implicit": _implicit,
    "generic": _generic,
}
