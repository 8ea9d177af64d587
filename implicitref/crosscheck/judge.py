r"""The order of judgement: is the state solved, where is it not differentiable, is each block of the gradient right.

No tolerance is global. A state may be as far off as the layer's solvers promise and rounding, amplified by the
conditioning of the equation, can make it. A block may be off by what the distance of the state explains,

    ||dpre(J + dJ) - dpre(J)|| <= ||(I - J W')^-1|| ||dJ (dz + W' dpre)||,

dJ over the interval of Clarke where the pre-activation is known to a ball only, by what the adjoint's own solver
promises, and by rounding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..arrays import norm
from . import systems
from .equations import Layer, OwnMap, Point, Solved
from .forward import FORWARD, Forward, ForwardMistake
from .mistakes import LIBRARY, Mistake, Recipe, blocks
from .weights import magnitudes

__all__ = [
    "Block",
    "Explanation",
    "Ground",
    "State",
    "compared",
    "explain",
    "explain_forward",
    "ground",
    "judge_state",
    "sizes",
]

Blocks = dict[str, np.ndarray]
WRONG = 0.1  # a state this far off, relative to its size, is called another state, nearer ones unfinished
KINK = 1e-3  # a slope that may be off by this much is that of a kink
VAGUE = 1e-2, 0.3  # an error beyond the first that only a tolerance beyond the second allows says nothing
KINKED = ("relu", "leaky_relu", "hardtanh", "soft_threshold")
PROBES = 4
CHANCE = 0.05  # that a mistake of the library fits what is none of them


class Explanation(NamedTuple):
    """A mistake that explains what was seen, and how well: the largest residual, relative to the discrepancy."""

    mistake: Mistake | ForwardMistake
    detail: str
    residual: float


class State(NamedTuple):
    """What is known of a returned state: relative distance to the equilibrium, what is allowed, the verdict."""

    verdict: str  # "solved", "loose", "wrong", "cannot tell" where the equilibrium is not known that well
    distance: float
    allowed: float
    residual: float
    certificate: float
    certified: bool


class Block(NamedTuple):
    """One block of the gradient: relative error and tolerance, cosine, the scalar that fits best."""

    name: str
    error: float
    tolerance: float
    cosine: float
    factor: float
    verdict: str  # "right", "wrong", "cannot tell", "not given"


class Ground(NamedTuple):
    """What a gradient is judged by: point, true blocks, absolute tolerances, typical sizes, kinks, the coarse error."""

    point: Point
    truth: Blocks
    tolerance: dict[str, float]
    size: dict[str, float]
    kinks: int
    coarse: float  # an error up to this is right even where the tolerance is vague


# ------------------------------------------------------------------------------------------------
# The state


def judge_state(equation: Any, x: np.ndarray, y: np.ndarray, solved: Solved, promise: float, unit: float) -> State:
    """The output y against the equilibrium; unit is eps of the layer's dtype."""
    truth = equation.output(solved.z, x)
    length, n = norm(truth), math.prod(truth.shape[1:])
    size = np.maximum(length, np.sqrt(np.mean(length**2))) if np.any(length) else np.ones_like(length)
    allowed = 10 * promise + 8 * unit * math.sqrt(n) * amplification(equation, solved, x)
    bound = solved.bound * _output_norm(equation)
    distance = norm(y - truth)
    relative, room = float(np.max(distance / size)), float(np.max(2 * bound / size)) + allowed
    residual = math.nan if equation.hidden else float(np.max(norm(equation.step(y, x) - y) / size))
    verdict = _state_word(relative, allowed, room)
    return State(verdict, relative, room, residual, float(np.max(solved.bound)), solved.certified)


def _state_word(distance: float, allowed: float, room: float) -> str:
    if distance <= allowed:
        return "solved"
    if not distance > room:  # NaN too
        return "cannot tell"
    return "loose" if distance < WRONG else "wrong"


