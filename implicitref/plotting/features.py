"""What a network holds: feature maps of an equilibrium, losses of the blocks of a sequential model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arrays import to_numpy
from ..errors import HypothesisError, ShapeError
from ..sequential import Record
from ..splitting import Solution
from .style import GREY, RED, line_style, new_axes

__all__ = ["EquilibriumDisplay", "SequentialDisplay"]

COLUMNS = 8


@dataclasses.dataclass(eq=False)
class EquilibriumDisplay:
    r"""One equilibrium as feature maps, tier by tier, eight in a row, all on one grey scale.

    Parameters
    ----------
    tiers : sequence of arrays (channels, height, width)

    Examples
    --------
    >>> import numpy as np
    >>> EquilibriumDisplay.from_state(np.zeros((5, 12, 7, 7))).mosaic().shape     # two rows of at most eight maps
    (15, 63)
    """

    tiers: Sequence[np.ndarray]

    @classmethod
    def from_state(cls, z: Any, sample: int = 0, W: Any = None) -> EquilibriumDisplay:
        """Of states (batch, channels, height, width), or of flat states (batch, n): of several tiers with their
        operator W, as one row otherwise.
        """
        tiers = W.split(z) if hasattr(W, "split") else [z]
        if any(tier.ndim not in (2, 4) for tier in tiers):
            raise ShapeError(f"z must be (batch, n) or (batch, channels, height, width); got {tuple(z.shape)}.")
        held = [to_numpy(tier)[sample] for tier in tiers]
        return cls([tier if tier.ndim == 3 else tier[None, None, :] for tier in held])

    @classmethod
    def from_solution(cls, solution: Solution, sample: int = 0) -> EquilibriumDisplay:
        """Of what `mon.equilibrium` returned."""
        return cls.from_state(solution.z, sample, solution.inclusion.W)

    def mosaic(self) -> np.ndarray:
        """All maps in one image, NaN between them."""
        strips = [strip for tier in self.tiers for strip in _strips(tier)]
        width = max(strip.shape[1] for strip in strips)
        padded = [np.pad(s, ((0, 1), (0, width - s.shape[1])), constant_values=np.nan) for s in strips]
        return np.concatenate(padded)[:-1]

    def plot(self, ax: Any = None) -> EquilibriumDisplay:
        """Draw on matplotlib axes, on a new figure by default."""
        image = self.mosaic()
        rows, columns = image.shape
        width = min(6.4, 1.8 + 0.15 * columns)  # a pixel need not be larger than that
        self.ax_ = new_axes(ax, (width, 0.6 + (width - 1) * min(1.5, rows / columns)))
        self.figure_ = self.ax_.figure
        drawn = self.ax_.imshow(image, cmap="gray", interpolation="nearest")
        self.ax_.set_facecolor("#c7d6e4")  # between the maps, no grey
        self.ax_.set(xticks=[], yticks=[], xlabel="pixels, maps of the channels side by side")
        self.figure_.colorbar(drawn, ax=self.ax_, label="z (units of the state)", shrink=0.8)
        return self


def _strips(tier: np.ndarray) -> list[np.ndarray]:
    # rows of maps, a column of NaN after each
    framed = [np.pad(image, ((0, 0), (0, 1)), constant_values=np.nan) for image in tier.astype(np.float64)]
    return [np.concatenate(framed[i : i + COLUMNS], axis=1)[:, :-1] for i in range(0, len(framed), COLUMNS)]


@dataclasses.dataclass(eq=False)
class SequentialDisplay:
    r"""The loss before and after each block that sequential training added, and after `refine` of all.

    Parameters
    ----------
    records : sequence of Record

    Examples
    --------
    >>> from implicitref.sequential import Record
    >>> SequentialDisplay([Record(1, 2.0, 0.5, 0, 0.1), Record(2, 0.5, 0.1, 1, 0.1)]).losses()
    array([2. , 0.5, 0.1])
    """

    records: Sequence[Record]

    @classmethod
    def from_model(cls, model: Any) -> SequentialDisplay:
        """Of a model with the history that `sequential.fit` leaves [GREEDY-Alg1]."""
        if not model.history:
            raise HypothesisError("this model has no history of training: sequential.fit leaves one [GREEDY-Alg1].")
        return cls(model.history)

    def losses(self) -> np.ndarray:
        """Before the first block, and after each record."""
        return np.array([self.records[0].before, *(record.loss for record in self.records)])

    def plot(self, ax: Any = None) -> SequentialDisplay:
        """Draw on matplotlib axes, on a new figure by default."""
        self.ax_ = new_axes(ax, (5.6, 3.4))
        self.figure_ = self.ax_.figure
        losses = self.losses()
        blocks = np.arange(len(losses))
        names = ["0", *(str(record.block or "all") for record in self.records)]
        style = line_style(0, len(losses)) | {"markevery": 1}
        self.ax_.plot(blocks, losses, label="training loss", drawstyle="steps-post", **style)
        dead = np.array([False, *(record.dead > 0 for record in self.records)])
        if dead.any():
            self.ax_.plot(blocks[dead], losses[dead], "x", color=RED, markersize=10, mew=2, label="has dead units")
        self.ax_.set(xlabel="block trained", ylabel="loss a sample (units of the loss)")
        self.ax_.set_xticks(blocks, names)
        self.ax_.set_yscale("log" if losses.min() > 0 else "linear")
        self.ax_.axhline(losses[-1], color=GREY, lw=0.8, ls=":")
        self.ax_.grid(alpha=0.3)
        self.ax_.legend()
        return self
