"""``implicitref verify``: every registered claim checked on this machine, a table, and a report as JSON and HTML."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import json
import math
import os
import platform
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from .. import __version__
from ..claims import Claim, entries
from ..errors import ConvergenceError
from ..training.archives import unwritable
from .verdict import IMPLEMENTED, PRINTED, Verdict

__all__ = ["Outcome", "as_json", "check", "main", "selected"]

AGREES, DISAGREES, INCONCLUSIVE, DEFINITION = "as registered", "disagrees", "inconclusive", "definition"
OK, FAILED, USAGE, UNDECIDED, INTERRUPTED = 0, 1, 2, 3, 130

REAL_INPUT = Claim(
    id="digits",
    title="Real input: digits",
    source="the images embedded in scikit-learn; no claim of the papers",
    status="holds",
    as_implemented="A dense MON (n = 40, m = 1, relu) trained for twelve epochs; every test image solved to a "
    "certified 1e-6 in float64 by both splittings; the gradient of every parameter differenced.",
    hypotheses="",
    code=("implicitref.networks.MonNetwork", "implicitref.training.train"),
    validation="digits:real_input",
)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What checking one claim gave."""

    claim: Claim
    verdicts: tuple[Verdict, ...]
    state: str
    message: str = ""
    seconds: float = 0.0


def main(namespace: Namespace) -> int:
    """Check, print, write. 0: all as registered; 1: something disagrees; 2: usage; 3: a check could not be decided."""
    seed, only, size = namespace.seed, namespace.claim, getattr(namespace, "size", 1.0)
    paths = _paths(namespace)
    complaint = _usage(seed, only, paths, namespace.html is not None)
    if complaint:
        print(f"implicitref verify: {complaint}", file=sys.stderr)
        return USAGE
    began = time.perf_counter()
    outcomes: list[Outcome] = []
    try:
        with one_thread():
            for outcome in _with_progress(selected(only), seed, size):
                outcomes.append(outcome)  # one by one: an interrupt keeps what is finished
    except KeyboardInterrupt:
        _show(outcomes, only is not None)
        print(f"implicitref verify: stopped after {len(outcomes)} entries; no report is written.", file=sys.stderr)
        return INTERRUPTED
    report = as_json(outcomes, seed, size, time.perf_counter() - began)
    _show(outcomes, only is not None)
    status = _conclude(outcomes, seed, report["times"]["total"])
    try:
        _write(paths, report)
    except OSError as error:
        print(f"implicitref verify: the report could not be written: {error}", file=sys.stderr)
        return status or USAGE
    return status


def _paths(namespace: Namespace) -> dict[str, str]:
    """Where to write: checking one claim does not replace the whole report, unless asked."""
    default = {} if namespace.claim is not None else {"json": "report.json", "html": "report.html"}
    given = {"json": namespace.json, "html": namespace.html}
    return default | {kind: path for kind, path in given.items() if path is not None}


def one_thread() -> AbstractContextManager[Any]:
    """BLAS in one thread, where that can be asked for."""
    # small products: a second BLAS thread costs more than it gives, and changes the last digits
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return nullcontext()
    return threadpool_limits(1)


def selected(only: str | None) -> list[Claim]:
    """The entry that answers for this id, or all of them and the real input."""
    return [c for c in (*entries(), REAL_INPUT) if only is None or only in c.ids]


def check(claim: Claim, seed: int, size: float) -> Outcome:
    """Run the validation of one claim; a solver that falls short makes it inconclusive, any other error disagrees."""
    if not claim.validation:
        return Outcome(claim, (), DEFINITION)
    module, name = claim.validation.split(":")
    began = time.perf_counter()
    try:
        validation = getattr(importlib.import_module(f".{module}", __package__), name)
        verdicts = tuple(validation(seed, size))
    except ConvergenceError as error:
        return Outcome(claim, (), INCONCLUSIVE, str(error), time.perf_counter() - began)
    except Exception as error:
        return Outcome(claim, (), DISAGREES, f"{type(error).__name__}: {error}", time.perf_counter() - began)
    agrees = bool(verdicts) and all(v.as_registered for v in verdicts)
    return Outcome(claim, verdicts, AGREES if agrees else DISAGREES, "", time.perf_counter() - began)


