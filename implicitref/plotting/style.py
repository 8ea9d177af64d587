"""What the figures share: axes that no global state remembers, and lines that differ in more than colour."""

from __future__ import annotations

from typing import Any

__all__ = ["BLUE", "GREY", "RED", "STYLES", "line_style", "new_axes"]

BLUE, RED, GREY = "#0072B2", "#D55E00", "#6b6e73"  # of different lightness, told apart by every kind of colour vision

# colour, line and marker change together: each alone tells the lines apart
STYLES = (
    (BLUE, "-", "o"),
    (RED, "--", "s"),
    (GREY, ":", "^"),
    ("#009E73", "-.", "D"),
    ("#000000", (0, (1, 1)), "x"),
    ("#CC79A7", (0, (5, 1, 1, 1)), "v"),
)


def line_style(index: int, points: int) -> dict[str, Any]:
    """Keywords of `Axes.plot` for line number `index` of so many points; about ten of them carry a marker."""
    colour, line, marker = STYLES[index % len(STYLES)]
    every = (index % 3, max(1, points // 10))
    return {"color": colour, "linestyle": line, "marker": marker, "markevery": every, "markersize": 5}


def new_axes(ax: Any, figsize: tuple[float, float]) -> Any:
    """`ax`, or the axes of a new figure that no global state remembers."""
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=figsize, layout="constrained").add_subplot()
