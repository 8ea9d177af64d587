r"""Calls of the public surface with everything that people pass: each ends in a right answer or in one of our errors.

Hypothesis draws the arguments: good ones, and among them wrong shapes and dtypes, other memory orders, NaN, infinities,
entries near both ends of the range of the dtype, empty arrays, and things that are no arrays. A call may return, and
then a law must hold of what it returned, or raise ShapeError, HypothesisError, ConvergenceError or TypeError with a
message. Anything else is a fault: another exception, a warning, a NaN, a call without end.

    python -m implicitref.validation.fuzz --calls 20000 --seed 0
"""

from __future__ import annotations

import argparse
import collections
import functools
import linecache
import math
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from .. import activations, fixed_point, layers, losses, mon, networks, optimisers, sequential, splitting, well_posed
from ..arrays import is_array
from ..errors import ConvergenceError, HypothesisError, ShapeError
from ..operators import MonotoneConv, MonotoneDense, MonotoneMultiTier, strided_convolution, zero_padded
from ..splitting import rates
from ..training import FixedPointRecipe, ImplicitRecipe, Recipe, schedules

__all__ = ["TARGETS", "Counts", "Draw", "Fault", "run"]

REFUSED = (ShapeError, HypothesisError, ConvergenceError, TypeError)
SECONDS = 20  # a call on a handful of numbers that takes longer has no end
NAMES = ("relu", "tanh", "sigmoid", "softplus", "arctan", "hardtanh", "leaky_relu", "elu", "soft_threshold")
METHODS = ("peaceman-rachford", "forward-backward", "douglas-rachford", "picard")
NO_ARRAYS: tuple[Any, ...] = (None, "text", 3, 2.5, [[1.0]], (1.0,), {}, object(), True, b"bytes", range(3), slice(2))
NO_NUMBERS: tuple[Any, ...] = (
    None, "1", "x", 1j, [], [1.0], math.nan, math.inf, -math.inf, -1.0, 0, 0.0, -0.0, True, np.ones(2), np.ones((1, 1)),
    np.float32(0.5), np.asarray(0.5), 10**400, 5e-324, 1e-300, 1e300, np.array("a"), object(), b"1",
)  # fmt: skip
NO_COUNTS: tuple[Any, ...] = (0, -1, 1.0, 2.5, "3", None, True, np.asarray(2), np.asarray(1.5), np.ones(2), [2], 1j)


class Fault(AssertionError):
    """A call that ended in neither a right answer nor one of the errors."""


