"""How a target behaves: does it return at all, the same twice, alone as in a batch, for small losses as for large."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from .targets import Target
from .transfer import host

__all__ = ["Complaint", "Finding", "Observation", "Probe", "call", "invariances", "observe"]


TWICE = 3.0  # two answers, each as exact as it must be, may differ by twice that, and a little


class Finding(NamedTuple):
    """Something that is to be said: its name, what was seen, what to change, where a paper says so."""

    name: str
    says: str
    remedy: str
    source: str = ""
    detail: str = ""
    stage: str = "behaviour"
    also: tuple[str, ...] = ()
    legitimate: bool = False


class Complaint(Exception):
    """The target cannot be judged further."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.says)
        self.finding = finding


class Observation(NamedTuple):
    """What a target returned for x and dz, in float64, and the dtype that it was in."""

    y: np.ndarray
    grads: dict[str, np.ndarray]
    dtype: Any


class Probe(NamedTuple):
    """One invariance: what was compared, the largest relative difference, what is allowed."""

    name: str
    difference: float
    allowed: float

    @property
    def holds(self) -> bool:
        """Whether the difference is allowed; false for NaN."""
        return self.difference <= self.allowed


def observe(target: Target, shapes: Mapping[str, tuple[int, ...]], x: np.ndarray, dy: np.ndarray) -> Observation:
    """Forward and backward once, everything checked that can be without knowing the truth; raises Complaint."""
    before = {name: np.array(value) for name, value in target.read().items()}
    mine, cotangent = x.astype(target.dtype), dy.astype(target.dtype)
    y = _array("the state", call("forward", target.forward, mine), dy.shape)
    grads = _gradients(call("backward", target.backward, mine, cotangent), shapes)
    for name, value in target.read().items():
        if not np.array_equal(value, before[name]):
            _complain("parameters-changed", f"the call changed its parameter {name}", "Leave parameters as they are.")
    if not (np.array_equal(mine, x.astype(target.dtype)) and np.array_equal(cotangent, dy.astype(target.dtype))):
        _complain("input-changed", "the call wrote into x or dz", "Copy before writing.")
    return Observation(y.astype(np.float64), {k: g.astype(np.float64) for k, g in grads.items()}, y.dtype)


def call(what: str, function: Callable[..., Any], *arguments: np.ndarray) -> Any:
    """`function` of the arguments; Complaint, with the line, where it raises."""
    try:
        return function(*arguments)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{last.filename}:{last.lineno}"
        raise Complaint(
            Finding("raises", f"{what} raises {type(error).__name__}: {error}", f"Look at {where}.")
        ) from error


def _complain(name: str, says: str, remedy: str) -> None:
    raise Complaint(Finding(name, says, remedy))


