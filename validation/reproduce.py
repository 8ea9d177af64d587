"""``implicitref reproduce``: the papers' tables and figures made anew on this machine, beside what is printed."""

from __future__ import annotations

import functools
import json
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import datasets
from ..archives import unwritable, write_atomically
from ..errors import ConvergenceError
from . import jfb_figures, mon_figures, run, sequential_figures, sequential_images, sequential_tables, table_d1
from .artefacts import Line, Picture, dots, missing_for_pictures, save
from .verdict import Verdict, compare

__all__ = ["EXPERIMENTS", "Finding", "main"]

OK, FAILED, USAGE = 0, 1, 2
EXTRA = "pip install 'implicitref[report]'"
GROWS, NOTHING = "grows in training", "no number"


class Finding(NamedTuple):
    """What an experiment gave: a table, what it is to show, lines of the CSV, a picture, what JSON holds beyond."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    verdicts: Sequence[Verdict]
    records: Sequence[Mapping[str, Any]]
    picture: Picture
    details: Mapping[str, Any] = {}


class Experiment(NamedTuple):
    """A function of the command's options, what it shows, about how long it takes, which options it takes."""

    run: Callable[[Namespace], Finding]
    shows: str
    takes: str
    options: frozenset[str] = frozenset()


def main(namespace: Namespace) -> int:
    """Run, print, write. 0: it shows what it is to show; 1: it does not, or it failed; 2: usage."""
    if namespace.list:
        return _list()
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
    try:
        _write(found, namespace, seconds)
    except OSError as error:
        return _complain(f"the files could not be written: {error}", FAILED)
    return OK if all(v.as_registered for v in found.verdicts) else FAILED


def _list() -> int:
    run.plain([("name", "what", "takes about"), *((name, e.shows, e.takes) for name, e in EXPERIMENTS.items())])
    return OK


def _usage(namespace: Namespace) -> str:
    if namespace.experiment is None:
        return f"name an experiment: {', '.join(EXPERIMENTS)}. --list says what they are."
    if namespace.experiment not in EXPERIMENTS:
        return f"there is no experiment {namespace.experiment!r}; there are {', '.join(EXPERIMENTS)}."
    options = EXPERIMENTS[namespace.experiment].options
    for name in sorted({"data", "checkpoint", "resume"} - options):
        if getattr(namespace, name):
            return f"--{name} means nothing to {namespace.experiment}."
    if namespace.seed < 0:
        return f"--seed must be >= 0; got {namespace.seed}."
    if namespace.resume and not namespace.checkpoint:
        return "--resume needs --checkpoint F."
    if namespace.out.exists() and not namespace.out.is_dir():
        return f"--out must be a folder; {str(namespace.out)!r} is a file."
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
# MON


def _table_d1(namespace: Namespace) -> Finding:
    networks = table_d1.networks()
    rows = [(name, f"{count:,}", f"{formula:,}", printed) for name, count, formula, printed in networks]
    header = ("network", "parameters counted", "by formula", "printed in Table D1")
    lines = [Line(name, (count, count, count), printed) for name, count, _, printed in networks]
    picture = Picture(lambda figure: dots(figure, [("parameters", lines, True)]), (7.5, 3.8))
    verdicts = table_d1.counts(namespace.seed, 1.0)
    fields = ("network", "counted", "formula", "printed")
    records = [dict(zip(fields, network, strict=True)) for network in networks]
    return Finding(header, [(*row[:3], f"{row[3]:,}") for row in rows], verdicts, records, picture)