class Draw:
    """Arguments for one call: each is what it should be most of the time, and is remembered for the report."""

    def __init__(self, draw: Callable[[Any], Any]) -> None:
        from hypothesis import strategies as st

        self._draw, self._st, self.drawn = draw, st, list[str]()

    def choice(self, *values: Any) -> Any:
        """One of the values."""
        return self._kept(values[self._draw(self._st.integers(0, len(values) - 1))])

    def _kept(self, value: Any) -> Any:
        self.drawn.append(f"{type(value).__name__}{value.shape}" if isinstance(value, np.ndarray) else repr(value))
        return value

    def _often(self) -> bool:
        return bool(self._draw(self._st.integers(0, 23)) < 23)

    def number(self, *values: float) -> Any:
        """One of the values, or what is no such number."""
        return self.choice(*values) if self._often() else self.choice(*NO_NUMBERS)

    def count(self, *values: int) -> Any:
        """One of the values, or what is no such count."""
        return self.choice(*values) if self._often() else self.choice(*NO_COUNTS)

    def name(self, *values: str) -> Any:
        """One of the values, or what is no such name."""
        return self.choice(*values) if self._often() else self.choice("wings", "", None, 3, np.ones(2), [])

    def activation(self) -> Any:
        """One of the package, or what is none."""
        made = {"leaky_relu": 0.1, "elu": 0.7, "soft_threshold": 0.5}
        name = self.choice(*NAMES)
        found = activations.get(name, *([made[name]] if name in made else []))
        return found if self._often() else self.choice(None, "relu", abs, np.tanh, 3)

    def array(self, *shape: int, sizes: tuple[float, ...] = (1.0,), like: Any = None, wild: bool = True) -> Any:
        """An array of that shape, entries of one of the sizes; or another, or none.

        `wild` allows NaN, infinities and the ends of the range. Without it stand the leaves that a step of an iteration
        calls, which check shape and dtype only, so that what is not finite goes through them as IEEE has it.
        """
        if not self._often():
            return self.choice(*NO_ARRAYS)
        rng = np.random.default_rng(self._draw(self._st.integers(0, 2**32 - 1)))
        x = rng.normal(size=shape if self._often() else self._other(shape)) * self.choice(*sizes)
        if wild and not self._often():
            x = np.asarray(x * self.choice(1e-320, 1e-160, 1e-30, 1e15, 1e150, 1e300))
        if wild and x.size and not self._often():
            x.ravel()[rng.integers(x.size)] = self.choice(math.nan, math.inf, -math.inf, 0.0, 1e308, 5e-324)
        if x.size and not self._often():
            x = np.zeros_like(x)
        return self._kept(self._laid_out(x if self._often() else self._other_dtype(x)))

    def labels(self, batch: int, classes: int) -> Any:
        """Integers in range, or not."""
        rng = np.random.default_rng(self._draw(self._st.integers(0, 2**32 - 1)))
        good = rng.integers(classes, size=batch)
        return (
            self._kept(good)
            if self._often()
            else self.choice(good - 1, good + 1, good.astype(float), good[:, None], good[:-1], None, [0] * batch)
        )

    def _other(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(
            self.choice(shape[1:], (1, *shape), (0, *shape[1:]), (*shape[:-1], 0), (*shape[:-1], 7), shape[::-1])
        )

    def _other_dtype(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return x.astype(self.choice("f4", "f4", "f4", "f4", ">f8", "f2", "c16", "i8", "?", "O", "U3", "M8[s]", "g"))

    def _laid_out(self, x: np.ndarray) -> np.ndarray:
        kind = self.choice("C", "C", "C", "F", "reversed", "gaps", "read-only", "masked", "subclass", "broadcast")
        if kind == "F":
            return np.asfortranarray(x)
        if not x.ndim:
            return np.asarray(x)
        if kind == "reversed":
            return x[..., ::-1].copy()[..., ::-1]
        if kind == "gaps":
            wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
            wide[..., ::2] = x
            return wide[..., ::2]
        if kind == "read-only":
            x.flags.writeable = False
        if kind == "masked":
            return x if self._often() else np.ma.masked_array(x, mask=np.zeros(x.shape, bool))
        if kind == "subclass":
            return x.view(_Tagged)
        return np.broadcast_to(x[:1], x.shape) if kind == "broadcast" and x.shape[0] else x


class _Tagged(np.ndarray):
    """A subclass with no ways of its own."""


# ------------------------------------------------------------------------------------------------
# What must hold of an answer


def sound(value: Any) -> bool:
    """No NaN among the numbers of a result."""
    if isinstance(value, float):
        return not math.isnan(value)
    if is_array(value):
        return np.asarray(value).dtype.kind not in "fc" or not bool(np.isnan(value).any())
    if isinstance(value, dict):
        return all(map(sound, value.values()))
    return all(map(sound, value)) if isinstance(value, list | tuple) else True


def _close(x: Any, y: Any, scale: float = 1.0, tol: float = 1e-3) -> bool:
    x, y = (np.asarray(v, np.float64) for v in (x, y))
    with np.errstate(all="ignore"):
        off = np.abs(x - y) > tol * (scale + np.abs(y))
    return x.shape == y.shape and not bool((off & np.isfinite(x) & np.isfinite(y)).any())


def _solves(W: Any, injection: Any, activation: Any, solution: Any) -> bool:
    """``z = sigma(W z + b)`` up to what the bound allows."""
    if not injection.shape[0]:
        return True
    z, b = (np.asarray(a, np.float64).reshape(len(injection), -1) for a in (solution.z, injection))
    dense, bound = np.asarray(W.to_dense(), np.float64), np.asarray(solution.bound, np.float64)
    with np.errstate(all="ignore"):
        pre = z @ dense.T + b
        off = np.linalg.norm(z - activation(pre.reshape(injection.shape)).reshape(z.shape), axis=1)
        size = np.linalg.norm(dense, 2) * np.linalg.norm(z, axis=1) + np.linalg.norm(b, axis=1)
        allowed = (1 + np.linalg.norm(dense, 2)) * bound + 1e-6 * size + 1e-300
    return bool(((off <= allowed) | ~np.isfinite(size)).all()) and bool((bound > 0).all() | (size == 0).any())


TARGETS: dict[str, Callable[[Draw], Any]] = {}


def target(function: Callable[[Draw], Any]) -> Callable[[Draw], Any]:
    """Register a call: a function that draws arguments, calls, and tells whether the law holds of the result."""
    TARGETS[function.__name__.strip("_")] = function
    return function


# ------------------------------------------------------------------------------------------------
# Activations and losses


@target
def _activation(d: Draw) -> bool:
    f, x = d.activation(), d.array(2, 3)
    if not isinstance(f, activations.Activation):
        return well_posed.is_cone(f) in (True, False)
    y, slope = f(x), f.derivative(x)
    return not np.isfinite(x).all() or (sound(y) and bool(np.all((slope >= 0) & (slope <= 1))))


@target
def _prox(d: Draw) -> bool:
    f, x, alpha = d.activation(), d.array(2, 3), d.number(1e-8, 0.1, 1.0, 7.0, 1e8)
    if not isinstance(f, activations.Activation):
        raise TypeError("f must be an activation")
    z, slope = f.prox(x, alpha), f.derivative(x, alpha)
    return sound(z) and bool(np.all((slope >= 0) & (slope <= 1)))


@target
def _value(d: Draw) -> bool:
    f, z = d.activation(), d.array(2, 3)
    if not isinstance(f, activations.Activation):
        raise TypeError("f must be an activation")
    return sound(f.value(z))


@target
def _get(d: Draw) -> bool:
    name, parameters = d.name(*NAMES, "gelu"), [d.number(0.1, 0.5)] * d.choice(0, 1, 1, 2)
    return isinstance(activations.get(name, *parameters), activations.Activation)


@target
def _zero_border(d: Draw) -> bool:
    f = activations.zero_border(d.activation(), d.count(0, 1, 2), d.choice(None, [(2, 4, 4)], [(2, 3)], 3, [()]))
    return sound(f(d.array(2, 2, 4, 4)))


@target
def _squared_error(d: Draw) -> bool:
    p, t = d.array(3, 2, sizes=(1.0, 1e60)), d.array(3, 2)
    value, gradient = losses.squared_error(p, t)
    return value >= 0 and gradient.shape == p.shape


@target
def _cross_entropy(d: Draw) -> bool:
    value, gradient = losses.cross_entropy(d.array(3, 4), d.labels(3, 4))
    return value >= 0 and sound(gradient) and _close(gradient.sum(axis=1), np.zeros(len(gradient)))


@target
def _count_correct(d: Draw) -> bool:
    logits = d.array(3, 4)
    return bool(0 <= losses.count_correct(logits, d.labels(3, 4)) <= 3)


# ------------------------------------------------------------------------------------------------
# Operators


def _dense(d: Draw, n: int = 3, wild: bool = False) -> MonotoneDense:
    sizes = (0.3, 1.0, 3.0)
    A, B = d.array(n, n, sizes=sizes, wild=wild), d.array(n, n, sizes=sizes, wild=wild)
    scales = {name: d.number(0.0, 0.5, 2.0) for name in "gh"} if d.choice(False, False, True) else {}
    return MonotoneDense(A, B, d.number(0.1, 1.0, 3.0), **scales)


def _conv(d: Draw) -> MonotoneConv:
    A, B = d.array(2, 2, 3, 3, sizes=(0.2,), wild=False), d.array(2, 2, 3, 3, sizes=(0.2,), wild=False)
    size = d.choice((4, 3), (4, 3), (1, 1), (2, 5), (0, 3), (4,), 4, (4.0, 3.0), None, "ab")
    return MonotoneConv(A, B, d.number(0.5, 1.0), size)


def _multitier(d: Draw) -> MonotoneMultiTier:
    kernels = [[d.array(c, c, 3, 3, sizes=(0.2,), wild=False) for c in (1, 2)] for _ in "AB"]
    S = [d.array(2, 1, 3, 3, sizes=(0.2,), wild=False)] * d.choice(1, 1, 1, 1, 0, 2)
    sizes = d.choice([(4, 4), (2, 2)], [(4, 4), (2, 2)], [(4, 4), (3, 2)], [(3, 3), (2, 2)], [(4, 4)], 4, [4, 2], [])
    return MonotoneMultiTier(*kernels, S, d.number(0.5, 1.0), sizes, d.choice(2, 2, 2, 1, (2, 2), 0, "2", None))


OPERATORS = {"dense": _dense, "conv": _conv, "multitier": _multitier}


def _operator(d: Draw) -> Any:
    return OPERATORS[d.choice("dense", "dense", "conv", "multitier")](d)


@target
def _strongly_monotone(d: Draw) -> bool:
    W = _dense(d, wild=True) if d.choice(True, False) else _operator(d)
    dense = np.asarray(W.to_dense(), np.float64)
    if not np.isfinite(dense).all() or np.abs(dense).max() > 1e100:
        return True
    smallest = np.linalg.eigvalsh(np.eye(len(dense)) - (dense + dense.T) / 2)[0]
    return bool(smallest >= W.m - 1e-5 * (1 + np.abs(dense).max()))


@target
def _from_weight(d: Draw) -> bool:
    W, m = d.array(3, 3, sizes=(0.1, 0.3)), d.number(0.1, 0.5, 1.0)
    operator = MonotoneDense.from_weight(W, m)
    return _close(operator.to_dense(), W, float(np.abs(np.asarray(W, np.float64)).max(initial=1)))


@target
def _products(d: Draw) -> bool:
    W = _operator(d)
    z = d.array(2, *W.state_shape, sizes=(1.0, 1e30), wild=False)
    y = W.matvec(z)
    back = W.rmatvec(z)
    if not len(z):
        return y.shape == z.shape
    with np.errstate(all="ignore"):
        one, other = np.vdot(np.asarray(y, "f8"), z), np.vdot(np.asarray(back, "f8"), z)
    return y.shape == z.shape and _close(one, other, abs(one) + float(np.abs(np.vdot(z, z))))


@target
def _resolvent(d: Draw) -> bool:
    W, alpha = _operator(d), d.number(1e-8, 0.1, 1.0, 1e8)
    V = W.resolvent(alpha)
    z = np.random.default_rng(0).normal(size=(2, *W.state_shape))  # a factor of the iteration, which checks nothing
    u = V.matvec(z)
    return sound(u) and _close(u + float(alpha) * (u - W.matvec(u)), z, 1 + float(alpha))


@target
def _vjp(d: Draw) -> bool:
    W = _operator(d)
    z, dy = d.array(2, *W.state_shape, wild=False), d.array(2, *W.state_shape, wild=False)
    grads = W.vjp(z, dy)
    return set(grads) == set(W.params) and sound(grads)


@target
def _norms(d: Draw) -> bool:
    W = _operator(d)
    return W.lipschitz() >= W.m - 1e-5 and W.replace(m=d.number(0.5, 1.0)).lipschitz() > 0


@target
def _strided(d: Draw) -> bool:
    S = strided_convolution(d.array(2, 1, 3, 3, wild=False), d.choice((4, 4), (4, 4), (3, 4), 4), d.choice(2, 2, 1, 0))
    return sound(S.matvec(np.ones((2, 1, *S.size))))


@target
def _padded(d: Draw) -> bool:
    return zero_padded(_conv(d), d.activation(), d.choice(None, 1, 0, 2, "1")).width >= 1


# ------------------------------------------------------------------------------------------------
# Solves


def _options(d: Draw) -> dict[str, Any]:
    options = {"method": d.name(*METHODS), "tol": d.number(1e-6, 1e-3, 1e-1), "max_iter": d.count(1, 50, 500)}
    options["alpha"] = d.choice(None, None, None, 0.5, 1.0, 1e-6, 1e6) if d.choice(True, True, False) else d.number(0.5)
    options["stop"] = d.name("certificate", "certificate", "relative-change")
    return options


@target
def _equilibrium(d: Draw) -> bool:
    W, f = _operator(d), d.activation()
    b = d.array(2, *W.state_shape)
    start = d.choice(None, None, None, 1) and d.array(2, *W.state_shape)
    solution = mon.equilibrium(W, b, f, start=start, keep=d.choice(False, True), **_options(d))
    residuals = solution.residuals
    return sound(solution.z) and sound(residuals) and sound(solution.bound) and _solves(W, b, f, solution)


@target
def _failed_solution(d: Draw) -> bool:
    W, f = _dense(d, wild=True), d.activation()
    try:
        mon.equilibrium(W, d.array(2, 3), f, tol=1e-9, max_iter=d.count(1, 3), alpha=d.choice(None, 1e-9, 1e9))
    except ConvergenceError as error:
        return sound(error.solution.bound) and not bool(error.solution.converged.all()) and len(str(error)) > 40
    return True


@target
def _equilibrium_vjp(d: Draw) -> bool:
    W, f = _operator(d), d.activation()
    b, z, dz = (d.array(2, *W.state_shape) for _ in range(3))
    grads, solution = mon.equilibrium_vjp(W, b, f, z, dz, **_options(d))
    return set(grads) >= {"injection", *W.params} and sound(grads["injection"]) and sound(solution.bound)


@target
def _adjoint(d: Draw) -> bool:
    W = _operator(d)
    jac, dz = d.array(2, *W.state_shape, sizes=(0.0,), wild=False), d.array(2, *W.state_shape)
    jac = np.clip(jac + 0.5, 0, 1) if isinstance(jac, np.ndarray) and jac.dtype.kind == "f" else jac
    return sound(mon.adjoint(W, jac, dz, **_options(d)).z)


@target
def _inclusion(d: Draw) -> bool:
    W = _dense(d)
    inclusion = mon.forward_inclusion(W, d.array(2, 3), d.activation())
    step = d.choice(splitting.forward_backward, splitting.peaceman_rachford, splitting.douglas_rachford)
    state = next(step(inclusion, d.number(0.1, 1.0), d.array(2, 3)))
    return state.z.shape[1:] == (3,)


@target
def _rates(d: Draw) -> bool:
    W, method = _operator(d), d.name(*METHODS)
    return rates.best_alpha(W, method) > 0


@target
def _perron(d: Draw) -> bool:
    A = d.array(4, 4)
    low, high = well_posed.perron_interval(A)
    return 0 <= low <= well_posed.perron(A) <= high * (1 + 1e-6) or low == high == math.inf


@target
def _project(d: Draw) -> bool:
    A, radius = d.array(3, 4), d.number(0.1, 1.0, 5.0)
    return bool(well_posed.norm_inf(well_posed.project(A, radius)) <= float(radius) * (1 + 1e-5) + 1e-300)


@target
def _well_posed(d: Draw) -> bool:
    A = d.array(3, 3)
    return well_posed.relu_well_posed(A) in (True, False) and well_posed.is_p_matrix(A) in (True, False)


@target
def _well_posed_solve(d: Draw) -> bool:
    A, b, f = d.array(3, 3, sizes=(0.1, 0.2)), d.array(2, 3), d.activation()
    start = d.choice(None, None, 1) and d.array(2, 3)
    solution = well_posed.solve(A, b, f, tol=d.number(1e-6, 1e-2), max_iter=d.count(1, 200), start=start)
    with np.errstate(all="ignore"):
        off = np.abs(solution.z - f(np.asarray(solution.z @ np.asarray(A).T + b)))
        allowed = solution.bound + np.asarray(solution.bound) @ np.abs(A).T + 1e-5 * (1 + np.abs(b).max(initial=0))
    return sound(solution.z) and bool((off <= allowed).all())


@target
def _componentwise_bound(d: Draw) -> bool:
    found = well_posed.bound(d.array(3, 3, sizes=(0.1, 0.2)), d.array(2, 3), d.array(2, 3), d.activation())
    return sound(found) and bool((found >= 0).all())


# ------------------------------------------------------------------------------------------------
# Fixed points


def _map(d: Draw) -> Any:
    W, U, b = d.array(3, 3, sizes=(0.1, 0.2), wild=False), d.array(3, 2, wild=False), d.array(3, wild=False)
    return fixed_point.OneLayer(W, U, b, d.activation())


@target
def _iterate(d: Draw) -> bool:
    T, x, z = _map(d), d.array(2, 2), d.array(2, 3)
    acceleration, gamma = (
        d.name("anderson") if d.choice(True, False) else None,
        d.choice(None, None, 0.9, 0.0, 1.0, "x"),
    )
    tol, max_iter = d.number(1e-6, 1e-2), d.count(1, 100)
    solution = fixed_point.iterate(T, x, z, tol=tol, max_iter=max_iter, acceleration=acceleration, gamma=gamma)
    return sound(solution.z) and bool((solution.residuals[-1] <= float(tol)).all())


@target
def _fixed_point_gradients(d: Draw) -> bool:
    T, x, z, g = _map(d), d.array(2, 2), d.array(2, 3), d.array(2, 3)
    rule = d.name("jfb", "neumann:2", "implicit", "implicit:cgnr", "implicit:dense", "neumann:-1", "implicit:x")
    return sound(fixed_point.gradients(T, z, x, g, rule))


@target
def _rule(d: Draw) -> bool:
    solver, tol, max_iter = d.name("picard", "cgnr", "dense"), d.number(1e-6), d.count(10)
    rule = fixed_point.implicit(solver, tol=tol, max_iter=max_iter, stop=d.name("relative", "absolute"))
    return callable(rule) and callable(fixed_point.neumann(d.count(0, 1, 5)))


@target
def _theory(d: Draw) -> bool:
    from ..fixed_point import theory

    W = d.array(3, 4)
    bound, norm = theory.gram_bound(W), theory.spectral_norm(W)
    return bool(norm <= bound * (1 + 1e-5)) and sound(theory.clipped(W, d.number(0.5, 1.0)))


# ------------------------------------------------------------------------------------------------
# Sequential models


@target
def _block_triangular(d: Draw) -> bool:
    A, B, C = d.array(3, 3), d.array(3, 2), d.array(1, 3)
    sizes = d.choice((1, 2), (1, 2), (3,), (1, 1), [2, 1], 3, (), (1.5, 1.5), None)
    A = np.triu(A, 2) if isinstance(A, np.ndarray) and A.ndim == 2 and A.dtype.kind == "f" else A
    model = sequential.BlockTriangularModel(A, B, C, sizes, d.activation())
    return model.predict(d.array(2, 2, wild=False)).shape[1:] == C.shape[:1]


@target
def _sequential_fit(d: Draw) -> bool:
    x, y = d.array(8, 2, wild=False), d.array(8, 1, wild=False)
    order, blocks = d.count(2, 4), d.count(2)
    state = d.choice(0, 0, 0, None, -1, "0", 1.5, True, 2**70)
    model = sequential.fit(x, y, order, blocks, loss=d.name("squared"), activation=d.activation(), random_state=state)
    return sound(model.params) and sound(model.predict(x))


@target
def _refine(d: Draw) -> bool:
    x, y = d.array(8, 2, wild=False), d.array(8, 1, wild=False)
    model = sequential.fit(np.eye(8, 2), np.ones((8, 1)), 3, 2, solver="alternating", random_state=0)
    options = {"epochs": d.count(1), "batch": d.count(4), "components": d.count(1, 9)}
    numbers = {"learning_rate": d.number(1e-2), "noise": d.number(0.0, 0.3)}
    refined = sequential.refine(model, x, y, loss=d.name("squared"), random_state=0, **options, **numbers)
    return sound(refined.params) and refined.history[-1].loss <= refined.history[-1].before


@target
def _partition(d: Draw) -> bool:
    order, blocks = d.count(2, 5, 11), d.count(2, 3)
    return sum(sequential.partition(order, blocks)) == order


@target
def _self_loops(d: Draw) -> bool:
    A, B = d.array(3, 3, sizes=(0.2,)), d.array(3, 2)
    A = np.triu(A) if isinstance(A, np.ndarray) and A.ndim == 2 and A.dtype.kind == "f" else A
    gamma, lam = sequential.remove_self_loops(A, B)
    A2, B2 = sequential.add_self_loops(gamma, lam, d.number(0.1, 0.5, 1.0))
    return sound((gamma, lam, A2, B2)) or not (np.abs(np.asarray(A)) < 1e100).all()


# ------------------------------------------------------------------------------------------------
# Layers


@target
def _affine(d: Draw) -> bool:
    weight, bias = d.array(3, 2, wild=False), d.choice(None, 1) and d.array(3, wild=False)
    layer, x = layers.Affine(weight, bias), d.array(4, 2, wild=False)
    y, pull, _ = layer.linearize(x)
    return sound(y) and sound(pull(d.array(4, 3, wild=False)))


@target
def _conv2d(d: Draw) -> bool:
    stride, padding = d.choice(1, 1, 2, (1, 2), 0, "1", None), d.choice(0, 1, (1, 0), -1, 1.5)
    layer = layers.Conv2d(
        d.array(2, 1, 3, 3, wild=False), None, stride, padding, d.name("zeros", "zeros", "circular", "reflect")
    )
    y, pull, _ = layer.linearize(d.array(2, 1, 4, 5, wild=False))
    return sound(y) and sound(pull(np.ones_like(y)))


@target
def _batch_norm(d: Draw) -> bool:
    mean, var = d.array(3, wild=False), d.array(3, wild=False)
    var = np.abs(var) if isinstance(var, np.ndarray) and var.dtype.kind == "f" and d.choice(True, True, False) else var
    layer = layers.BatchNorm(mean, var, eps=d.number(1e-5, 1e-3), momentum=d.number(0.1, 0.5))
    y, pull, statistics = layer.linearize(d.array(4, 3, wild=False), training=d.choice(False, True))
    return sound(y) and sound(statistics) and sound(pull(np.ones_like(y)))


@target
def _pool(d: Draw) -> bool:
    kind, x = d.choice(layers.MaxPool, layers.AveragePool), d.array(2, 1, 4, 5)
    y, pull, _ = kind(d.choice(2, 2, 3, (2, 1), 0, 9, "2", None), d.choice(None, 1, 2, 0)).linearize(x)
    return sound(pull(np.ones_like(y)))


@target
def _other_layers(d: Draw) -> bool:
    layer = d.choice(
        lambda: layers.Scale(d.number(0.5)),
        lambda: layers.Pad(d.count(1, 2), d.number(0.5)),
        lambda: layers.Dropout(d.number(0.5), d.choice(None, 1) and d.array(2, 1, 4, 4, sizes=(0.0,))),
        lambda: layers.Flatten(),
        lambda: layers.GlobalAveragePool(),
        lambda: layers.Shortcut(d.choice(1, 2, 0), d.choice((0, 0), (1, 2), (-1, 0), 3)),
        lambda: layers.Sequential({"a": layers.Scale(2.0), d.choice("b", "", 3): d.choice(layers.Flatten(), 5)}),
    )()
    y, pull, _ = layer.linearize(d.array(2, 1, 4, 4, wild=False), training=d.choice(False, True))
    return sound(y) and sound(pull(np.ones_like(y)))


# ------------------------------------------------------------------------------------------------
# Networks and training


@target
def _mon_fc(d: Draw) -> bool:
    rng, m = np.random.default_rng(0), d.number(0.5, 1.0)
    network = networks.mon_fc(rng, d.count(4), d.count(3), d.count(2), m, d.activation())
    x, labels = d.array(3, 4), d.labels(3, 2)
    found = network.gradients(x, labels, tol=d.number(1e-3), max_iter=d.count(300))
    return sound(found.loss) and sound(found.grads) and found.loss >= 0


@target
def _accumulate(d: Draw) -> bool:
    network = networks.mon_fc(np.random.default_rng(0), 4, 3, 2)
    found = network.accumulate(
        d.array(5, 4), d.labels(5, 2), d.count(1, 2, 9), workers=d.count(1), tol=1e-2, certify=d.choice(True, False)
    )
    return sound(found.grads) and found.loss >= 0


@target
def _mon_images(d: Draw) -> bool:
    image = d.choice((1, 4, 4), (1, 4, 4), (1, 4), (0, 4, 4), 4, (1, 5, 4), None, ("1", 4, 4))
    rng, channels = np.random.default_rng(0), d.choice(2, 2, 0, "2", None)
    network = networks.mon_conv(rng, image, channels, d.count(2))
    return sound(network.logits(d.array(2, 1, 4, 4), tol=1e-1, max_iter=2000))


@target
def _multitier_images(d: Draw) -> bool:
    image = d.choice((1, 4, 4), (1, 4, 4), (1, 5, 4), None)
    network = networks.mon_multitier(np.random.default_rng(0), image, d.choice((1, 2), (1, 2), (1,), (), 3, (1, 0)))
    return sound(network.logits(d.array(2, 1, 4, 4), tol=1e-1, max_iter=2000))


@target
def _jfb(d: Draw) -> bool:
    image = d.choice((1, 6, 6), (1, 6, 6), (1, 2, 2), (1, 6), None, (1.0, 6, 6))
    network = networks.jfb_mnist(np.random.default_rng(0), image, d.count(3), blocks=d.count(1), gamma=d.number(0.5))
    grads, solution = network.gradients(d.array(2, 1, 6, 6), d.labels(2, 3), d.name("jfb", "neumann:1"), tol=1e-1)
    return sound(grads) and sound(solution.z)


@target
def _jfb_training(d: Draw) -> bool:
    network = networks.jfb_mnist(np.random.default_rng(0), (1, 6, 6), 3, blocks=1)
    found = network.training_pass(
        d.array(2, 1, 6, 6), d.labels(2, 3), d.name("jfb", "neumann:1"), tol=d.number(0.5), max_iter=d.count(5)
    )
    return sound(found.loss) and sound(found.grads)


@target
def _implicit(d: Draw) -> bool:
    A, B, C = d.array(3, 3, sizes=(0.1, 0.2)), d.array(3, 2), d.array(1, 3)
    model = networks.ImplicitModel(A, B, C, None, d.activation(), d.number(0.5, 0.95))
    x, y, method = d.array(2, 2), d.array(2, 1), d.name("picard", *METHODS)
    found = model.gradients(x, y, d.name("squared"), method=method, tol=d.number(1e-3), max_iter=d.count(300))
    return found.loss >= 0 and sound(found.forward.z)


@target
def _recipes(d: Draw) -> bool:
    kind = d.choice(Recipe, FixedPointRecipe, ImplicitRecipe)
    recipe = kind(
        epochs=d.count(1, 3),
        batch=d.count(4),
        learning_rate=d.number(1e-2),
        schedule=d.name(*schedules.NAMES),
        weight_decay=d.number(0.0, 0.1),
        tol=d.number(1e-2),
    )
    rate = schedules.by_name(recipe.schedule, recipe.learning_rate, recipe.epochs)
    return all(0 <= part(0.5) < math.inf for part in rate)


@target
def _adam(d: Draw) -> bool:
    p, g = {"p": d.array(3, wild=False)}, {d.choice("p", "p", "q"): d.array(3, wild=False)}
    new, state = optimisers.adam_step(p, g, optimisers.adam_init(p), d.number(0.1))
    return set(new) == {"p"} and state.steps == 1


# ------------------------------------------------------------------------------------------------
# The run


class Counts(NamedTuple):
    """How the calls ended, by target, and the faults found, each with its arguments."""

    ends: dict[str, collections.Counter[str]]
    faults: list[str]

    @property
    def total(self) -> collections.Counter[str]:
        """All targets together."""
        return sum(self.ends.values(), collections.Counter())


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise Fault(f"no end after {seconds} s")

    old = signal.signal(signal.SIGPROF, ring)  # seconds of computing, whatever else the machine does
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, old)


def attempt(call: Callable[[Draw], Any], d: Draw) -> str:
    """The name of the end of one call, "returned" or that of our error; Fault for any other."""
    try:
        with _limited(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("error")
            holds = call(d)
    except REFUSED as error:
        if not _said_by_us(error):
            raise Fault(f"{type(error).__name__} of somebody else: {error} for {', '.join(d.drawn)}") from error
        return type(error).__name__
    except Fault as error:
        raise Fault(f"{error} for {', '.join(d.drawn)}") from error
    except Exception as error:
        raise Fault(f"{type(error).__name__}: {error} for {', '.join(d.drawn)}") from error
    if not holds:
        raise Fault(f"the law fails for {', '.join(d.drawn)}")
    return "returned"


def _said_by_us(error: Exception) -> bool:
    """Whether the line that raised it is a raise, not a call into NumPy that went wrong."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    source = "".join(linecache.getlines(last.filename)[last.lineno - 1 : last.end_lineno]) if last.lineno else ""
    return source.lstrip().startswith("raise") and bool(str(error))


def _fuzz(name: str, calls: int, seed: int, ends: collections.Counter[str]) -> None:
    import hypothesis
    from hypothesis import strategies as st

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=calls,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        phases=[hypothesis.Phase.generate],  # shrinking takes hundreds of calls, and the arguments are few
        suppress_health_check=list(hypothesis.HealthCheck),
        verbosity=hypothesis.Verbosity.quiet,
    )
    @hypothesis.given(st.data())
    def probe(data: Any) -> None:
        ends["calls"] += 1
        ends[attempt(TARGETS[name], Draw(data.draw))] += 1

    probe()


def run(calls: int, seed: int, only: tuple[str, ...] = (), shown: Callable[[str], Any] | None = None) -> Counts:
    """That many calls, shared out among the targets; `shown` gets a line when one is done."""
    chosen = only or tuple(TARGETS)
    found = Counts({name: collections.Counter() for name in chosen}, [])
    for name in chosen:
        try:
            _fuzz(name, max(1, calls // len(chosen)), seed, found.ends[name])
        except Fault as fault:
            found.faults.append(f"{name}: {fault}")
        except Exception as error:  # of Hypothesis itself, such as one about a flaky call
            found.faults.append(f"{name}: {type(error).__name__}: {error}")
        if shown:
            shown(f"{name:22}" + ", ".join(f"{end} {number}" for end, number in sorted(found.ends[name].items())))
    return found


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Call the public surface with everything that people pass.")
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=(), choices=sorted(TARGETS))
    arguments = parser.parse_args()
    shown = functools.partial(print, flush=True)
    found = run(arguments.calls, arguments.seed, tuple(arguments.only), shown)
    print("all", dict(found.total), f"faults {len(found.faults)}")
    for fault in found.faults:
        print("FAULT", fault)
    return bool(found.faults)


if __name__ == "__main__":
    sys.exit(main())