def _array(what: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    try:
        found = host(value)
    except Exception as error:
        raise Complaint(Finding("no-array", f"{what} is no array: {error}", "Return arrays.")) from error
    if not np.issubdtype(found.dtype, np.floating):
        _complain(
            "no-array", f"{what} is {type(value).__name__} of dtype {found.dtype}", "Return real floating arrays."
        )
    if found.shape != tuple(shape):
        _complain("wrong-shape", f"{what} has shape {found.shape}, not {tuple(shape)}", "Keep the batch first.")
    if not np.all(np.isfinite(found)):
        _complain("not-finite", f"{what} holds NaN or infinite entries", "Look for 0/0, overflow, a diverged solve.")
    return found


def _gradients(value: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    if not isinstance(value, Mapping):
        _complain("wrong-shape", f"backward returns {type(value).__name__}, not a dict of blocks", "Return a dict.")
    given: dict[str, Any] = {}
    for name, block in value.items():
        tiers = {f"{name}.{i}": entry for i, entry in enumerate(block)} if isinstance(block, list | tuple) else {}
        given |= tiers or {name: block}
    known = {name: block for name, block in given.items() if name in shapes and block is not None}
    if not known:
        _complain(
            "no-gradient", f"no block of {', '.join(given) or 'an empty dict'} is known", f"Known: {', '.join(shapes)}."
        )
    return {name: _array(f"the gradient by {name}", block, shapes[name]) for name, block in known.items()}


# ------------------------------------------------------------------------------------------------
# Invariances


def invariances(
    target: Target,
    shapes: Mapping[str, tuple[int, ...]],
    x: np.ndarray,
    dy: np.ndarray,
    seen: Observation,
    state: float,
    gradient: Mapping[str, float],
    slope: Callable[[np.ndarray], np.ndarray],
) -> list[Probe]:
    """Repeated, alone, permuted, the loss scaled down and up: relative differences beside what is allowed."""

    def run(x: np.ndarray, dy: np.ndarray) -> Observation:
        return observe(target, {**shapes, "x": x.shape}, x, dy)

    sizes = {name: max(float(np.linalg.norm(block)), 1e-300) for name, block in seen.grads.items()}
    order = np.random.default_rng(0).permutation(len(x))
    again, permuted = run(x, dy), run(x[order], dy[order])
    back = Observation(permuted.y[np.argsort(order)], _rows(permuted.grads, np.argsort(order)), seen.dtype)
    alone = [run(x[i : i + 1], dy[i : i + 1]) for i in range(min(len(x), 4))]
    part = _together(alone)
    few = slice(0, len(alone))
    whole = {name: block[few] if name == "x" else block for name, block in seen.grads.items()}
    found = [
        *_pair("repeated", again, seen, state, gradient, sizes),
        *_pair("permuted", back, seen, state, gradient, sizes),
        Probe("state alone and in a batch", _relative(part.y, seen.y[few]), TWICE * state),
    ]
    if len(alone) == len(x):
        found.append(Probe("gradient alone and in a batch", _worst(part.grads, whole, gradient, sizes), TWICE))
    reach = min(1e6, float(np.finfo(seen.dtype).max) ** 0.2)  # float16 neither holds 1e6 nor 1e-6 exactly
    for factor in (1 / reach, reach):
        found.append(Probe(f"loss times {factor:g}", _scaled(run, x, dy, factor, seen, gradient, sizes), TWICE))
    if target.second is not None:
        found.append(_second(target, x, dy, slope))
    return found


def _scaled(
    run: Callable[[np.ndarray, np.ndarray], Observation],
    x: np.ndarray,
    dy: np.ndarray,
    factor: float,
    seen: Observation,
    gradient: Mapping[str, float],
    sizes: Mapping[str, float],
) -> float:
    try:
        grads = run(x, factor * dy).grads
    except Complaint:  # a tolerance out of reach for a larger loss, an underflow for a smaller one
        return math.inf
    return _worst({name: block / factor for name, block in grads.items()}, seen.grads, gradient, sizes)


def _second(target: Target, x: np.ndarray, dy: np.ndarray, slope: Callable[[np.ndarray], np.ndarray]) -> Probe:
    # H v beside the central difference of the true gradient by x, which for a T of its own has T's precision
    v = np.random.default_rng(1).normal(size=x.shape)
    own = max(target.unit, float(np.finfo(target.dtype).eps)) if target.kind == "generic" else 1e-15
    h = own ** (1 / 3) * max(1.0, float(np.linalg.norm(x))) / float(np.linalg.norm(v))
    truth, wide = ((slope(x + s * v) - slope(x - s * v)) / (2 * s) for s in (h, 2 * h))
    given = (part.astype(target.dtype) for part in (x, dy, v))
    found = _array("the second derivative", call("second", target.second, *given), x.shape)  # type: ignore[arg-type]
    size = max(float(np.linalg.norm(truth)), 1e-4 * float(np.linalg.norm(slope(x))), 1e-300)
    unsure = 4 * float(np.linalg.norm(wide - truth)) / size  # rounding, curvature, or a kink in between
    off = float(np.linalg.norm(found - truth)) / size
    return Probe("second derivative", off, max(1e-4, 100 * target.tol) + unsure)


def _pair(
    name: str, a: Observation, b: Observation, state: float, gradient: Mapping[str, float], sizes: Mapping[str, float]
) -> list[Probe]:
    return [
        Probe(f"state {name}", _relative(a.y, b.y), TWICE * state),
        Probe(f"gradient {name}", _worst(a.grads, b.grads, gradient, sizes), TWICE),
    ]


def _rows(grads: dict[str, np.ndarray], order: np.ndarray) -> dict[str, np.ndarray]:
    return {name: block[order] if name == "x" else block for name, block in grads.items()}


def _together(alone: list[Observation]) -> Observation:
    grads = {
        name: np.concatenate([o.grads[name] for o in alone])
        if name == "x"
        else np.sum([o.grads[name] for o in alone], axis=0)
        for name in alone[0].grads
    }
    return Observation(np.concatenate([o.y for o in alone]), grads, alone[0].dtype)


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    size = float(np.linalg.norm(b))
    return float(np.linalg.norm(a - b)) / size if size else float(np.max(np.abs(a), initial=0.0))


def _worst(
    a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray], allowed: Mapping[str, float], sizes: Mapping[str, float]
) -> float:
    # in units of what every block is allowed
    return max(float(np.linalg.norm(a[name] - b[name])) / max(allowed[name], 1e-13 * sizes[name]) for name in b)
