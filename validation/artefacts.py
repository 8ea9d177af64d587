"""What an experiment leaves behind: its numbers as CSV, its figure as PNG and SVG; and a figure for any table."""

from __future__ import annotations

import csv
import importlib
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..archives import write_atomically
from ..plotting.style import BLUE, GREY, RED

__all__ = ["Line", "Picture", "dots", "missing_for_pictures", "save"]

DPI = 150


class Picture(NamedTuple):
    """A function that draws on a matplotlib figure, and its size in inches."""

    draw: Callable[[Any], None]
    size: tuple[float, float] = (6.4, 3.8)


class Line(NamedTuple):
    """A row of `dots`: what was measured, (least, mean, largest), and what is printed."""

    name: str
    measured: tuple[float, float, float]
    printed: float | None = None


def save(stem: Path, records: Sequence[Mapping[str, Any]], picture: Picture) -> list[Path]:
    """Write stem.csv and, where matplotlib is there, stem.png and stem.svg; give the paths."""
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("csv", "png", "svg")]
    stem.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(paths[0], lambda file: file.write(as_csv(records).encode()))
    if missing_for_pictures():
        return paths[:1]
    for path in paths[1:]:
        write_atomically(path, lambda file, kind=path.suffix[1:]: file.write(rendered(picture, kind)))  # type: ignore[misc]
    return paths


def as_csv(records: Sequence[Mapping[str, Any]]) -> str:
    """One line a record, under the names of the first."""
    text = io.StringIO()
    table = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(records)
    return text.getvalue()


def rendered(picture: Picture, kind: str) -> bytes:
    """The picture as "png" or "svg", the same bytes for the same numbers."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    found = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "implicitref", "font.size": 9}):
        figure = Figure(figsize=picture.size, layout="constrained")
        picture.draw(figure)
        for axes in figure.axes:
            axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(found, format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else None)
    return found.getvalue()


def missing_for_pictures() -> str:
    """matplotlib where it is missing."""
    try:
        importlib.import_module("matplotlib")
    except ImportError:
        return "matplotlib"
    return ""


def dots(figure: Any, panels: Sequence[tuple[str, Sequence[Line], bool]]) -> None:
    """Panels (label, lines, whether logarithmic) side by side, the same names in each.

    A filled dot with its range is what was measured here, an open diamond what is printed.
    """
    for axes, (label, lines, log) in zip(
        figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True
    ):
        for place, line in enumerate(lines):
            axes.plot(line.measured[::2], [place, place], color=GREY, lw=2)
        measured = axes.plot([line.measured[1] for line in lines], range(len(lines)), "o", color=BLUE, ms=6)
        known = [(line.printed, place) for place, line in enumerate(lines) if line.printed is not None]
        printed = axes.plot(*zip(*known, strict=True), "D", mec=RED, mfc="none", mew=1.6, ms=10) if known else []
        axes.set(xlabel=label, xscale="log" if log else "linear", ylim=(len(lines) - 0.5, -0.5))
        axes.set_yticks(range(len(lines)), [line.name for line in lines])
        axes.grid(axis="x", which="both", color="0.9")
        axes.set_axisbelow(True)
    handles = [*measured, *printed]
    labels = ["measured here, least to largest", "printed in the paper"][: len(handles)]
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
