"""What a run leaves: a table in the terminal, JSON, one page with everything, CSV and figures in a folder."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from ...archives import write_atomically
from ..artefacts import as_csv, missing_for_pictures, rendered, save
from ..table import number
from .curves import Curve, picture
from .machine import PEAKS
from .measure import MEASURED, Row

__all__ = ["HEADER", "as_page", "cells", "document", "save_all"]

HEADER = (
    "case", "task", "side", "ms (minimum)", "ours / this", "iterations", "GF", "GB", "of the roofline", "certified",
    "note",
)  # fmt: skip


def cells(row: Row) -> tuple[str, ...]:
    """A row as text, in the order of `HEADER`."""
    took = "" if row.median_ms is None else f"{row.median_ms:.3g} ({row.minimum_ms:.3g})"
    limit = "" if row.fraction is None else f"{row.fraction:.0%} ({row.bound})"
    numbers = ("" if x is None else f"{x:.2g}" for x in (row.gflop, row.gbyte))
    return (
        row.case, row.task, row.side, took, "" if row.ratio is None else f"{row.ratio:.3g}",
        "+".join(map(str, row.iterations)), *numbers, limit, ", ".join(f"{x:.1e}" for x in row.certified),
        row.state.upper() + f": {row.note}" if row.state != MEASURED else "",
    )  # fmt: skip


def document(rows: Sequence[Row], found: Sequence[Curve], facts: dict[str, Any]) -> dict[str, Any]:
    """The report as JSON can hold it: schema, what `facts` says of the run, rows, curves."""
    return {
        "schema": "implicitref-benchmark",
        "version": 1,
        **facts,
        "rows": [_finite(row._asdict()) for row in rows],
        "curves": [curve._asdict() | {"points": [_finite(p._asdict()) for p in curve.points]} for curve in found],
    }


def _finite(record: dict[str, Any]) -> dict[str, Any]:
    """Without NaN and infinity, which JSON has not."""

    def plain(x: Any) -> Any:
        if isinstance(x, tuple):
            return [plain(entry) for entry in x]
        return str(x) if isinstance(x, float) and not math.isfinite(x) else x

    return {name: plain(value) for name, value in record.items()}


def as_page(report: dict[str, Any], rows: Sequence[Row], found: Sequence[Curve]) -> str:
    """One self-contained page; everything that is inserted is escaped, figures are data."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    source = resources.files(__package__).joinpath("bench.html.j2").read_text(encoding="utf-8")
    images = [(c, base64.b64encode(rendered(picture(c), "svg")).decode()) for c in found]
    return environment.from_string(source).render(
        report=report, header=HEADER, rows=[(row, cells(row)) for row in rows], images=images, measured=MEASURED,
        peaks=[(what, number(report["machine"][name])) for name, what in PEAKS.items()],
    )  # fmt: skip


def save_all(folder: Path, rows: Sequence[Row], found: Sequence[Curve]) -> list[Path]:
    """rows.csv, and of every curve CSV, PNG and SVG; the paths."""
    paths = [folder / "rows.csv"]
    folder.mkdir(parents=True, exist_ok=True)
    table = as_csv([_joined(row._asdict()) for row in rows])
    write_atomically(paths[0], lambda file: file.write(table.encode()))
    for curve in found:
        paths += save(folder / curve.name, [p._asdict() for p in curve.points], picture(curve))
    return paths


def _joined(record: dict[str, Any]) -> dict[str, Any]:
    """Tuples as one cell."""
    return {k: " ".join(map(str, v)) if isinstance(v, tuple) else v for k, v in record.items()}


def missing_for_page() -> str:
    """The first library that the page needs and that is not there."""
    try:
        import jinja2  # noqa: F401
    except ImportError:
        return "jinja2"
    return missing_for_pictures()