def _output_norm(equation: Any) -> float:
    return float(np.linalg.norm(equation.C, 2)) if equation.hidden else 1.0


def amplification(equation: Any, solved: Solved, x: np.ndarray) -> float:
    """The bound on ``||(I - J W')^-1||`` where one is proven, else what it is at the equilibrium."""
    if equation.amplification is not None:
        return float(equation.amplification)
    point = equation.point(solved.z, x, equation.output(solved.z, x))
    return systems.inverse_norm(point.transposed, solved.z)


def explain_forward(equation: Any, x: np.ndarray, y: np.ndarray, solved: Solved, allowed: float) -> list[Explanation]:
    """Every mistake of the forward pass that explains the output, to a thousandth of its distance."""
    f, truth = Forward(equation, x, y, solved.z), equation.output(solved.z, x)
    gap, found = float(np.linalg.norm(y - truth)), []
    # what is off along the slowest directions alone nearly solves the right equation: the wrong one must fit far better
    residual = math.inf if equation.hidden else float(np.linalg.norm(equation.step(y, x) - y))
    for mistake in FORWARD:
        if (equation.hidden or isinstance(equation, OwnMap)) and not mistake.unfinished:
            continue
        room = 1e-3 * gap + 1e-2 * allowed * float(np.linalg.norm(truth))
        room = room if mistake.unfinished else min(room, 0.1 * residual)
        with np.errstate(all="ignore"):
            tried = [(float(np.linalg.norm(y - equation.output(z, x))), detail) for detail, z in mistake.states(f)]
        off, detail = min((t for t in tried if math.isfinite(t[0])), default=(math.inf, ""))
        if off <= min(room, 0.1 * gap):
            found.append(Explanation(mistake, detail, off / gap))
    return found


# ------------------------------------------------------------------------------------------------
# The gradient


def ground(
    equation: Any,
    x: np.ndarray,
    dy: np.ndarray,
    z: np.ndarray,
    distance: np.ndarray,
    factor: float,
    promise: float,
    unit: float,
    rule: str,
) -> Ground:
    """Truth and tolerances at the state z, which may be `distance` (batch,) away from the one that was meant."""
    point = equation.point(z, x, dy)
    dpre = by_rule(point, rule)
    truth, rng, rounding = point.blocks(dpre), np.random.default_rng(0), unit * math.sqrt(math.prod(z.shape[1:]))
    size = sizes(point, dpre, truth, rng)
    slack = _slope_interval(point, 2 * distance, unit)
    explained = _explained(point, dpre, factor * norm(slack * point.adjoint), distance, rng)
    by_adjoint = _typical(point, point.jac, norm(point.adjoint), rng)
    # the adjoint's solver promises to be right relative to its solution, which is dpre or the gradient at the state
    tolerance = {
        name: (10 * promise + 8 * rounding * factor) * size[name]
        + (promise + 8 * rounding * factor) * by_adjoint[name]
        + explained[name]
        for name in truth
    }
    if isinstance(equation, OwnMap):
        tolerance = _by_moving(point, distance, tolerance, truth, rng, rule)
    kinks = int(np.count_nonzero(slack > KINK)) if _has_kinks(equation) else 0
    return Ground(point, truth, tolerance, size, kinks, max(VAGUE[0], 4 * unit))


def sizes(point: Point, dpre: np.ndarray, truth: Blocks, rng: np.random.Generator) -> dict[str, float]:
    """Of every block its own length, that of a random dpre as long, and what it would be if nothing cancelled."""
    live = np.asarray(point.jac > 0, dtype=np.float64)
    typical, dead = _typical(point, live, norm(dpre), rng), _typical(point, 1.0, norm(point.adjoint), rng)
    uncancelled = magnitudes(point.equation.W, point.z, dpre) if isinstance(point.equation, Layer) else {}
    largest = 0.0 if uncancelled else max(float(np.linalg.norm(block)) for block in truth.values())
    return {
        name: max(
            typical[name],
            float(np.linalg.norm(truth[name])),
            uncancelled.get(name, 0.0),
            1e-3 * dead[name],
            1e-3 * largest,  # of a T known by its products nothing else says what a block would be
        )
        for name in truth
    }


