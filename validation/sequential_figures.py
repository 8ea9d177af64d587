r"""GREEDY Figures 1 to 4: the graph of a model, what each stage optimises, and interpolated functions.

Drawn by ``implicitref reproduce sequential-figure-1`` to ``sequential-figure-4`` from models trained here. Figure 2 is
not drawn from the definition of Algorithm 1: which blocks a stage changed is read off the models before and after it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import datasets, sequential
from ..plotting import ModelGraphDisplay
from ..plotting.style import BLUE, GREY, RED
from ..sequential import BlockTriangularModel
from .sequential_tables import RESAMPLINGS, by_blocks, rmse

__all__ = [
    "Curves",
    "Scheme",
    "curves",
    "draw",
    "draw_graph",
    "draw_scheme",
    "graph",
    "matrices",
    "records",
    "scheme",
    "wanted",
]

SIZES = (3, 3, 3, 3)  # of the models of Figures 1 and 2


class Curves(NamedTuple):
    """The task of the first resampling, and the predictions of all models on its grid, (resamplings, 1000)."""

    task: datasets.Interpolation
    predictions: np.ndarray

    @property
    def score(self) -> float:
        """Mean RMSE of the models."""
        return float(np.mean([rmse(y[:, None], self.task.y_test) for y in self.predictions]))


class Scheme(NamedTuple):
    """The stages that changed each matrix that is not zero throughout, by (target, source): names x, z1, ..., zL, y.

    `numbers` counts, stage by stage, the entries that it changed.
    """

    stages: dict[tuple[str, str], tuple[int, ...]]
    numbers: tuple[int, ...]


# ------------------------------------------------------------------------------------------------
# Figures 1 and 2


def trained(seed: int) -> list[BlockTriangularModel]:
    """The models that Algorithm 1 gives after every stage, on the smooth task with inputs augmented by 1."""
    task = datasets.interpolation("smooth", seed)
    x = sequential.augment(task.x_train)
    return list(sequential.greedy(x, task.y_train, SIZES, random_state=seed))


def graph(seed: int) -> ModelGraphDisplay:
    """Figure 1 of the last of them."""
    return ModelGraphDisplay.from_model(trained(seed)[-1])


def draw_graph(figure: Any, display: ModelGraphDisplay) -> None:
    """The input, the blocks and the output in a row, joined by arrows as wide as the matrices are large."""
    display.plot(figure.add_subplot())


def scheme(seed: int) -> Scheme:
    """Figure 2, from the models before and after every stage."""
    parts = [{}, *map(matrices, trained(seed))]
    changed = [{at for at, M in own.items() if _differ(M, old.get(at))} for old, own in itertools.pairwise(parts)]
    stages = {at: tuple(i for i, moved in enumerate(changed, 1) if at in moved) for at in parts[-1]}
    numbers = tuple(sum(parts[-1][at].size for at in moved) for moved in changed)
    return Scheme({at: when for at, when in stages.items() if when}, numbers)


def matrices(model: BlockTriangularModel) -> dict[tuple[str, str], np.ndarray]:
    """A_ij, B_i and C_i by (target, source)."""
    names = [f"z{i}" for i in range(len(model.sizes), 0, -1)]  # the last block comes first
    ends = np.cumsum([0, *model.sizes[::-1]])
    part = {name: slice(*ends[i : i + 2]) for i, name in enumerate(names)}
    found = {(to, source): model.A[part[to], part[source]] for to in names for source in names}
    found |= {(to, "x"): model.B[part[to]] for to in names}
    return found | {("y", source): model.C[:, part[source]] for source in names}


def _differ(M: np.ndarray, old: np.ndarray | None) -> bool:
    return not np.array_equal(M, np.zeros_like(M) if old is None else old)


def name(place: tuple[str, str]) -> str:
    """A_ij, B_i or C_i in the paper's letters, such as A21.

    Examples
    --------
    >>> name(("z2", "z1")), name(("z2", "x")), name(("y", "z2"))
    ('A21', 'B2', 'C2')
    """
    to, source = place
    return f"C{source[1:]}" if to == "y" else f"B{to[1:]}" if source == "x" else f"A{to[1:]}{source[1:]}"


def wanted(stage: int) -> list[str]:
    """What the figure says of a stage: B_i, A_ij for j < i, and C_1, ..., C_i."""
    return [f"B{stage}", *(f"A{stage}{j}" for j in range(1, stage)), *(f"C{j}" for j in range(1, stage + 1))]


def draw_scheme(figure: Any, found: Scheme) -> None:
    """The matrices A, B and C as the paper has them, darker the later they are optimised; C again in every stage."""
    L = len(found.numbers)
    names = [f"z{i}" for i in range(L, 0, -1)]
    rows, columns, axes = [*names, "y"], [*names, "x"], figure.add_subplot()
    for (to, source), stages in found.stages.items():
        corner, shade = (columns.index(source), rows.index(to)), 0.12 + 0.78 * stages[0] / L
        face, ink = _shade(shade), "white" if shade > 0.55 else "black"
        axes.add_patch(_square(corner, face, "//" if len(stages) > 1 else None))
        label = f"{name((to, source))}\n{_span(stages)}"
        box = {"facecolor": face, "edgecolor": "none", "pad": 1.5}
        axes.text(corner[0] + 0.5, corner[1] + 0.5, label, ha="center", va="center", color=ink, bbox=box)
    axes.set(xlim=(0, L + 1), ylim=(L + 1, 0), aspect="equal", xlabel="from", ylabel="to")
    axes.set_xticks(np.arange(L + 1) + 0.5, columns)
    axes.set_yticks(np.arange(L + 1) + 0.5, rows)
    axes.tick_params(length=0)
    axes.set_title("below its name: the stages that optimise a block", fontsize=9)


def _span(stages: Sequence[int]) -> str:
    return f"{stages[0]}" if len(stages) == 1 else f"{stages[0]} to {stages[-1]}"


def _shade(shade: float) -> Any:
    """From light green to dark blue, darker for larger shades."""
    import matplotlib as mpl

    return mpl.colormaps["YlGnBu"](shade)


def _square(corner: tuple[float, float], face: Any, hatch: str | None) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(corner, 1, 1, facecolor=face, edgecolor="white", linewidth=2, hatch=hatch)


# ------------------------------------------------------------------------------------------------
# Figures 3 and 4


def curves(task: str, seed: int = 0, resamplings: int = RESAMPLINGS) -> Curves:
    """One model for each resampling of an interpolation task, by the default solver."""
    drawn = [datasets.interpolation(task, seed + i) for i in range(resamplings)]
    found = [by_blocks(sample, seed + i).predict(sample.x_test)[:, 0] for i, sample in enumerate(drawn)]
    return Curves(drawn[0], np.stack(found))


def records(found: Curves) -> list[dict[str, float]]:
    """The curves of the figure, a point of the grid a line."""
    columns = {
        "u": found.task.x_test[:, 0],
        "function": found.task.y_test[:, 0],
        "mean prediction": found.predictions.mean(axis=0),
        "least prediction": found.predictions.min(axis=0),
        "largest prediction": found.predictions.max(axis=0),
    }
    return [dict(zip(columns, map(float, row), strict=True)) for row in zip(*columns.values(), strict=True)]


def draw(figure: Any, found: Curves) -> None:
    """Samples, function, mean of the predictions, and the band of all of them."""
    axes, task, u = figure.add_subplot(), found.task, found.task.x_test[:, 0]
    axes.plot(task.x_train, task.y_train, ".", ms=3, color=GREY, label="samples of one resampling")
    axes.plot(u, task.y_test, color=BLUE, lw=2.5, label="function")
    mean, count = found.predictions.mean(axis=0), len(found.predictions)
    axes.plot(u, mean, color=RED, lw=1.2, ls="--", label=f"prediction, mean of {count} models")
    low, high = found.predictions.min(axis=0), found.predictions.max(axis=0)
    axes.fill_between(u, low, high, color=RED, alpha=0.25, lw=0, label="least to largest prediction")
    axes.set(xlabel="u", ylabel="y", xlim=(-5, 5))
    axes.legend(frameon=False, fontsize=8)