def _iterations(way: str, namespace: Namespace) -> Finding:
    data = datasets.load(namespace.data or "digits")
    with run.one_thread():
        rows = mon_figures.along(data, namespace.seed, mon_figures.EPOCHS, _tell)
    claim = {"forward": "MON-Fig2", "backward": "MON-FigE2"}[way]
    names = {"L = ||I - W||": "lipschitz"}
    names |= {
        f"iterations {way}, {label}": f"{way}_at_{key}" for label, key in (("alpha = 1", "1"), ("best alpha", "best"))
    }
    first, last = rows[0], rows[-1]
    table = [(name, *(f"{getattr(row, key):.3g}" for row in (first, last)), GROWS) for name, key in names.items()]
    verdicts = [
        compare(claim, f"{name}: last over first", getattr(last, key) / getattr(first, key), ">=", 1)
        for name, key in names.items()
    ]
    picture = Picture(lambda figure: mon_figures.draw_iterations(figure, rows, way), (7.5, 3.2))
    header = ("", "before training", f"after {last.epoch} epochs", "printed (CIFAR-10, multi-tier)")
    return Finding(header, table, verdicts, [row._asdict() for row in rows], picture, {"data": data.name})


def _convergence(namespace: Namespace) -> Finding:
    data = datasets.load(namespace.data or "digits")
    with run.one_thread():
        network = mon_figures.trained(data, namespace.seed, mon_figures.EPOCHS, _tell)
        found = mon_figures.curves(network, data.x_test[: mon_figures.IMAGES])
    limit = mon_figures.limit(network)
    rows = [(c.method, mon_figures.fraction(c.alpha), f"{c.factor:.4f}", _count(c), mon_figures.said(c)) for c in found]
    header = ("method", "alpha", "proven factor", "iterations to 1e-3", "printed (CIFAR-10, multi-tier)")
    picture = Picture(lambda figure: mon_figures.draw_convergence(figure, found), (7.5, 3.8))
    verdicts = mon_figures.shown(found, limit, namespace.seed)
    return Finding(header, rows, verdicts, mon_figures.records(found), picture, {"data": data.name, "limit": limit})


def _count(curve: mon_figures.Curve) -> str:
    found = curve.iterations()
    return f"{found:g}" if found < np.inf else f"not in {len(curve.errors)}"


# ------------------------------------------------------------------------------------------------
# JFB


def _rules(claim: str, names: Sequence[str], printed: Mapping[str, str], namespace: Namespace) -> Finding:
    with run.one_thread():
        found = jfb_figures.curves(names, namespace.seed, tell=_tell)
    rows = [
        (name, f"{jfb_figures.seconds_an_epoch(p):.3f}", *_last(p), printed.get(name, NOTHING))
        for name, p in found.items()
    ]
    header = ("rule", "seconds an epoch", "loss", "test accuracy", "printed")
    picture = Picture(lambda figure: jfb_figures.draw(figure, found), (7.5, 3.6))
    return Finding(header, rows, jfb_figures.verdicts(claim, found), jfb_figures.records(found), picture)


def _last(points: Sequence[Mapping[str, float]]) -> tuple[str, str]:
    return f"{points[-1]['loss']:.4f}", f"{100 * points[-1]['accuracy']:.2f} %"


# of CIFAR-10, a residual network on a GPU [JFB-Tab2]; Figure 6 has no numbers in the text
PRINTED_5 = {"jfb": "146.6 s, 93.67 % (CIFAR-10)", "cg to .1": "530.9 s, 87.9 % (CIFAR-10)"}
PRINTED_6 = {"jfb": "the fastest, accuracy competitive (MNIST)"}


# ------------------------------------------------------------------------------------------------
# GREEDY


def _graph(namespace: Namespace) -> Finding:
    display = sequential_figures.graph(namespace.seed)
    L, kinds = len(display.sizes), [display.kind(edge) for edge in display.edges]
    among, output = len(kinds) - kinds.count("output"), kinds.count("output")
    rows = [("among the input and the blocks", str(among), f"L (L + 1)/2 = {L * (L + 1) // 2}")]
    rows += [("to the output", str(output), f"drawn, not counted: {L}")]
    verdicts = [
        compare("GREEDY-SecIII-connections", "connections among the input and the blocks", among, "==", L * (L + 1) / 2)
    ]
    records = [edge._asdict() | {"kind": kind} for edge, kind in zip(display.edges, kinds, strict=True)]
    picture = Picture(lambda figure: sequential_figures.draw_graph(figure, display), (7.2, 3.4))
    return Finding((f"connections, L = {L}", "here", "printed"), rows, verdicts, records, picture)