def _usage(seed: int, only: str | None, paths: dict[str, str], page: bool) -> str:
    if seed < 0:
        return f"--seed must be >= 0; got {seed}."
    if only is not None and not selected(only):
        known = [i for c in (*entries(), REAL_INPUT) for i in c.ids]
        close = difflib.get_close_matches(only, known, 3, 0.4) or known[:3]
        return f"no claim {only!r} in the register. Did you mean {', '.join(close)}?"
    missing = _missing_for_page() if page else ""
    if missing:
        return f"--html needs {missing}. Install it with: {EXTRA}"
    if len({os.path.realpath(path) for path in paths.values()}) < len(paths):
        return f"--json and --html must name two files; got {paths['json']!r} for both."
    return next(filter(None, map(unwritable, paths.values())), "")


# ------------------------------------------------------------------------------------------------
# progress and table


def _with_progress(claims: list[Claim], seed: int, size: float) -> Iterator[Outcome]:
    step, close = _progress(len(claims))
    try:
        for claim in claims:
            step(claim)
            yield check(claim, seed, size)
    finally:
        close()


def _progress(total: int) -> tuple[Callable[[Claim], None], Callable[[], None]]:
    if not sys.stderr.isatty():
        return (lambda claim: None), (lambda: None)
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    except ImportError:
        numbers = iter(range(1, total + 1))
        return (lambda claim: print(f"[{next(numbers)}/{total}] {claim.id}", file=sys.stderr)), (lambda: None)
    bar = Progress(
        TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip
    bar.start()
    task = bar.add_task("", total=total)
    started: list[str] = []

    def step(claim: Claim) -> None:
        bar.update(task, description=claim.id, completed=len(started))
        started.append(claim.id)

    return step, bar.stop


COLUMNS = ("id", "status", "statement", "measured", "", "predicted", "margin", "trials", "verdict")


def _show(outcomes: list[Outcome], everything: bool) -> None:
    rows = [row for outcome in outcomes for row in _rows(outcome, everything)]
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return plain([COLUMNS, *rows])
    if not sys.stdout.isatty():
        return plain([COLUMNS, *rows])
    console = Console()
    # what gives way first in a narrow terminal
    dropped = {"trials", "margin"} if console.width < 130 else set()
    dropped |= {"status", ""} if console.width < 100 else set()
    kept = [i for i, name in enumerate(COLUMNS) if name not in dropped]
    table = Table(title=f"implicitref {__version__}: claims, measured against predicted")
    for i in kept:
        table.add_column(COLUMNS[i], no_wrap=COLUMNS[i] not in ("statement", "verdict"), overflow="fold")
    for row in rows:
        style = "red" if row[-1] in (DISAGREES, INCONCLUSIVE) or "NOT" in row[-1] else ""
        table.add_row(*(Text(row[i]) for i in kept), style=style)
    console.print(table)
    return None


def plain(rows: Sequence[Sequence[str]]) -> None:
    """Print a table of text, the header first."""
    rows = [tuple(cell if len(cell) <= 72 else cell[:69] + "..." for cell in row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _rows(outcome: Outcome, everything: bool) -> Iterator[tuple[str, ...]]:
    claim = outcome.claim
    if not outcome.verdicts:
        yield claim.id, claim.status, outcome.message or claim.title, "", "", "", "", "", outcome.state
        return
    for v in outcome.verdicts if everything else headlines(outcome.verdicts):
        cells = number(v.measured), v.relation, number(v.predicted), number(v.margin), str(v.trials)
        expected = "" if v.form == IMPLEMENTED else f"{v.form}: "
        yield claim.id, claim.status, expected + v.statement, *cells, _word(v)


def _word(v: Verdict) -> str:
    if v.form == IMPLEMENTED:
        return "holds" if v.holds else "fails: NOT AS REGISTERED"
    return "fails, as it must" if not v.holds else "holds: NOT AS REGISTERED"


def headlines(verdicts: tuple[Verdict, ...]) -> tuple[Verdict, ...]:
    """What the table shows of a claim: what is not as registered, or the first printed and the first of ours."""
    wrong = tuple(v for v in verdicts if not v.as_registered)
    first = [next((v for v in verdicts if v.form == form), None) for form in (PRINTED, IMPLEMENTED)]
    return wrong or tuple(v for v in first if v is not None)


def number(x: float) -> str:
    """Four digits, integers as integers."""
    return str(int(x)) if math.isfinite(x) and x == int(x) and abs(x) < 1e7 else f"{x:.4g}"


def _conclude(outcomes: list[Outcome], seed: int, seconds: float) -> int:
    counts = {state: sum(o.state == state for o in outcomes) for state in (AGREES, DISAGREES, INCONCLUSIVE, DEFINITION)}
    verdicts = sum(len(o.verdicts) for o in outcomes)
    if any(v.form != IMPLEMENTED and not v.holds for outcome in outcomes for v in outcome.verdicts):
        print("fails, as it must: the paper's wording or a case outside the hypotheses is false, as this shows")
    print(
        f"{counts[AGREES]} as registered, {counts[DISAGREES]} disagree, {counts[INCONCLUSIVE]} inconclusive, "
        f"{counts[DEFINITION]} definitions; {verdicts} verdicts in {seconds:.1f} s, seed {seed}"
    )
    for outcome in outcomes:
        if outcome.state in (DISAGREES, INCONCLUSIVE):
            print(f"{outcome.state}: implicitref verify --claim {outcome.claim.id} --seed {seed}")
            if outcome.message:
                print(f"    {outcome.message}")
    return FAILED if counts[DISAGREES] else UNDECIDED if counts[INCONCLUSIVE] else OK


# ------------------------------------------------------------------------------------------------
# report


def environment() -> dict[str, str]:
    """What the numbers depend on."""
    return {
        "implicitref": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cores": str(os.cpu_count()),
    }


def as_json(outcomes: list[Outcome], seed: int, size: float, seconds: float) -> dict[str, Any]:
    """The report; equal for equal seeds on one machine, except for "times"."""
    return {
        "schema": "implicitref-verification",
        "version": 1,
        "environment": environment(),
        "seed": seed,
        "size": size,
        "state": _overall(outcomes),
        "claims": [_claim(o) for o in outcomes],
        "times": {"total": seconds, **{o.claim.id: o.seconds for o in outcomes if o.verdicts}},
    }


def _overall(outcomes: list[Outcome]) -> str:
    states = {o.state for o in outcomes}
    return DISAGREES if DISAGREES in states else INCONCLUSIVE if INCONCLUSIVE in states else AGREES


def _claim(outcome: Outcome) -> dict[str, Any]:
    verdicts = [verdict_entry(v) for v in outcome.verdicts]
    return dataclasses.asdict(outcome.claim) | {
        "state": outcome.state, "message": outcome.message, "verdicts": verdicts
    }  # fmt: skip


def verdict_entry(v: Verdict) -> dict[str, Any]:
    """A verdict as JSON can hold it."""
    fields = dataclasses.asdict(v) | {"margin": v.margin, "holds": v.holds, "as_registered": v.as_registered}
    # JSON has no NaN and no infinity
    return {k: x if not isinstance(x, float) or math.isfinite(x) else str(x) for k, x in fields.items()}


EXTRA = "pip install 'implicitref[report]'"


def _missing_for_page() -> str:
    """The first library that the page needs and that is not there."""
    for name in ("jinja2", "matplotlib"):
        try:
            importlib.import_module(name)
        except ImportError:
            return name
    return ""


def _write(paths: dict[str, str], report: dict[str, Any]) -> None:
    if "json" in paths:
        Path(paths["json"]).write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        print(f"wrote {paths['json']}")
    missing = _missing_for_page() if "html" in paths else ""
    if missing:
        print(f"no HTML report: {missing} is missing. Install it with: {EXTRA}", file=sys.stderr)
    elif "html" in paths:
        from .report import render

        Path(paths["html"]).write_text(render(report), encoding="utf-8")
        print(f"wrote {paths['html']}")