def _typical(
    point: Point, weight: np.ndarray | float, lengths: np.ndarray, rng: np.random.Generator
) -> dict[str, float]:
    """Root mean squares of the blocks of random dpre with those lengths, what is linear in dpre; entries weighted."""
    constant, unit = point.blocks(np.zeros_like(point.z)), 1 / math.sqrt(math.prod(point.z.shape[1:]))
    drawn = [rng.normal(size=point.z.shape) * weight * _column(unit * lengths, point.z) for _ in range(PROBES)]
    rows = [{name: _distance(b, constant[name]) for name, b in point.blocks(dpre).items()} for dpre in drawn]
    return {name: math.sqrt(float(np.mean([row[name] ** 2 for row in rows]))) for name in constant}


def _explained(
    point: Point, dpre: np.ndarray, moved: np.ndarray, distance: np.ndarray, rng: np.random.Generator
) -> dict[str, float]:
    # by the distance of the state: through the slopes, dpre moves by at most `moved`, and through z itself.
    # A linear map of v is at most its Frobenius norm, the root mean square over random v of unit entries, times ||v||
    by_slope = _typical(point, math.sqrt(math.prod(point.z.shape[1:])), moved, rng)
    shift = rng.normal(size=point.z.shape) * _column(distance, point.z)
    by_state = {n: _distance(b, 0 * b) for n, b in point.equation.state_blocks(point, shift, dpre).items()}
    return {name: length + 2 * by_state.get(name, 0.0) for name, length in by_slope.items()}


def _has_kinks(equation: Any) -> bool:
    activation = getattr(equation, "activation", None)
    name = getattr(getattr(activation, "inner", activation), "name", "")
    return str(name).partition("(")[0] in KINKED


def by_rule(point: Point, rule: str) -> np.ndarray:
    """Dpre as the rule has it: of "implicit" the gradient's, of "jfb" or "neumann:k" an approximation."""
    if rule == "implicit":
        return point.dpre
    dpre = np.asarray(point.jac * point.dz)
    for _ in range(0 if rule == "jfb" else int(rule.partition(":")[2])):
        dpre = np.asarray(point.jac * (point.dz + point.W.rmatvec(dpre)))
    return dpre


def _slope_interval(point: Point, distance: np.ndarray, unit: float) -> np.ndarray:
    # how far J may be off, entry by entry, if the pre-activation is known to ||W|| distance and rounding
    equation = point.equation
    if not isinstance(equation, Layer):
        return np.zeros_like(point.pre)
    terms = math.sqrt(math.prod(point.z.shape[1:])) * norm(point.z) + norm(point.pre) + norm(point.pre - point.z)
    length = 1 + equation.W.lipschitz() if equation.monotone else np.linalg.norm(equation.W.matrix, 2)
    radius = _column(length * distance + 4 * unit * terms, point.pre)
    sides = [equation.activation.derivative(point.pre + side * radius) for side in (-1, -0.5, 0.5, 1)]
    return np.asarray(np.max([np.abs(side - point.jac) for side in sides], axis=0))


def _by_moving(
    point: Point, distance: np.ndarray, tolerance: dict[str, float], truth: Blocks, rng: np.random.Generator, rule: str
) -> dict[str, float]:
    # of a T known by its products only: how much the gradient changes when the state moves that far
    found = dict(tolerance)
    for _ in range(2):
        shift = rng.normal(size=point.z.shape) * _column(distance / math.sqrt(math.prod(point.z.shape[1:])), point.z)
        moved = point.equation.point(point.z + shift, point.x, point.dy)
        other = moved.blocks(by_rule(moved, rule))
        found = {name: max(found[name], tolerance[name] + 10 * _distance(other[name], truth[name])) for name in found}
    return found


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b))


