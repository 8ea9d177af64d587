"""Sides that compute the same, brought to one certified accuracy, timed in alternating blocks, certified once more."""

from __future__ import annotations

import math
import operator
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ...errors import ConvergenceError
from .. import bench_conv
from .machine import Need, Place, roofline

__all__ = ["ABSENT", "FAILED", "MEASURED", "OFF", "OURS", "Found", "Row", "Side", "Task", "measure"]

OURS = bench_conv.OURS
MEASURED, OFF, FAILED, ABSENT = "measured", "off", "failed", "absent"
TIGHTEST = 1e-6  # of relative changes in float32: below, a published loop may never stop
TRIES, PATIENCE = 10, 60.0  # to find a tolerance; seconds of a run after which no other is tried
LONG = 0.1  # seconds of a call
ENOUGH, MOST = 2.0, 20  # seconds of a side's short calls, and how many times as many of them as were asked for
NEAR = 1.1  # how near to the largest tolerance that serves


class Found(NamedTuple):
    """What a side computed: arrays of any library, the counts of its passes."""

    state: tuple[Any, ...] = ()
    iterations: tuple[int, ...] = ()


class Side(NamedTuple):
    """One way to compute a task: `run(tolerances)`, one tolerance a pass, none where nothing is solved."""

    name: str
    run: Callable[[tuple[float, ...]], Found]
    first: tuple[float, ...] = ()  # the tolerances tried first


class Task(NamedTuple):
    """What several sides compute: the distances of their states that are asked for and found by one function."""

    case: str
    name: str
    sides: Sequence[Side]
    absent: dict[str, str] = {}  # sides that cannot be run here, and why
    certify: Callable[[tuple[Any, ...]], tuple[float, ...]] = lambda state: ()
    wanted: tuple[float, ...] = ()
    need: Callable[[tuple[int, ...]], Need] | None = None  # of ours
    state_bytes: float = math.inf
    end: Callable[[], None] = lambda: None  # of what the sides need while they are measured


class Row(NamedTuple):
    """A line of the report. Times in ms; ratio is ours over this side's; fraction is of the roofline."""

    case: str
    task: str
    side: str
    state: str
    note: str = ""
    median_ms: float | None = None
    minimum_ms: float | None = None
    ratio: float | None = None
    iterations: tuple[int, ...] = ()
    certified: tuple[float, ...] = ()
    wanted: tuple[float, ...] = ()
    gflop: float | None = None
    gbyte: float | None = None
    bound: str | None = None
    fraction: float | None = None


class _Ready(NamedTuple):
    """A side with its tolerances, or what keeps it from being timed."""

    side: Side
    tols: tuple[float, ...]
    problem: str = ""
    state: str = FAILED


def measure(task: Task, where: Place, machine: dict[str, float], runs: int) -> list[Row]:
    """The rows of a task, ours first."""
    ready = [_ready(task, side) for side in task.sides]
    last: dict[str, Found] = {}

    def call(one: _Ready) -> Callable[[], None]:
        def run() -> None:
            last[one.side.name] = one.side.run(one.tols)
            where.wait()

        return run

    calls = {one.side.name: call(one) for one in ready if not one.problem}
    times = _alternating(calls, runs) if calls else {}
    rows = [_row(task, one, times, last, machine) for one in ready]
    return [*rows, *(Row(task.case, task.name, name, ABSENT, why) for name, why in task.absent.items())]


def _alternating(calls: dict[str, Callable[[], None]], runs: int) -> dict[str, list[float]]:
    """Seconds of every call. A machine that others share is slow for seconds: long calls take turns one by one."""
    once = bench_conv.interleaved(calls, 1, block=1, settle=0, rest=0.0)
    slowest = max(1e-6, *(seconds for (seconds,) in once.values()))
    if slowest < LONG:  # and short ones are repeated for as long, so that no such moment falls on one side
        runs = max(runs, min(MOST * runs, math.ceil(ENOUGH / slowest)))
        block = max(bench_conv.BLOCK, math.ceil(bench_conv.REST / slowest))
        return bench_conv.interleaved(calls, runs, min(runs, block))
    return bench_conv.interleaved(calls, runs, block=1, settle=1, rest=0.0)


