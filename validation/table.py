"""The terminal: a live progress bar, and the table of what was measured beside what was predicted."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from .. import __version__
from .tasks import AGREES, DEFINITION, DISAGREES, INCONCLUSIVE, Outcome, Settings
from .verdict import IMPLEMENTED, PRINTED, Verdict

__all__ = ["Progress", "conclusion", "headlines", "number", "plain", "progress", "show"]


class Progress(NamedTuple):
    """What a bar hears: a name that begins, how many are finished, the end."""

    begin: Callable[[str], None]
    finished: Callable[[int], None]
    close: Callable[[], None]


def progress(total: int, done: int = 0) -> Progress:
    """A live bar on a terminal, lines where rich is missing, nothing where nobody watches."""
    if not sys.stderr.isatty():
        return Progress(lambda name: None, lambda count: None, lambda: None)
    try:
        return _bar(total, done)
    except ImportError:
        numbers = iter(range(done + 1, total + 1))
        return Progress(
            lambda name: print(f"[{next(numbers, total)}/{total}] {name}", file=sys.stderr),
            lambda count: None,
            lambda: None,
        )


def _bar(total: int, done: int) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip
    bar.start()
    task = bar.add_task("", total=total, completed=done)
    return Progress(
        lambda name: bar.update(task, description=name), lambda count: bar.update(task, completed=count), bar.stop
    )


COLUMNS = ("id", "status", "statement", "measured", "", "predicted", "margin", "trials", "verdict")


def show(outcomes: list[Outcome], everything: bool) -> None:
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


def conclusion(outcomes: Sequence[Outcome], settings: Settings, seconds: float) -> None:
    """Print the counts and, of each entry that is not as registered, the command that repeats it alone."""
    counts = {state: sum(o.state == state for o in outcomes) for state in (AGREES, DISAGREES, INCONCLUSIVE, DEFINITION)}
    verdicts = sum(len(o.verdicts) for o in outcomes)
    if any(v.form != IMPLEMENTED and not v.holds for outcome in outcomes for v in outcome.verdicts):
        print("fails, as it must: the paper's wording or a case outside the hypotheses is false, as this shows")
    if settings.backend != "numpy":
        print(_places(outcomes, settings.backend))
    print(
        f"{counts[AGREES]} as registered, {counts[DISAGREES]} disagree, {counts[INCONCLUSIVE]} inconclusive, "
        f"{counts[DEFINITION]} definitions; {verdicts} verdicts in {seconds:.1f} s, seed {settings.seed}, "
        f"level {settings.level}"
    )
    for outcome in outcomes:
        if outcome.state in (DISAGREES, INCONCLUSIVE):
            print(f"{outcome.state}: {settings.command(outcome.claim.id)}")
            if outcome.message:
                print(f"    {outcome.message}")


def _places(outcomes: Sequence[Outcome], backend: str) -> str:
    checked = [o for o in outcomes if o.state != DEFINITION]
    alone = [o.claim.id for o in checked if o.backend != backend]
    names = f": {', '.join(alone)}" if alone else ""
    return f"{len(checked) - len(alone)} entries ran on {backend}, {len(alone)} on NumPy only{names}"
