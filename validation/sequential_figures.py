r"""GREEDY Figures 3 and 4: samples, the true function, and what the sequentially trained models predict on average.

Written as PNG and SVG by ``implicitref reproduce sequential-figure-3`` and ``sequential-figure-4``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import datasets
from .sequential_tables import RESAMPLINGS, by_blocks

__all__ = ["Curves", "curves", "draw"]

COLOURS = {"data": "#8a8d91", "truth": "#2e86ab", "prediction": "#d1495b"}


class Curves(NamedTuple):
    """The task of the first resampling, and the predictions of all models on its grid, (resamplings, 1000)."""

    task: datasets.Interpolation
    predictions: np.ndarray


def curves(task: str, seed: int = 0, resamplings: int = RESAMPLINGS) -> Curves:
    """One model for each resampling of an interpolation task, by the default solver."""
    drawn = [datasets.interpolation(task, seed + i) for i in range(resamplings)]
    found = [by_blocks(sample, seed + i).predict(sample.x_test)[:, 0] for i, sample in enumerate(drawn)]
    return Curves(drawn[0], np.stack(found))


def draw(found: Curves, stem: Path) -> list[Path]:
    """Write stem.png and stem.svg; give their paths."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "implicitref", "font.size": 9}):
        figure = Figure(figsize=(6.4, 3.8), layout="constrained")
        _draw(figure.add_subplot(), found)
        paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg")]
        for path in paths:
            figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    return paths


def _draw(axes: Any, found: Curves) -> None:
    task, u = found.task, found.task.x_test[:, 0]
    axes.plot(task.x_train, task.y_train, ".", ms=3, color=COLOURS["data"], label="samples of one resampling")
    axes.plot(u, task.y_test, color=COLOURS["truth"], lw=2, label="function")
    mean, count = found.predictions.mean(axis=0), len(found.predictions)
    axes.plot(u, mean, color=COLOURS["prediction"], lw=1.2, label=f"prediction, mean of {count} models")
    low, high = found.predictions.min(axis=0), found.predictions.max(axis=0)
    axes.fill_between(u, low, high, color=COLOURS["prediction"], alpha=0.2, lw=0, label="least to largest prediction")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set(xlabel="u", ylabel="y", xlim=(-5, 5))
    axes.legend(frameon=False, fontsize=8)
