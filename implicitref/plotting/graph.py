"""The graph of a block-triangular model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..sequential import BlockTriangularModel
from ..sequential.counts import Connection, connections
from .style import new_axes

__all__ = ["COLOURS", "ModelGraphDisplay"]

COLOURS = {"input": "#8a8d91", "blocks": "#2e86ab", "output": "#d1495b"}


class ModelGraphDisplay:
    """The graph of a block-triangular model: the generalised DenseNet of the paper's Figure 1.

    Blocks stand in a row between input and output. Arcs above join the blocks, straight arrows neighbours; arcs below
    lead from the input and to the output. Widths follow the Frobenius norms of the matrices, within each kind.

    Parameters
    ----------
    sizes : sequence of int
        (n_1, ..., n_L).
    edges : list of Connection

    Examples
    --------
    >>> import numpy as np
    >>> from implicitref.sequential import feed_forward
    >>> display = ModelGraphDisplay.from_model(feed_forward([np.eye(2), np.eye(2), np.eye(2)]))
    >>> display.sizes, len(display.edges)
    ((2, 2), 3)
    """

    def __init__(self, sizes: Sequence[int], edges: list[Connection]) -> None:
        self.sizes = tuple(sizes)
        self.edges = edges

    @classmethod
    def from_model(cls, model: BlockTriangularModel) -> ModelGraphDisplay:
        """The graph of the nonzero matrices of a model [GREEDY-SecIII-connections]."""
        return cls(model.sizes, connections(model))

    def kind(self, edge: Connection) -> str:
        """Whether an edge comes from the "input", leads to the "output", or joins two "blocks"."""
        return "input" if edge.source == 0 else "output" if edge.target == len(self.sizes) + 1 else "blocks"

    def plot(self, ax: Any = None) -> ModelGraphDisplay:
        """Draw on matplotlib axes, on a new figure by default."""
        reach = len(self.sizes)  # of the longest arcs, which rise by a fifth of it
        inch = min(1.2, 14 / (reach + 2))
        self.ax_ = new_axes(ax, (inch * (reach + 2), inch * (0.4 * reach + 1)))
        self.figure_ = self.ax_.figure
        strongest = {k: max(e.strength for e in self.edges if self.kind(e) == k) for k in map(self.kind, self.edges)}
        for edge in self.edges:
            self._arrow(edge, edge.strength / strongest[self.kind(edge)])
        for place, label in enumerate(["x", *(f"$z_{{{i}}}$\n{n}" for i, n in enumerate(self.sizes, 1)), "y"]):
            self._node(place, label)
        self.ax_.set(xlim=(-0.5, reach + 1.5), ylim=(-0.2 * reach - 0.5, 0.2 * reach + 0.5), aspect="equal")
        self.ax_.set_axis_off()
        return self

    def _arrow(self, edge: Connection, weight: float) -> None:
        from matplotlib.patches import FancyArrowPatch

        kind, reach = self.kind(edge), edge.target - edge.source
        bend = 0.0 if reach == 1 else -0.4 if kind == "blocks" else 0.4
        arrow = FancyArrowPatch(
            (edge.source, 0),
            (edge.target, 0),
            connectionstyle=f"arc3,rad={bend}",
            arrowstyle="-|>",
            mutation_scale=9,
            shrinkA=15,
            shrinkB=15,
            linewidth=0.6 + 2 * weight,
            color=COLOURS[kind],
            alpha=0.85,
        )
        self.ax_.add_patch(arrow)

    def _node(self, place: int, label: str) -> None:
        kind = {0: "input", len(self.sizes) + 1: "output"}.get(place, "blocks")
        box = {
            "boxstyle": f"circle,pad={0.35 if kind == 'blocks' else 0.6}",
            "facecolor": "white",
            "edgecolor": COLOURS[kind],
            "linewidth": 1.6,
        }
        self.ax_.text(place, 0, label, ha="center", va="center", fontsize=9, bbox=box, zorder=3)
