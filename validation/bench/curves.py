"""Scaling curves of ours: time of one iteration in the sizes, iterations of a solve in tolerance and condition number.

Beside the time stands what the operation count predicts from the first point; beside the iterations the number after
which the exact contraction factor of the step guarantees the accuracy: ``log(||u_0 - u*||/distance)/(-log rho)``.
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
from ...splitting import rates
from .. import bench_conv
from ..artefacts import Picture
from . import ours
from .layers import Layer, certified, dense, iteration_need, solve_need, tiered, wanted
from .machine import Place

__all__ = ["CURVES", "Curve", "Point", "curves", "picture"]

ACCURACY = 1e-3


class Point(NamedTuple):
    """A value of the parameter: time in ms, iterations, what is predicted of the one or the other, the certificate."""

    value: float
    median_ms: float
    minimum_ms: float
    iterations: int
    predicted: float
    gflop: float
    gbyte: float
    certified: float | None


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
    points: list[Point] = []
    for value in values:
        layer = make(int(value), seed)
        side, need = ours.steps(layer, where, rates.best_alpha(layer.W, "peaceman-rachford"))[-1], iteration_need(layer)
        times = _times(lambda side=side: side.run(()), where, runs)  # type: ignore[misc]
        first = points[0] if points else None
        predicted = 1e-9 * need.operations / first.gflop * first.median_ms if first else times[0]
        points.append(Point(value, *times, 1, predicted, 1e-9 * need.operations, 1e-9 * need.moved, None))
    return Curve(name, parameter, "median_ms", tuple(points))


def _of_iterations(
    name: str, parameter: str, values: Sequence[float], make: Callable[..., Any], where: Place, runs: int, seed: int
) -> Curve:
    points = []
    for value in values:
        layer, accuracy = make(value, seed)
        alpha, asked = rates.best_alpha(layer.W, "peaceman-rachford"), wanted(layer, accuracy, 1)
        side = ours.solves(layer, where, alpha, 1, asked)[1]
        found = side.run(side.first)
        times = _times(lambda side=side: side.run(side.first), where, runs)  # type: ignore[misc]
        need, shown = solve_need(layer, found.iterations), rates.constants(rates.gap(layer.W))[1] / layer.W.m
        points.append(
            Point(
                shown if name == "condition" else value, *times, found.iterations[0],
                guaranteed(layer, alpha, asked[0]), 1e-9 * need.operations, 1e-9 * need.moved,
                certified(layer, found.state)[0],
            )
        )  # fmt: skip
    return Curve(name, parameter, "iterations", tuple(points))


def guaranteed(layer: Layer, alpha: float, distance: float) -> float:
    """Iterations from u = 0 after which the exact factor brings every sample within the distance."""
    injection = in_double(layer.injection)
    exact = mon.equilibrium(in_double(layer.W), injection, layer.activation, alpha=alpha, tol=1e-4 * distance)
    rho = rates.factor(rates.gap(layer.W), "peaceman-rachford", alpha)
    return math.log(largest(norm(exact.u)) / distance) / -math.log(rho)


def _times(run: Callable[[], object], where: Place, runs: int) -> tuple[float, float]:
    def whole() -> None:
        run()
        where.wait()

    found = bench_conv.interleaved({"": whole}, runs, min(runs, bench_conv.BLOCK))[""]
    return 1e3 * statistics.median(found), 1e3 * min(found)


def _batch(value: int, seed: int, n: int = 87) -> Layer:
    return dense(n, 1.0, value, seed)


def _of_n(value: int, seed: int) -> Layer:
    return dense(value, 1.0, 128, seed)


def _channels(value: int, seed: int) -> Layer:
    return tiered((value,), 16, 16, seed)


def _side(value: int, seed: int) -> Layer:
    return tiered((8,), value, 16, seed)


def _tiers(value: int, seed: int) -> Layer:
    return tiered((8,) * value, 32, 16, seed)


def _tolerance(value: float, seed: int) -> tuple[Layer, float]:
    return dense(87, 1.0, 128, seed), value


def _condition(value: float, seed: int) -> tuple[Layer, float]:
    return dense(87, value, 128, seed), ACCURACY


Recipe = tuple[str, Sequence[float], Callable[..., Any]]
_PARAMETERS: dict[str, tuple[str, Callable[..., Any]]] = {
    "n": ("n, dense, batch 128", _of_n),
    "channels": ("channels, 16 x 16 pixels, batch 16", _channels),
    "image-size": ("side in pixels, 8 channels, batch 16", _side),
    "batch": ("samples, dense, n = 87", _batch),
    "tiers": ("tiers of 8 channels, from 32 x 32, batch 16", _tiers),
    "tolerance": ("certified distance over longest injection, n = 87", _tolerance),
    "condition": ("L/m, dense, n = 87", _condition),
}
_VALUES: dict[str, dict[str, Sequence[float]]] = {
    "quick": {
        "n": (32, 64, 128, 256), "channels": (8, 16, 32), "image-size": (8, 16, 32), "batch": (32, 128, 512),
        "tiers": (1, 2, 3), "tolerance": (1e-1, 1e-2, 1e-3, 1e-4), "condition": (1.0, 0.3, 0.1, 0.03),
    },
    "full": {
        "n": (64, 128, 256, 512, 1024), "channels": (8, 16, 32, 64, 128), "image-size": (8, 16, 32, 64),
        "batch": (32, 64, 128, 256, 512, 1024), "tiers": (1, 2, 3, 4),
        "tolerance": (1e-1, 1e-2, 1e-3, 1e-4), "condition": (1.0, 0.3, 0.1, 0.03, 0.01),
    },
}  # fmt: skip
CURVES: dict[str, dict[str, Recipe]] = {
    level: {name: (_PARAMETERS[name][0], values, _PARAMETERS[name][1]) for name, values in table.items()}
    for level, table in _VALUES.items()
}


def picture(curve: Curve) -> Picture:
    """What was measured and what is predicted, on logarithmic axes."""
    return Picture(functools.partial(_draw, curve), (4.8, 3.2))


def _draw(curve: Curve, figure: Any) -> None:
    axes, values = figure.add_subplot(), [p.value for p in curve.points]
    counted = curve.measured == "iterations"
    labels = ("iterations", "guaranteed by the exact factor") if counted else ("measured", "by the operation count")
    for i, (label, name) in enumerate(zip(labels, (curve.measured, "predicted"), strict=True)):
        heights = np.array([getattr(p, name) for p in curve.points])
        axes.plot(values, heights, label=label, **line_style(i, len(values)))
    axes.set(xscale="log", yscale="log", xlabel=curve.parameter, ylabel="iterations" if counted else "ms an iteration")
    axes.set_xticks(values, [f"{value:.3g}" for value in values])
    axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    axes.legend(frameon=False)
