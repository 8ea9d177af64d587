"""Scaling curves of ours: time of one iteration in the sizes, iterations of a solve in tolerance and condition number.

Beside the time stands what the operation count predicts from the first point. Beside the iterations that the timed
solve took until its certificate said so stand those after which every sample was within the distance of u*, and
``log(||u_0 - u*||/distance)/(-log rho)`` for two factors rho: predicted by `typical`, guaranteed by the exact
contraction factor.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ... import mon
from ...arrays import in_double, largest, norm
from ...plotting.style import line_style
from ...splitting import rates, solve
from ...splitting.iterations import MAPS
from .. import bench_conv
from ..artefacts import Picture
from . import ours
from .layers import Layer, certified, dense, iteration_need, solve_need, tiered, wanted
from .machine import Place

__all__ = ["CURVES", "Curve", "Point", "curves", "picture"]

ACCURACY = 1e-3


class Point(NamedTuple):
    """A value of the parameter: time in ms, iterations, what is predicted of the time or of the iterations needed, the
    iterations needed and guaranteed, the certificate.
    """

    value: float
    median_ms: float
    minimum_ms: float
    iterations: int
    predicted: float
    gflop: float
    gbyte: float
    needed: int | None = None
    guaranteed: float | None = None
    certified: float | None = None


class Curve(NamedTuple):
    """Points along one parameter; `measured` names the column that `predicted` is to be compared with."""

    name: str
    parameter: str
    measured: str
    points: tuple[Point, ...]


def curves(level: str, where: Place, runs: int, seed: int) -> Iterator[Curve]:
    """Every curve of a level."""
    for name, (parameter, values, make) in CURVES[level].items():
        if name in ("tolerance", "condition"):
            yield _of_iterations(name, parameter, values, make, where, runs, seed)
        else:
            yield _of_time(name, parameter, values, make, where, runs, seed)


def _of_time(
    name: str, parameter: str, values: Sequence[float], make: Callable[..., Layer], where: Place, runs: int, seed: int
) -> Curve:
    made = {value: make(int(value), seed) for value in values}
    steps = {value: ours.steps(layer, where, _alpha(layer))[0] for value, layer in made.items()}
    times = _times({value: functools.partial(step.run, ()) for value, step in steps.items()}, where, runs)
    needs = {value: iteration_need(layer) for value, layer in made.items()}
    unit = times[values[0]][0] / needs[values[0]].operations
    return Curve(name, parameter, "median_ms", tuple(
        Point(value, *times[value], 1, unit * need.operations, 1e-9 * need.operations, 1e-9 * need.moved)
        for value, need in needs.items()
    ))  # fmt: skip


def _alpha(layer: Layer) -> float:
    return rates.best_alpha(layer.W, "peaceman-rachford")


def _of_iterations(
    name: str, parameter: str, values: Sequence[float], make: Callable[..., Any], where: Place, runs: int, seed: int
) -> Curve:
    points = []
    for value in values:
        layer, accuracy = make(value, seed)
        alpha, asked = _alpha(layer), wanted(layer, accuracy, 1)
        side = ours.solves(layer, where, alpha, 1, asked)[1]
        found = side.run(side.first)
        (times,) = _times({value: functools.partial(side.run, side.first)}, where, runs).values()
        G, need = rates.gap(layer.W), solve_need(layer, found.iterations)
        needed, length = _needed(layer, alpha, asked[0])
        digits = math.log(length / asked[0])
        predicted, guaranteed = (
            digits / -math.log(rho) for rho in (typical(G, alpha), rates.factor(G, "peaceman-rachford", alpha))
        )
        shown = rates.constants(G)[1] / layer.W.m if name == "condition" else value
        amounts = 1e-9 * need.operations, 1e-9 * need.moved
        bound = certified(layer, found.state)[0]
        points.append(Point(shown, *times, found.iterations[0], predicted, *amounts, needed, guaranteed, bound))
    return Curve(name, parameter, "iterations", tuple(points))


def typical(G: np.ndarray, alpha: float) -> float:
    r"""``||C||_F/sqrt(n)`` of ``C = (I - alpha G)(I + alpha G)^-1``: by how much a step shrinks a random error.

    A step multiplies the error by C and turns the signs of where relu is 0. Signs that have nothing to do with C leave
    of ``E ||C D e||^2`` what a random e has, ``||C||_F^2 ||e||^2/n``. No theorem: a worst case shrinks by ||C||_2 only.
    """
    identity = np.eye(G.shape[-1])
    C = 2 * np.linalg.inv(identity + alpha * G) - identity
    return float(np.linalg.norm(C) / math.sqrt(C.size / C.shape[-1]))


def _needed(layer: Layer, alpha: float, distance: float) -> tuple[int, float]:
    """Iterations from u = 0 after which every sample is within the distance of u*; the longest u*."""
    inclusion = mon.forward_inclusion(in_double(layer.W), in_double(layer.injection), layer.activation)
    exact = solve(inclusion, 0 * inclusion.b, alpha=alpha, tol=1e-4 * distance).u
    step, u, count = MAPS["peaceman-rachford"](inclusion, alpha), 0 * exact, 0
    while largest(norm(u - exact)) > distance:
        u, count = step(u), count + 1
    return count, largest(norm(exact))


def _times(runs_of: dict[float, Callable[[], object]], where: Place, runs: int) -> dict[float, tuple[float, float]]:
    """Median and minimum of every point in ms; the points take turns, for the machine may be slow for seconds."""

    def whole(run: Callable[[], object]) -> None:
        run()
        where.wait()

    sides = {str(value): functools.partial(whole, run) for value, run in runs_of.items()}
    found = bench_conv.interleaved(sides, runs, min(runs, bench_conv.BLOCK), rest=0.0)
    return {value: (1e3 * statistics.median(t), 1e3 * min(t)) for value, t in zip(runs_of, found.values(), strict=True)}


class _Sizes(NamedTuple):
    """What a level measures: the values of every curve, and of the other sizes what they leave fixed."""

    n: Sequence[int]
    channels: Sequence[int]
    sides: Sequence[int]
    samples: Sequence[int]
    tiers: Sequence[int]
    gaps: Sequence[float]  # m
    n_fixed: int
    images: int  # in a batch of them
    side: int
    tolerances: Sequence[float] = (1e-1, 1e-2, 1e-3, 1e-4)


_SIZES = {
    "quick": _Sizes(
        (32, 64, 128, 256), (8, 16, 32), (8, 16, 32), (32, 128, 512), (1, 2, 3), (1.0, 0.3, 0.1, 0.03), 87, 16, 16
    ),
    # so large that it is the operations which take the time
    "full": _Sizes(
        (512, 1024, 2048, 4096), (16, 32, 64, 128), (8, 16, 32, 64), (128, 256, 512, 1024), (1, 2, 3, 4),
        (1.0, 0.3, 0.1, 0.03, 0.01), 512, 128, 32,
    ),
}  # fmt: skip
CHANNELS, TIER_CHANNELS, SAMPLES = 32, 16, 128
Recipe = tuple[str, Sequence[float], Callable[..., Any]]


def _recipes(s: _Sizes) -> dict[str, Recipe]:
    n, side, images = s.n_fixed, s.side, s.images
    return {
        "n": (f"n, dense, batch {SAMPLES}", s.n, lambda value, seed: dense(value, 1.0, SAMPLES, seed)),
        "channels": (
            f"channels, {side} x {side} pixels, batch {images}", s.channels,
            lambda value, seed: tiered((value,), side, images, seed),
        ),
        "image-size": (
            f"side in pixels, {CHANNELS} channels, batch {images}", s.sides,
            lambda value, seed: tiered((CHANNELS,), value, images, seed),
        ),
        "batch": (f"samples, dense, n = {n}", s.samples, lambda value, seed: dense(n, 1.0, value, seed)),
        "tiers": (
            f"tiers of {TIER_CHANNELS} channels, from {side} x {side}, batch {images}", s.tiers,
            lambda value, seed: tiered((TIER_CHANNELS,) * value, side, images, seed),
        ),
        "tolerance": (
            f"distance over longest injection, n = {n}", s.tolerances,
            lambda value, seed: (dense(n, 1.0, SAMPLES, seed), value),
        ),
        "condition": (
            f"L/m, dense, n = {n}", s.gaps, lambda value, seed: (dense(n, value, SAMPLES, seed), ACCURACY)
        ),
    }  # fmt: skip


CURVES: dict[str, dict[str, Recipe]] = {level: _recipes(sizes) for level, sizes in _SIZES.items()}


def picture(curve: Curve) -> Picture:
    """What was measured and what is predicted, on logarithmic axes."""
    return Picture(functools.partial(_draw, curve), (4.8, 3.2))


def _draw(curve: Curve, figure: Any) -> None:
    axes, values = figure.add_subplot(), [p.value for p in curve.points]
    counted = curve.measured == "iterations"
    lines = {"median_ms": "measured", "predicted": "by the operation count"}
    if counted:
        lines = {name: name for name in ("needed", "predicted", "guaranteed")} | {"iterations": "until certified"}
    for i, (name, label) in enumerate(lines.items()):
        heights = np.array([getattr(p, name) for p in curve.points])
        axes.plot(values, heights, label=label, **line_style(i, len(values)))
    axes.set(xscale="log", yscale="log", xlabel=curve.parameter, ylabel="iterations" if counted else "ms an iteration")
    axes.set_xticks(values, [f"{value:.0f}" if value == int(value) else f"{value:.3g}" for value in values])
    axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    axes.legend(frameon=False)
