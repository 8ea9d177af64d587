r"""The cases of the conformance vectors: problems as data, right answers, and the answers that mistakes give.

Every case draws from a generator seeded by its own name, so that adding one changes no other. Parameters and inputs
are multiples of 2^-12: they are the same numbers on every machine, and in any arithmetic.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import activations
from ..arrays import norm
from . import judge
from .equations import Layer, Point, equation
from .forward import FORWARD, Forward, ForwardMistake
from .mistakes import LIBRARY, Mistake, Recipe, blocks

__all__ = ["FLAGS", "Answer", "Case", "Problem", "Solved", "answer", "cases", "solve"]

Blocks = dict[str, np.ndarray]
Size = tuple[Any, ...]
CLEAR = 1e-3  # pre-activations keep this distance from kinks, where answers are to be "valid"
DRAWS = 40
OFF = 1e-2  # an answer called invalid is off by at least this, relative, in some block
TOLERANCE = {"float64": 1e-8, "float32": 1e-4}
KINK = {"relu": 0.0, "leaky_relu": 0.0, "hardtanh": 1.0, "soft_threshold": 1.0}
CLARKE = "slope-at-a-kink"


def _printed_step(f: Forward) -> Iterator[tuple[str, np.ndarray]]:
    # Algorithm 1 as printed, sigma for prox^alpha; the library fits alpha to a state, here it is chosen
    if f.equation.monotone and not f.equation.activation.alpha_free:
        A = f.z - f.equation.W.matvec(f.z) - f.injection
        yield "alpha = 0.5", f.state(f.z - 0.5 * A)


STATES = {mistake.name: mistake for mistake in FORWARD}
STATES["sigma-for-prox-alpha"] = STATES["sigma-for-prox-alpha"]._replace(states=_printed_step)
GRADIENTS = {mistake.name: mistake for mistake in LIBRARY}

FLAGS = {
    "Scalar": "one entry in the state",
    "BatchOfOne": "one sample",
    "Scaled": "the weights are normalised and have scales g, h, gs",
    "NoInjectionMatrix": "there is no U: x is the injection",
    "NoSkewPart": "B is zero, W symmetric: mistakes of transposition do not show",
    "NoGramPart": "A is zero",
    "Symmetric": "W is symmetric: mistakes of transposition do not show",
    "IllConditioned": "m, or 1 - ||W||, is small",
    "LargeMargin": "m is large, W far from a contraction",
    "Large": "more entries than the others",
    "ZeroInput": "x is zero",
    "ZeroCotangent": "dz is zero, and with it the gradient",
    "Dead": "every slope of the activation is zero",
    "Saturated": "slopes are small",
    "Float32": "tolerances are those of single precision; every number is one of float32",
    "EvenKernel": "kernels of 2 x 2, centred at (k - 1)//2 = 0",
    "LargeKernel": "kernels are larger than the image and wrap around it more than once",
    "MixedKernels": "A and B are kernels of different sizes",
    "OnePixel": "images of one pixel",
    "NotSquare": "images are not square",
    "Border": "a border of zeros is held by the activation",
    "ThreeTiers": "three tiers",
    "StrideThree": "the stride is 3",
    "PaddedTier": "a tier is larger than what the strided convolution fills; the rest of it receives nothing",
    "NoContraction": "||W||_2 >= 1: iterating z = sigma(W z + U x + b) may diverge",
    "NoBypass": "there is no D",
    "Kink": "pre-activations lie at kinks, where any slope between the one-sided ones is right",
    "JFB": "Jacobian-free backpropagation, a legitimate approximation of the gradient",
    "Neumann": "a truncated Neumann series, a legitimate approximation of the gradient",
    "Forward": "the state is wrong; the gradient is made at that state",
    "Unfinished": "the state is that of an iteration stopped too early",
    "Gradient": "the state is right, the gradient is not",
}


class Problem(NamedTuple):
    """An equation as data, its activation as (name, parameters, border), inputs, the gradient at the output."""

    kind: str
    activation: tuple[str, tuple[float, ...], int]
    settings: Mapping[str, Any]
    params: Blocks
    x: np.ndarray
    dz: np.ndarray

    def equation(self) -> Any:
        """What it says is to be solved."""
        name, parameters, border = self.activation
        inner = activations.get(name, *parameters)
        sigma = activations.zero_border(inner, border) if border else inner
        return equation(self.kind, self.params, sigma, self.settings)


class Answer(NamedTuple):
    """State and gradient blocks, by "state" and "gradient.NAME"; how they were made; the certified distance."""

    values: Blocks
    detail: str
    certificate: float


class Case(NamedTuple):
    """A problem, an answer, what the answer is worth, and why; absolute tolerances in the Euclidean norm."""

    id: str
    comment: str
    problem: Problem
    result: str  # "valid", "acceptable", "invalid"
    variant: str  # the name of the mistake or of the approximation, empty for the truth
    place: int  # which of its forms
    alike: tuple[str, ...]  # other mistakes that give these answers
    flags: tuple[str, ...]
    hypotheses: tuple[str, ...]
    tolerance: Mapping[str, float]
    answer: Answer


# ------------------------------------------------------------------------------------------------
# Answers


class Solved(NamedTuple):
    """A problem, its equation, its equilibrium, that equation at the equilibrium."""

    problem: Problem
    layer: Layer
    certificate: float
    point: Point


def solve(problem: Problem) -> Solved:
    """The problem solved as exactly as float64 allows."""
    layer = problem.equation()
    found = layer.solve(problem.x)
    return Solved(problem, layer, float(np.max(found.bound)), layer.point(found.z, problem.x, problem.dz))


def answer(solved: Solved, variant: str = "", place: int = 0) -> Answer:
    """The truth, or what the mistake or approximation of that name gives, in its form number `place`.

    Examples
    --------
    >>> half = Problem("fixed-point", ("leaky_relu", (1.0,), 0), {}, {"W": np.array([[0.5]])}, *np.ones((2, 1, 1)))
    >>> answer(solve(half)).values
    {'state': array([[2.]]), 'gradient.W': array([[4.]]), 'gradient.x': array([[2.]])}
    """
    point = solved.point
    if variant in STATES:
        detail, z = _wrong_state(solved, STATES[variant], place)
        point = solved.layer.point(z, point.x, point.dy)
        return _answer(solved, point, detail, point.blocks(point.dpre))
    if variant == CLARKE:
        point = _between(point)
        return _answer(solved, point, "the mean of the one-sided slopes", point.blocks(point.dpre))
    if variant:
        recipe = next(itertools.islice(GRADIENTS[variant].recipes(point), place, None))
        return _answer(solved, point, recipe.detail, _by_recipe(point, recipe))
    return _answer(solved, point, "", point.blocks(point.dpre))


def _answer(solved: Solved, point: Point, detail: str, gradient: Blocks) -> Answer:
    values = {"state": solved.layer.output(point.z, point.x)}
    values |= {f"gradient.{name}": np.asarray(gradient[name]) for name in sorted(gradient)}
    return Answer(values, detail, solved.certificate)


def _by_recipe(point: Point, recipe: Recipe) -> Blocks:
    return {**blocks(point, recipe, True), **blocks(point, recipe, False)}


def _between(point: Point) -> Point:
    # the slopes where kinks are crossed within rounding; elsewhere both sides agree
    slope, near = point.equation.activation.derivative, 1e-7
    jac = (slope(point.pre - near) + slope(point.pre + near)) / 2
    return dataclasses.replace(point, jac=jac)


def _wrong_state(solved: Solved, mistake: ForwardMistake, place: int) -> tuple[str, np.ndarray]:
    # the state that the mistake's own prediction from it is: by damped iteration; NaN where that does not converge
    z = solved.point.z
    for _ in range(1 if mistake.unfinished else 120):
        detail, wanted = next(itertools.islice(mistake.states(_forward(solved, z)), place, None))
        if mistake.unfinished:
            return detail, wanted
        off, size = float(np.max(np.abs(wanted - z))), 1 + float(np.max(np.abs(z)))
        if off < 1e-9 * size:  # a wrong answer need not be exact
            return detail, z
        if not size < 1e3:
            break
        z = z + 0.4 * (wanted - z)
    return detail, np.full_like(z, math.nan)


# ------------------------------------------------------------------------------------------------
# What an answer is worth


def _case(name: str, comment: str, solved: Solved, result: str, flags: Sequence[str], variant: str = "") -> Case:
    return _worth(name, comment, solved, result, flags, variant, 0, (), answer(solved, variant))


def _worth(
    name: str,
    comment: str,
    solved: Solved,
    result: str,
    flags: Sequence[str],
    variant: str,
    place: int,
    alike: Sequence[str],
    found: Answer,
) -> Case:
    kept = tuple(flag for flag in FLAGS if flag in flags)
    tolerance = _tolerances(solved, TOLERANCE["float32" if "Float32" in flags else "float64"])
    hypotheses, others = _hypotheses(solved.layer), tuple(dict.fromkeys(alike))
    return Case(
        name, comment, solved.problem, result, variant, place, others, kept, hypotheses, tolerance, found
    )  # fmt: skip


def _hypotheses(layer: Layer) -> tuple[str, ...]:
    if layer.monotone:
        return (f"I - W >= {layer.W.m:g} I: one equilibrium [MON-Prop1]",)
    W = layer.W.matrix
    gamma, perron = float(np.linalg.norm(W, 2)), float(np.max(np.abs(np.linalg.eigvals(np.abs(W)))))
    limit = 1 + layer.activation.strong
    if gamma < limit:
        return (f"||W||_2 = {gamma:.3g} < {limit:g}, sigma 1/{limit:g}-Lipschitz: one equilibrium [JFB-Asm2.1]",)
    return (f"the Perron eigenvalue of |W| is {perron:.3g} < 1: one equilibrium [GREEDY-Thm1]",)


def _tolerances(solved: Solved, relative: float) -> dict[str, float]:
    y, sizes = solved.layer.output(solved.point.z, solved.point.x), _sizes(solved.point)
    found = {"state": max(float(np.linalg.norm(y)), 1e-2 * math.sqrt(y.size))}
    found |= {f"gradient.{name}": max(sizes[name], 1e-2) for name in sorted(sizes)}
    return {name: _two_digits(relative * size) for name, size in found.items()}


def _two_digits(value: float) -> float:
    return float(f"{value:.1e}")


def _sizes(point: Point) -> dict[str, float]:
    # what every block would be if nothing cancelled: errors are relative to that
    return judge.sizes(point, point.dpre, point.blocks(point.dpre), np.random.default_rng(0))


def _margin(point: Point) -> float:
    # CLEAR if every pre-activation is at least so far from a jump of the slope
    slope = point.equation.activation.derivative
    sides = [slope(point.pre + side * CLEAR) for side in (-1, 1)]
    return CLEAR if np.max(np.abs(sides[0] - sides[1]), initial=0.0) < 0.1 else 0.0


# ------------------------------------------------------------------------------------------------
# Problems


def _round(a: Any) -> np.ndarray:
    return np.asarray(np.round(np.asarray(a) * 4096) / 4096)


def _normal(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> np.ndarray:
    return _round(scale * rng.normal(size=shape))


def _kernel(rng: np.random.Generator, o: int, i: int, k: int, scale: float = 0.8) -> np.ndarray:
    return _normal(rng, o, i, k, k, scale=scale / (k * math.sqrt(i)))


def _scales(rng: np.random.Generator, params: Blocks) -> Blocks:
    letters = {"A": "g", "B": "h", "S": "gs"}
    owned = [name for name in params if name[0] in letters]
    return {letters[name[0]] + name[1:]: _round(rng.uniform(0.5, 1.5)) for name in owned}


def _dense(rng: np.random.Generator, n: int, d: int, batch: int) -> tuple[Blocks, dict[str, Any], Size, Size]:
    params = {name: _normal(rng, n, n, scale=0.8 / math.sqrt(n)) for name in "AB"}
    ends = {"U": _normal(rng, n, d), "b": _normal(rng, n)}
    return {**params, **ends}, {"m": 0.5}, (batch, d), (batch, n)


def _conv(
    rng: np.random.Generator, c: int, colours: int, size: Size, k: int, batch: int
) -> tuple[Blocks, dict[str, Any], Size, Size]:
    params = {name: _kernel(rng, c, c, k) for name in "AB"}
    ends = {"U": _kernel(rng, c, colours, 3, 2.0), "b": _normal(rng, c)}
    settings = {"m": 0.5, "size": size, "image": (colours, *size)}
    return {**params, **ends}, settings, (batch, colours, *size), (batch, c, *size)


def _tiers(
    rng: np.random.Generator, channels: Size, sizes: Sequence[Size], stride: int, batch: int
) -> tuple[Blocks, dict[str, Any], Size, Size]:
    params = {f"{name}.{i}": _kernel(rng, c, c, 3, 0.6) for name in "AB" for i, c in enumerate(channels)}
    params |= {f"S.{i}": _kernel(rng, o, c, 3) for i, (c, o) in enumerate(itertools.pairwise(channels))}
    shape = (batch, sum(c * h * w for c, (h, w) in zip(channels, sizes, strict=True)))
    return params, {"m": 0.5, "sizes": tuple(sizes), "stride": stride}, shape, shape


def _plain(rng: np.random.Generator, n: int, d: int, batch: int) -> tuple[Blocks, dict[str, Any], Size, Size]:
    W = rng.normal(size=(n, n))
    params = {"W": _round(0.8 * W / np.linalg.norm(W, 2)), "U": _normal(rng, n, d), "b": _normal(rng, n)}
    return params, {}, (batch, d), (batch, n)


def _implicit(
    rng: np.random.Generator, n: int, d: int, q: int, batch: int
) -> tuple[Blocks, dict[str, Any], Size, Size]:
    A = rng.normal(size=(n, n))
    params = {"A": _round(0.8 * A / np.abs(A).sum(axis=1).max()), "B": _normal(rng, n, d), "b": _normal(rng, n)}
    return {**params, "C": _normal(rng, q, n), "D": _normal(rng, q, d)}, {}, (batch, d), (batch, q)


DRAW: dict[str, Any] = {
    "mon-dense": _dense, "mon-conv": _conv, "mon-multitier": _tiers, "fixed-point": _plain, "implicit": _implicit,
}  # fmt: skip

SIZES: dict[str, tuple[Size, ...]] = {
    "mon-dense": ((1, 1, 1), (5, 3, 2), (12, 4, 3)),
    "mon-conv": ((1, 1, (3, 3), 1, 2), (2, 1, (4, 5), 3, 2), (3, 2, (5, 4), 3, 1)),
    "mon-multitier": (
        ((1, 1), ((4, 4), (2, 2)), 2, 2),
        ((2, 1), ((6, 4), (3, 2)), 2, 1),
        ((1, 2, 1), ((4, 4), (2, 2), (1, 1)), 2, 2),
    ),
    "fixed-point": ((1, 1, 1), (4, 4, 3), (10, 3, 2)),
    "implicit": ((1, 1, 1, 1), (4, 3, 2, 3), (9, 2, 3, 2)),
}


def _problem(
    name: str, kind: str, activation: str, size: Size, scaled: bool = False, border: int = 0, **changes: Any
) -> Solved:
    """The problem of that name: drawn again until no pre-activation is near a kink.

    Changes: of a parameter, or x, or dz, by (rng, array) -> array; "without" names what is left out; else a setting.
    """
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    for _ in range(DRAWS):
        params, settings, shape, out = DRAW[kind](rng, *size)
        params |= _scales(rng, params) if scaled else {}
        drawn = {**params, "x": _normal(rng, *shape), "dz": _normal(rng, *out)}
        drawn = {key: _round(changes[key](rng, a)) if key in changes else a for key, a in drawn.items()}
        left = {key: a for key, a in drawn.items() if key not in changes.get("without", ())}
        if "U" in params and "U" not in left:
            left["x"], settings = _normal(rng, *out), {key: settings[key] for key in settings if key != "image"}
        settings |= {key: changes[key] for key in ("m",) if key in changes}
        x, dz = left.pop("x"), left.pop("dz")
        parameters = (0.125,) if activation == "leaky_relu" else ()
        solved = solve(Problem(kind, (activation, parameters, border), settings, left, x, dz))
        if _margin(solved.point) >= CLEAR:
            return solved
    raise RuntimeError(f"every draw of {name} has a pre-activation near a kink")


def _usual() -> Iterator[Case]:
    # every kind with every activation, sizes and scales in turn
    for kind, sizes in SIZES.items():
        for i, activation in enumerate(activations.NAMES):
            scaled, size = kind.startswith("mon") and i % 2 == 1, sizes[i % len(sizes)]
            name = f"{kind}-{activation.replace('_', '-')}"
            solved = _problem(name, kind, activation, size, scaled)
            flags = [*["Scaled"] * scaled, *_shape_flags(solved.problem)]
            yield _case(name, f"{kind}, {activation}", solved, "valid", flags)


def _shape_flags(problem: Problem) -> Iterator[str]:
    size = problem.settings.get("size", (1, 1))
    held = {
        "Scalar": problem.kind in ("mon-dense", "fixed-point", "implicit") and problem.params["b"].size == 1,
        "BatchOfOne": len(problem.x) == 1,
        "NotSquare": size[0] != size[1],
        "ThreeTiers": len(problem.settings.get("sizes", ())) == 3,
    }
    return (flag for flag, holds in held.items() if holds)


def _zero(rng: np.random.Generator, a: np.ndarray) -> np.ndarray:
    return np.zeros_like(a)


def _symmetric(rng: np.random.Generator, a: np.ndarray) -> np.ndarray:
    return np.asarray((a + a.T) / 2)


def _strict(rng: np.random.Generator, a: np.ndarray) -> np.ndarray:
    return np.asarray(3 * np.triu(rng.normal(size=a.shape), 1))


def _stretched(factor: float, shift: float = 0.0) -> Any:
    return lambda rng, a: np.asarray(factor * a + shift)


EDGES: tuple[tuple[str, str, str, Size, dict[str, Any], tuple[str, ...]], ...] = (
    ("direct", "mon-dense", "tanh", (5, 3, 2), {"without": ("U", "b")}, ("NoInjectionMatrix",)),
    ("direct-relu", "mon-dense", "relu", (6, 3, 3), {"without": ("U", "b")}, ("NoInjectionMatrix",)),
    ("no-skew-part", "mon-dense", "softplus", (5, 3, 2), {"B": _zero}, ("NoSkewPart", "Symmetric")),
    ("no-gram-part", "mon-dense", "tanh", (5, 3, 2), {"A": _zero}, ("NoGramPart",)),
    ("ill-conditioned", "mon-dense", "relu", (6, 2, 2), {"m": 2.0**-6, "A": _zero}, ("IllConditioned", "NoGramPart")),
    ("large-margin", "mon-dense", "elu", (5, 3, 2), {"m": 4.0}, ("LargeMargin", "NoContraction")),
    ("large", "mon-dense", "sigmoid", (40, 10, 8), {}, ("Large",)),
    ("one-sample", "mon-dense", "hardtanh", (6, 3, 1), {}, ("BatchOfOne",)),
    ("zero-input", "mon-dense", "arctan", (5, 3, 2), {"x": _zero}, ("ZeroInput",)),
    ("zero-cotangent", "mon-dense", "tanh", (5, 3, 2), {"dz": _zero}, ("ZeroCotangent",)),
    ("dead", "mon-dense", "relu", (5, 3, 2), {"b": _stretched(0, -20)}, ("Dead",)),
    ("alive", "mon-dense", "relu", (5, 3, 2), {"b": _stretched(0, 40)}, ()),
    ("saturated", "mon-dense", "tanh", (5, 3, 2), {"x": _stretched(4)}, ("Saturated",)),
    ("float32", "mon-dense", "softplus", (8, 3, 2), {}, ("Float32",)),
    ("no-contraction", "mon-dense", "relu", (6, 3, 2), {"B": _stretched(4)}, ("NoContraction",)),
    ("direct", "mon-conv", "relu", (2, 1, (4, 4), 3, 2), {"without": ("U", "b")}, ("NoInjectionMatrix",)),
    ("even-kernel", "mon-conv", "tanh", (2, 1, (4, 4), 2, 2), {}, ("EvenKernel",)),
    ("large-kernel", "mon-conv", "softplus", (1, 1, (3, 4), 7, 2), {}, ("LargeKernel", "NotSquare")),
    ("mixed-kernels", "mon-conv", "elu", (2, 1, (4, 4), 3, 1),
     {"B": lambda rng, a: rng.normal(size=(2, 2, 1, 1)) / 2}, ("MixedKernels", "BatchOfOne")),
    ("one-pixel", "mon-conv", "sigmoid", (2, 1, (1, 1), 3, 2), {}, ("OnePixel", "LargeKernel")),
    ("border", "mon-conv", "relu", (2, 1, (5, 5), 3, 2), {"border": 1}, ("Border",)),
    ("border-smooth", "mon-conv", "tanh", (1, 2, (5, 6), 3, 1), {"border": 1, "scaled": True},
     ("Border", "NotSquare", "Scaled", "BatchOfOne")),
    ("float32", "mon-conv", "tanh", (2, 1, (4, 4), 3, 2), {}, ("Float32",)),
    ("ill-conditioned", "mon-conv", "arctan", (1, 1, (4, 4), 3, 1), {"m": 2.0**-7}, ("IllConditioned", "BatchOfOne")),
    ("three-tiers", "mon-multitier", "relu", ((2, 1, 2), ((4, 4), (2, 2), (1, 1)), 2, 2), {}, ("ThreeTiers",)),
    ("stride-three", "mon-multitier", "softplus", ((1, 2), ((6, 6), (2, 2)), 3, 1), {}, ("StrideThree", "BatchOfOne")),
    ("padded-tier", "mon-multitier", "tanh", ((1, 1), ((6, 6), (4, 4)), 2, 1), {}, ("PaddedTier", "BatchOfOne")),
    ("scaled", "mon-multitier", "leaky_relu", ((2, 2), ((4, 4), (2, 2)), 2, 2), {"scaled": True}, ("Scaled",)),
    ("zero-cotangent", "mon-multitier", "elu", ((1, 1), ((4, 4), (2, 2)), 2, 1), {"dz": _zero},
     ("ZeroCotangent", "BatchOfOne")),
    ("direct", "fixed-point", "relu", (6, 2, 3), {"without": ("U", "b")}, ("NoInjectionMatrix",)),
    ("symmetric", "fixed-point", "tanh", (5, 3, 2), {"W": _symmetric}, ("Symmetric",)),
    ("nilpotent", "fixed-point", "relu", (5, 3, 2), {"W": _strict}, ("NoContraction",)),
    ("strong", "fixed-point", "sigmoid", (5, 3, 2), {"W": _stretched(3)}, ("NoContraction",)),
    ("ill-conditioned", "fixed-point", "leaky_relu", (4, 3, 2),
     {"W": lambda rng, a: (1 - 2.0**-8) * np.linalg.qr(rng.normal(size=a.shape))[0]}, ("IllConditioned",)),
    ("dead", "fixed-point", "relu", (5, 3, 2), {"b": _stretched(0, -20)}, ("Dead",)),
    ("large", "fixed-point", "hardtanh", (40, 8, 4), {}, ("Large",)),
    ("no-bypass", "implicit", "relu", (6, 3, 2, 2), {"without": ("D",)}, ("NoBypass",)),
    ("no-bias", "implicit", "tanh", (6, 3, 2, 2), {"without": ("b",)}, ()),
    ("nilpotent", "implicit", "softplus", (5, 3, 2, 2), {"A": _strict}, ("NoContraction",)),
    ("zero-input", "implicit", "elu", (4, 3, 2, 2), {"x": _zero}, ("ZeroInput",)),
    ("large", "implicit", "relu", (30, 6, 4, 4), {}, ("Large",)),
)  # fmt: skip


def _edges() -> Iterator[Case]:
    for what, kind, activation, size, changes, flags in EDGES:
        name = f"{kind}-{activation.replace('_', '-')}-{what}"
        comment = f"{kind}, {activation}: {'; '.join(FLAGS[flag] for flag in flags) or what}"
        yield _case(name, comment, _problem(name, kind, activation, size, **changes), "valid", flags)


# ------------------------------------------------------------------------------------------------
# Kinks, approximations, mistakes


def _kinks() -> Iterator[Case]:
    # x = pre - W sigma(pre) for a pre that has entries at the kink
    for kind, (activation, at) in itertools.product(("mon-dense", "mon-conv", "fixed-point"), KINK.items()):
        name = f"{kind}-{activation.replace('_', '-')}-kink"
        drawn = _problem(name, kind, activation, SIZES[kind][1], without=("U", "b"))
        rng, problem, layer = np.random.default_rng(zlib.crc32(name.encode())), drawn.problem, drawn.layer
        pre = np.where(rng.random(problem.x.shape) < 0.3, at, problem.x)
        problem = problem._replace(x=pre - layer.W.matvec(layer.activation(pre)))
        comment = "any slope between the one-sided ones is right at a kink; here it is their mean"
        yield _case(name, comment, solve(problem), "acceptable", ["Kink", "NoInjectionMatrix"], CLARKE)


BASES: dict[str, tuple[tuple[str, Size, bool, int], ...]] = {
    "mon-dense": (
        ("tanh", (5, 3, 3), False, 0), ("relu", (4, 4, 2), False, 0), ("softplus", (5, 3, 3), True, 0),
    ),
    "mon-conv": (
        ("tanh", (2, 1, (3, 4), 3, 2), False, 0), ("relu", (2, 2, (4, 3), 3, 2), False, 0),
        ("softplus", (2, 1, (3, 4), 3, 3), True, 0), ("elu", (1, 1, (4, 5), 3, 2), False, 1),
    ),
    "mon-multitier": (
        ("tanh", ((1, 2), ((4, 4), (2, 2)), 2, 2), False, 0),
        ("leaky_relu", ((2, 1), ((4, 4), (2, 2)), 2, 3), False, 0),
        ("softplus", ((1, 1), ((4, 6), (2, 3)), 2, 2), True, 0),
    ),
    "fixed-point": (("tanh", (5, 3, 3), False, 0), ("relu", (4, 4, 2), False, 0), ("sigmoid", (5, 3, 3), False, 0)),
    "implicit": (
        ("tanh", (5, 3, 2, 3), False, 0), ("relu", (4, 4, 2, 2), False, 0), ("arctan", (6, 3, 2, 3), False, 0),
    ),
}  # fmt: skip
FORMS = 5  # of a mistake that are tried


def _mistakes() -> Iterator[Case]:
    """Of every kind every mistake that shows in one of its bases, beginning with another base for each."""
    for kind, bases in BASES.items():
        solved = [_problem(f"{kind}-base-{i}", kind, *base) for i, base in enumerate(bases)]
        tables = [_table(base) for base in solved]
        for turn, mistake in enumerate(LIBRARY):
            tried = (_gradient(solved[i], tables[i], mistake) for i in _order(turn, len(solved)))
            yield from itertools.islice(_named(kind, mistake.name, tried), 1)
        for turn, wrong in enumerate(STATES.values() if kind != "implicit" else ()):
            tried = (_state(solved[i], wrong) for i in _order(turn, len(solved)))
            yield from itertools.islice(_named(kind, wrong.name, tried), 1)


def _order(turn: int, n: int) -> list[int]:
    return [(turn + i) % n for i in range(n)]


def _named(kind: str, mistake: str, tried: Iterator[Case | None]) -> Iterator[Case]:
    return (case._replace(id=f"{kind}-{mistake}") for case in tried if case is not None)


Row = tuple[Any, int, np.ndarray]  # a mistake, the number of its form, its gradient, every block relative to its size


def _table(solved: Solved) -> list[Row]:
    """Every form of every mistake at a problem, the truth first."""
    point, sizes = solved.point, _sizes(solved.point)
    rows: list[Row] = [(None, 0, _long(point.blocks(point.dpre), sizes))]
    for mistake in LIBRARY:
        for place, recipe in enumerate(itertools.islice(mistake.recipes(point), FORMS)):
            rows.append((mistake, place, _long(_by_recipe(point, recipe), sizes)))
    return rows


def _long(found: Blocks, sizes: Mapping[str, float]) -> np.ndarray:
    return np.concatenate([found[name].ravel() / sizes[name] for name in sorted(sizes)])


def _gradient(solved: Solved, table: list[Row], mistake: Mistake) -> Case | None:
    # the first form that is far from the truth and no legitimate approximation, unless it is one itself
    truth = table[0][2]
    for other, place, found in table[1:]:
        if other is mistake and np.all(np.isfinite(found)) and float(np.linalg.norm(found - truth)) > OFF:
            alike = [m for m, _, row in table[1:] if m is not mistake and _same(row, found, truth)]
            if mistake.legitimate or not any(m.legitimate for m in alike):
                flag = ("JFB" if mistake.name == "jfb" else "Neumann") if mistake.legitimate else "Gradient"
                result, names = "acceptable" if mistake.legitimate else "invalid", [m.name for m in alike]
                given = answer(solved, mistake.name, place)
                return _worth("", mistake.says, solved, result, [flag], mistake.name, place, names, given)
    return None


def _same(a: np.ndarray, b: np.ndarray, truth: np.ndarray) -> bool:
    return bool(np.linalg.norm(a - b) <= 1e-6 * np.linalg.norm(b - truth))


def _state(solved: Solved, mistake: ForwardMistake) -> Case | None:
    # the first form whose state is far from the equilibrium
    for place, _ in enumerate(itertools.islice(mistake.states(_forward(solved, solved.point.z)), FORMS)):
        z, z_star = _wrong_state(solved, mistake, place)[1], solved.point.z
        if np.max(norm(z - z_star)) > OFF * np.max(norm(z_star)):  # not of NaN
            flags, names = ["Forward", *["Unfinished"] * mistake.unfinished], _alike(solved, z, mistake)
            given = answer(solved, mistake.name, place)
            return _worth("", mistake.says, solved, "invalid", flags, mistake.name, place, names, given)
    return None


def _forward(solved: Solved, z: np.ndarray) -> Forward:
    return Forward(solved.layer, solved.point.x, z, solved.point.z)


def _alike(solved: Solved, z: np.ndarray, mistake: ForwardMistake) -> list[str]:
    # other mistakes whose own prediction from this state is this state
    others = [other for other in STATES.values() if other.name != mistake.name and not other.unfinished]
    made = [(other.name, wanted) for other in others for _, wanted in other.states(_forward(solved, z))]
    return [name for name, wanted in made if _same(wanted, z, solved.point.z)]


def cases() -> Iterator[Case]:
    """Every case."""
    yield from _usual()
    yield from _edges()
    yield from _kinks()
    yield from _mistakes()