def _ready(task: Task, side: Side) -> _Ready:
    try:
        return _calibrated(task, side)
    except ConvergenceError as error:
        return _Ready(side, (), str(error))
    except Exception as error:  # a peer may raise anything; what it said stands in its row
        if side.name.startswith(OURS):
            raise
        return _Ready(side, (), f"{type(error).__name__}: {error}")


def _calibrated(task: Task, side: Side) -> _Ready:
    if not side.first:
        return _Ready(side, ())
    tols, reached = calibrated(side, task.certify, task.wanted)
    good = all(r <= w for r, w in zip(reached, task.wanted, strict=True))
    return _Ready(side, tols, "" if good else _off(reached, task.wanted), OFF)


def calibrated(
    side: Side, certify: Callable[[tuple[Any, ...]], tuple[float, ...]], wanted: tuple[float, ...]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The largest tolerances found by which the certified distances are at most those wanted, and these distances.

    Every side is brought as near to what is wanted, so that none iterates longer than it has to. Where no tolerance
    does, the last that was tried.
    """
    tols, reached = side.first, tuple[float, ...]()
    best, known = tuple[float, ...](), reached
    low, high = [0.0] * len(tols), [math.inf] * len(tols)  # of every pass: the largest that served, the smallest not
    for _ in range(TRIES):
        began = time.perf_counter()
        found = side.run(tols)
        slow, reached = time.perf_counter() - began > PATIENCE, certify(found.state)
        for i, (t, r, w) in enumerate(zip(tols, reached, wanted, strict=True)):
            low[i], high[i] = (max(low[i], t), high[i]) if r <= w else (low[i], min(high[i], t))
        if all(map(operator.le, reached, wanted)) and (not best or math.prod(tols) > math.prod(best)):
            best, known = tols, reached
        if best:
            further = tuple(_nearer(*each) for each in zip(tols, reached, wanted, low, high, strict=True))
        else:  # the certificate of the second pass rests on the first: a sign of J that is open may be taken wrongly
            further = tuple(t * min(0.5, _correction(r, w)) for t, r, w in zip(tols, reached, wanted, strict=True))
        further = tuple(max(TIGHTEST, t) for t in further)
        if slow or further in (tols, best):
            break
        tols = further
    return (best, known) if best else (tols, reached)


def _nearer(tol: float, reached: float, wanted: float, low: float, high: float) -> float:
    """Towards the largest tolerance that serves: half way to one that does not, or by the distance reached."""
    if 0 < low < high < math.inf:
        return math.sqrt(low * high) if high > NEAR * low else low
    return tol if reached <= wanted <= NEAR * reached else tol * _correction(reached, wanted)


def _correction(reached: float, wanted: float) -> float:
    """What a tolerance is to be multiplied by: distances go with it."""
    return min(10.0, max(1e-3, 0.9 * wanted / reached)) if 0 < reached < math.inf else 0.01 if reached else 10.0


def _row(
    task: Task, one: _Ready, times: dict[str, list[float]], last: dict[str, Found], machine: dict[str, float]
) -> Row:
    name = one.side.name
    if one.problem:
        return Row(task.case, task.name, name, one.state, one.problem, wanted=task.wanted)
    median, found = 1e3 * statistics.median(times[name]), last[name]
    reached = task.certify(found.state)
    good = all(r <= w for r, w in zip(reached, task.wanted, strict=True))
    ours = statistics.median(times[OURS]) * 1e3 if OURS in times else None
    row = Row(
        task.case, task.name, name, MEASURED if good else OFF, "" if good else _off(reached, task.wanted),
        median, 1e3 * min(times[name]), None if ours is None or name == OURS else ours / median,
        found.iterations, reached, task.wanted,
    )  # fmt: skip
    if task.need is None or name != OURS:
        return row
    need = task.need(found.iterations)
    limits = roofline(need, machine, task.state_bytes, median)
    return row._replace(gflop=1e-9 * need.operations, gbyte=1e-9 * need.moved, **limits)


def _off(reached: tuple[float, ...], wanted: tuple[float, ...]) -> str:
    worst = max(zip(reached, wanted, strict=True), key=lambda pair: pair[0] / pair[1])
    return f"certified distance {worst[0]:.1e} > {worst[1]:.1e}: no solution"