def _scheme(namespace: Namespace) -> Finding:
    found = sequential_figures.scheme(namespace.seed)
    stages = range(1, len(found.numbers) + 1)
    changed = [[sequential_figures.name(at) for at, when in found.stages.items() if i in when] for i in stages]
    printed = [sequential_figures.wanted(i) for i in stages]
    rows = [
        (str(i), " ".join(sorted(own)), str(number), " ".join(sorted(due)))
        for i, own, number, due in zip(stages, changed, found.numbers, printed, strict=True)
    ]
    right = sum(sorted(own) == sorted(due) for own, due in zip(changed, printed, strict=True))
    verdicts = [
        compare("GREEDY-Alg1", "stages that change what the figure says and nothing else", right, "==", len(rows))
    ]
    records = [
        {"matrix": sequential_figures.name(at), "to": at[0], "from": at[1], "stages": " ".join(map(str, when))}
        for at, when in found.stages.items()
    ]
    picture = Picture(lambda figure: sequential_figures.draw_scheme(figure, found), (4.6, 4.6))
    return Finding(("stage", "changed here", "numbers", "printed: optimised"), rows, verdicts, records, picture)


def _interpolation(claim: str, task: str, namespace: Namespace) -> Finding:
    with run.one_thread():  # small products
        rows = sequential_tables.interpolation(task, namespace.seed, tell=_tell)
    verdicts = sequential_tables.verdicts(claim, task, rows)
    cells = [_cells(row, f"{row.score:.3f} ({min(row.scores):.3f} to {max(row.scores):.3f})", "") for row in rows]
    return _tabled(rows, cells, verdicts, "test RMSE", {})


def _images(namespace: Namespace) -> Finding:
    data = datasets.load(namespace.data or "mnist")
    checkpoint = sequential_images.Checkpoint(namespace.checkpoint, namespace.resume) if namespace.checkpoint else None
    found = sequential_images.classification(data, namespace.seed, checkpoint, tell=_tell)
    cells = [_cells(row, f"{row.score:.2f} %", " %") for row in found.rows]
    details = {"data": data.name, "stages": [stage._asdict() for stage in found.stages]}
    return _tabled(found.rows, cells, sequential_images.verdicts(found), "test accuracy", details)


def _tabled(rows: Any, cells: Any, verdicts: Any, score: str, details: Mapping[str, Any]) -> Finding:
    panels = [
        (
            score,
            [Line(r.model, (min(r.scores), r.score, max(r.scores)), r.printed and r.printed[1]) for r in rows],
            False,
        ),
        ("seconds", [Line(r.model, (r.seconds,) * 3, r.printed and r.printed[0]) for r in rows], True),
    ]
    records = [
        {
            "model": r.model, "weights": r.weights, "seconds": r.seconds, score: r.score,
            "least": min(r.scores), "largest": max(r.scores),
            "printed seconds": r.printed and r.printed[0], f"printed {score}": r.printed and r.printed[1],
        }
        for r in rows
    ]  # fmt: skip
    everything = {"rows": [row._asdict() for row in rows], **details}
    return Finding(
        _header(score),
        cells,
        verdicts,
        records,
        Picture(lambda figure: dots(figure, panels), (8, 0.4 * len(rows) + 1.4)),
        everything,
    )


def _header(score: str) -> tuple[str, ...]:
    return "model", "weights", "seconds", score, "printed: seconds", score


def _cells(row: Any, score: str, unit: str) -> tuple[str, ...]:
    printed = [f"{row.printed[0]:g}", f"{row.printed[1]:g}{unit}"] if row.printed else ["", ""]
    return (row.model, f"{row.weights:,}", f"{row.seconds:.3g}", score, *printed)


def _interpolated(task: str, claim: str, namespace: Namespace) -> Finding:
    with run.one_thread():
        found = sequential_figures.curves(task, namespace.seed)
    printed = sequential_tables.PRINTED[task][sequential_tables.ADAM][1]
    rows = [
        (
            "mean test RMSE of the models shown",
            f"{found.score:.3f}",
            f"{printed} (Table {'I' if task == 'smooth' else 'II'})",
        )
    ]
    verdicts = [compare(claim, "mean test RMSE of the models shown, that printed", found.score, "<=", printed)]
    picture = Picture(lambda figure: sequential_figures.draw(figure, found))
    return Finding(("", "here", "printed"), rows, verdicts, sequential_figures.records(found), picture)