def _column(lengths: np.ndarray, like: np.ndarray) -> np.ndarray:
    return np.asarray(lengths.reshape((-1,) + (1,) * (like.ndim - 1)))


def compared(ground: Ground, observed: Mapping[str, np.ndarray]) -> list[Block]:
    """Every block apart; one that the target does not give is not judged."""
    return [
        _block(name, observed[name], truth, ground)
        if name in observed
        else Block(name, math.nan, math.nan, math.nan, math.nan, "not given")
        for name, truth in ground.truth.items()
    ]


def _block(name: str, found: np.ndarray, truth: np.ndarray, ground: Ground) -> Block:
    lengths, along = (float(np.linalg.norm(found)), float(np.linalg.norm(truth))), float(np.sum(found * truth))
    cosine = along / (lengths[0] * lengths[1]) if lengths[0] * lengths[1] else math.nan
    factor = along / lengths[1] ** 2 if lengths[1] else math.nan
    error, scale = _distance(found, truth), _scale(lengths[1], ground.size[name])
    tolerance = ground.tolerance[name] / scale
    return Block(name, error / scale, tolerance, cosine, factor, _word(error / scale, tolerance, ground.coarse))


def _word(error: float, tolerance: float, coarse: float) -> str:
    if math.isnan(error) or math.isnan(tolerance):  # the reference's own adjoint is singular, or was not solved
        return "cannot tell"
    if error > tolerance + 1e-300:
        return "wrong"
    return "right" if error <= coarse or tolerance <= VAGUE[1] else "cannot tell"


def _scale(length: float, size: float) -> float:
    """What an error is relative to: the block's length, or a hundredth of its typical size where it nearly vanishes."""
    return max(length, 1e-2 * size, 1e-300)


def explain(ground: Ground, observed: Mapping[str, np.ndarray]) -> list[Explanation]:
    """Every mistake of the library whose gradient is the observed one, to tolerance, in the order of the library."""
    found, tried = [], 0
    for mistake in LIBRARY:
        with np.errstate(all="ignore"):
            residuals = [(_residual(ground, observed, r), r.detail) for r in mistake.recipes(ground.point)]
        tried += len(residuals)
        fitting = [Explanation(mistake, detail, residual) for residual, detail in residuals if residual is not None]
        found += [min(fitting, key=lambda e: e.residual)] if fitting else []
    # of so many one fits that well by chance, if few numbers are wrong: tried * residual^numbers
    numbers = _wrong_numbers(ground, observed)
    return [e for e in found if math.log(tried) + numbers * math.log(max(e.residual, 1e-300)) < math.log(CHANCE)]


def _wrong_numbers(ground: Ground, observed: Mapping[str, np.ndarray]) -> int:
    # independent ones: at most as many as dpre has entries that are not zero, and as the wrong blocks have
    entries = sum(observed[block.name].size for block in compared(ground, observed) if block.verdict == "wrong")
    return max(1, min(entries, int(np.count_nonzero(ground.point.jac))))


def _square(ratio: float) -> float:
    return min(ratio, 1e100) ** 2


def _residual(ground: Ground, observed: Mapping[str, np.ndarray], recipe: Recipe) -> float | None:
    # relative to the discrepancy, over all blocks; None where a block disagrees
    off = gap = 0.0
    for weights in (False, True):
        predicted = blocks(ground.point, recipe, weights)
        for name in predicted.keys() & observed.keys():
            truth, scale = ground.truth[name], _scale(float(np.linalg.norm(ground.truth[name])), ground.size[name])
            error = _distance(observed[name], predicted[name])
            room = 10 * ground.tolerance[name] * max(1.0, float(np.linalg.norm(predicted[name])) / scale)
            if not error <= room:
                return None
            off, gap = off + _square(error / scale), gap + _square(_distance(observed[name], truth) / scale)
    residual = math.sqrt(off / gap) if gap else math.inf
    return residual if residual <= 0.02 else None
