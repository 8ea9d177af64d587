"""``implicitref reproduce``: the papers' tables and figures made anew on this machine, beside what is printed."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .. import datasets
from ..errors import ConvergenceError
from ..training.archives import unwritable, write_atomically
from . import run, sequential_figures, sequential_images, sequential_tables
from .verdict import Verdict

__all__ = ["EXPERIMENTS", "Finding", "main"]

OK, FAILED, USAGE = 0, 1, 2


class Finding(NamedTuple):
    """What an experiment gave: a table, what it is to show, what JSON holds beyond that, files written."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    verdicts: Sequence[Verdict]
    details: dict[str, Any]
    files: Sequence[Path] = ()


class Experiment(NamedTuple):
    """A function of the command's options, and which of them mean something to it."""

    run: Callable[[Namespace], Finding]
    options: frozenset[str]


def main(namespace: Namespace) -> int:
    """Run, print, write. 0: it shows what it is to show; 1: it does not, or it failed; 2: usage."""
    complaint = _usage(namespace)
    if complaint:
        return _complain(complaint, USAGE)
    began = time.perf_counter()
    try:
        found = EXPERIMENTS[namespace.experiment].run(namespace)
    except (ValueError, TypeError, OSError, ImportError) as error:
        return _complain(error, USAGE)
    except (ConvergenceError, ArithmeticError) as error:
        return _complain(f"{namespace.experiment} failed: {error}", FAILED)
    seconds = time.perf_counter() - began
    _show(found, namespace.experiment, seconds)
    if namespace.json:
        report = json.dumps(as_json(found, namespace, seconds), indent=1, allow_nan=False) + "\n"
        write_atomically(namespace.json, lambda file: file.write(report.encode()))
        print(f"wrote {namespace.json}")
    return OK if all(v.as_registered for v in found.verdicts) else FAILED


def _usage(namespace: Namespace) -> str:
    if namespace.experiment not in EXPERIMENTS:
        return f"there is no experiment {namespace.experiment!r}; there are {', '.join(EXPERIMENTS)}."
    options = EXPERIMENTS[namespace.experiment].options
    for name in sorted({"data", "checkpoint", "resume", "out"} - options):
        if getattr(namespace, name):
            return f"--{name} means nothing to {namespace.experiment}."
    if namespace.seed < 0:
        return f"--seed must be >= 0; got {namespace.seed}."
    if namespace.resume and not namespace.checkpoint:
        return "--resume needs --checkpoint F."
    paths = [path for path in (namespace.json, namespace.checkpoint) if path is not None]
    return next(filter(None, map(unwritable, paths)), "")


def _complain(message: object, status: int) -> int:
    print(f"implicitref reproduce: {message}", file=sys.stderr)
    return status


def _tell(step: str) -> None:
    """Who waits at a terminal sees what is being trained."""
    if sys.stderr.isatty():
        print(step, file=sys.stderr)


# ------------------------------------------------------------------------------------------------
# the experiments


def _interpolation(claim: str, task: str) -> Callable[[Namespace], Finding]:
    def experiment(namespace: Namespace) -> Finding:
        with run.one_thread():  # small products
            rows = sequential_tables.interpolation(task, namespace.seed, tell=_tell)
        verdicts = sequential_tables.verdicts(claim, task, rows)
        cells = [_cells(row, f"{row.score:.3f} ({min(row.scores):.3f} to {max(row.scores):.3f})", "") for row in rows]
        return Finding(_header("test RMSE"), cells, verdicts, {"rows": [row._asdict() for row in rows]})

    return experiment


def _images(namespace: Namespace) -> Finding:
    data = datasets.load(namespace.data or "mnist")
    checkpoint = sequential_images.Checkpoint(namespace.checkpoint, namespace.resume) if namespace.checkpoint else None
    found = sequential_images.classification(data, namespace.seed, checkpoint, tell=_tell)
    cells = [_cells(row, f"{row.score:.2f} %", " %") for row in found.rows]
    details = {"rows": [row._asdict() for row in found.rows], "stages": [stage._asdict() for stage in found.stages]}
    verdicts = sequential_images.verdicts(found)
    return Finding(_header("test accuracy"), cells, verdicts, {"data": data.name, **details})


def _figure(task: str) -> Callable[[Namespace], Finding]:
    def experiment(namespace: Namespace) -> Finding:
        folder = namespace.out or Path()
        folder.mkdir(parents=True, exist_ok=True)
        with run.one_thread():
            curves = sequential_figures.curves(task, namespace.seed)
        return Finding((), (), (), {}, sequential_figures.draw(curves, folder / namespace.experiment))

    return experiment


EXPERIMENTS = {
    "sequential-table-1": Experiment(_interpolation("GREEDY-Tab1", "smooth"), frozenset()),
    "sequential-table-2": Experiment(_interpolation("GREEDY-Tab2", "nonsmooth"), frozenset()),
    "sequential-table-3": Experiment(_images, frozenset({"data", "checkpoint", "resume"})),
    "sequential-figure-3": Experiment(_figure("smooth"), frozenset({"out"})),
    "sequential-figure-4": Experiment(_figure("nonsmooth"), frozenset({"out"})),
}


# ------------------------------------------------------------------------------------------------
# what a person and what a program reads


def _header(score: str) -> tuple[str, ...]:
    return "model", "weights", "seconds", score, "printed: seconds", score


def _cells(row: Any, score: str, unit: str) -> tuple[str, ...]:
    printed = [f"{row.printed[0]:g}", f"{row.printed[1]:g}{unit}"] if row.printed else ["", ""]
    return (row.model, f"{row.weights:,}", f"{row.seconds:.3g}", score, *printed)


def _show(found: Finding, name: str, seconds: float) -> None:
    print(f"{name}, {seconds:.1f} s")
    if found.rows:
        run.plain([found.header, *found.rows])
    for v in found.verdicts:
        word = "holds" if v.as_registered else "DOES NOT HOLD"
        print(f"{v.statement}: {run.number(v.measured)} {v.relation} {run.number(v.predicted)}: {word}")
    for path in found.files:
        print(f"wrote {path}")


def as_json(found: Finding, namespace: Namespace, seconds: float) -> dict[str, Any]:
    """The report."""
    return {
        "schema": "implicitref-experiment",
        "version": 1,
        "experiment": namespace.experiment,
        "environment": run.environment(),
        "seed": namespace.seed,
        "seconds": seconds,
        **found.details,
        "verdicts": [run.verdict_entry(v) for v in found.verdicts],
        "files": [str(path) for path in found.files],
    }