DATA = frozenset({"data"})
EXPERIMENTS = {
    "mon-table-d1": Experiment(_table_d1, "MON Table D1: parameter counts of the seven networks", "2 s"),
    "mon-figure-2": Experiment(
        functools.partial(_iterations, "forward"), "MON Figure 2: iterations forward along training", "20 s", DATA
    ),
    "mon-figure-3": Experiment(_convergence, "MON Figure 3: convergence of both splittings over alpha", "20 s", DATA),
    "mon-figure-e2": Experiment(
        functools.partial(_iterations, "backward"), "MON Figure E2: iterations backward along training", "20 s", DATA
    ),
    "jfb-figure-5": Experiment(
        functools.partial(_rules, "JFB-Fig5", jfb_figures.COMPARED, PRINTED_5),
        "JFB Figure 5: Jacobian-free against Jacobian-based training",
        "25 s",
    ),
    "jfb-figure-6": Experiment(
        functools.partial(_rules, "JFB-Fig6", jfb_figures.TRUNCATED, PRINTED_6),
        "JFB Figure 6: truncated Neumann series in training",
        "30 s",
    ),
    "sequential-figure-1": Experiment(_graph, "GREEDY Figure 1: the graph of a model trained here", "1 s"),
    "sequential-figure-2": Experiment(_scheme, "GREEDY Figure 2: what each stage optimises", "1 s"),
    "sequential-figure-3": Experiment(
        functools.partial(_interpolated, "smooth", "GREEDY-Fig3"), "GREEDY Figure 3: the smooth function", "5 s"
    ),
    "sequential-figure-4": Experiment(
        functools.partial(_interpolated, "nonsmooth", "GREEDY-Fig4"), "GREEDY Figure 4: the nonsmooth function", "5 s"
    ),
    "sequential-table-1": Experiment(
        functools.partial(_interpolation, "GREEDY-Tab1", "smooth"),
        "GREEDY Table I: the smooth function, all models",
        "25 min",
    ),
    "sequential-table-2": Experiment(
        functools.partial(_interpolation, "GREEDY-Tab2", "nonsmooth"),
        "GREEDY Table II: the nonsmooth function, all models",
        "25 min",
    ),
    "sequential-table-3": Experiment(
        _images,
        "GREEDY Table III: MNIST or Fashion-MNIST, all models",
        "20 min",
        frozenset({"data", "checkpoint", "resume"}),
    ),
}


# ------------------------------------------------------------------------------------------------
# what a person and what a program reads


def _show(found: Finding, name: str, seconds: float) -> None:
    print(f"{name}, {seconds:.1f} s")
    run.plain([found.header, *found.rows])
    for v in found.verdicts:
        print(f"{v.statement}: {run.number(v.measured)} {v.relation} {run.number(v.predicted)}: {_word(v)}")


def _word(v: Verdict) -> str:
    if v.form == "as implemented":
        return "holds" if v.holds else "DOES NOT HOLD"
    return f"{v.form}, {'HOLDS' if v.holds else 'does not hold'}"


def _write(found: Finding, namespace: Namespace, seconds: float) -> None:
    paths = save(namespace.out / namespace.experiment, found.records, found.picture)
    if namespace.json:
        report = json.dumps(as_json(found, namespace, seconds, paths), indent=1, allow_nan=False) + "\n"
        write_atomically(namespace.json, lambda file: file.write(report.encode()))
        paths = [*paths, namespace.json]
    for path in paths:
        print(f"wrote {path}")
    missing = missing_for_pictures()
    if missing:
        print(f"no PNG and SVG: {missing} is missing. Install it with: {EXTRA}", file=sys.stderr)


def as_json(found: Finding, namespace: Namespace, seconds: float, paths: Sequence[Path]) -> dict[str, Any]:
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
        "files": [str(path) for path in paths],
    }
