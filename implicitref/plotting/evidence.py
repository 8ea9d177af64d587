"""Measured against predicted: claims of a verification, blocks of a cross-checked gradient."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..crosscheck import Report
from ..errors import HypothesisError
from .style import BLUE, GREY, RED, new_axes

__all__ = ["ClaimDisplay", "GradientBlockDisplay", "Measurement"]

FLOOR = 1e-16  # between minus and plus this the scale of the claims is linear: room for 0


class Measurement(NamedTuple):
    """One verdict of a verification: ``measured relation predicted``, and whether it came out as registered.

    The slack for rounding is in `predicted`.
    """

    claim: str
    statement: str
    measured: float
    relation: str
    predicted: float
    holds: bool
    as_registered: bool


@dataclasses.dataclass(eq=False)
class ClaimDisplay:
    r"""Every verdict of a verification as a point (predicted, measured).

    "<=" belongs on or below the diagonal, ">=" on or above, "==" on it. What fails is a cross: what a paper prints and
    is false, and what was checked outside its hypotheses. What did not come out as registered has its id beside it.

    Parameters
    ----------
    rows : sequence of Measurement

    Examples
    --------
    >>> verdict = {"statement": "error", "measured": 1e-9, "relation": "<=", "predicted": 1e-6, "holds": True}
    >>> claims = [{"id": "MON-Alg2", "verdicts": [verdict | {"as_registered": True}]}]
    >>> ClaimDisplay.from_report({"claims": claims}).rows[0].measured
    1e-09
    """

    rows: Sequence[Measurement]

    @classmethod
    def from_report(
        cls, report: Mapping[str, Any] | str | os.PathLike[str], claims: Sequence[str] | None = None
    ) -> ClaimDisplay:
        """From what ``implicitref verify --json`` wrote, or its content; of all claims or of some."""
        found = report if isinstance(report, Mapping) else json.loads(Path(report).read_text(encoding="utf-8"))
        chosen = [claim for claim in found["claims"] if claims is None or claim["id"] in claims]
        rows = [_row(claim["id"], verdict) for claim in chosen for verdict in claim["verdicts"]]
        if not rows:
            raise HypothesisError(
                f"the report holds no verdict to draw; claims = {claims!r}, its first ids are "
                f"{[claim['id'] for claim in found['claims'][:3]]}."
            )
        return cls(rows)

    def plot(self, ax: Any = None) -> ClaimDisplay:
        """Draw on matplotlib axes, on a new figure by default."""
        self.ax_ = new_axes(ax, (5.6, 5.0))
        self.figure_ = self.ax_.figure
        for relation, marker in {"<=": "v", ">=": "^", "==": "o"}.items():
            self._points([row for row in self.rows if row.relation == relation and row.holds], marker, relation)
        self._points([row for row in self.rows if not row.holds], "x", "fails")
        for row in self.rows:
            if not row.as_registered:
                self.ax_.annotate(row.claim, _finite(row), fontsize=8, color=RED)
        self._scale()
        self.ax_.set(xlabel="predicted, rounding included (units of the claim)", ylabel="measured (units of the claim)")
        self.ax_.grid(alpha=0.3)
        self.ax_.legend(loc="upper left", fontsize=8)
        return self

    def _points(self, rows: list[Measurement], marker: str, label: str) -> None:
        if rows:
            filled = {"facecolors": "none", "edgecolors": BLUE} if marker != "x" else {"color": RED}
            counted = f"{label} ({len(rows)})"
            self.ax_.scatter(*np.transpose([*map(_finite, rows)]), marker=marker, s=26, label=counted, **filled)

    def _scale(self) -> None:
        predicted, measured = np.transpose([*map(_finite, self.rows)])
        ends = [(min(0.0, 3 * values.min()), 3 * max(1.0, values.max())) for values in (predicted, measured)]
        (left, right), (bottom, top) = ends
        low, high = max(left, bottom), min(right, top)
        self.ax_.plot([low, high], [low, high], color=GREY, lw=1, zorder=0)
        for axis, (least, most) in zip("xy", ends, strict=True):
            getattr(self.ax_, f"set_{axis}scale")("symlog", linthresh=FLOOR, linscale=0.5)
            ticks = _ticks(least, most)
            getattr(self.ax_, f"set_{axis}ticks")(ticks, [_power(tick) for tick in ticks])
            getattr(self.ax_, f"set_{axis}lim")(least - FLOOR / 2, most)


def _power(tick: float) -> str:
    return f"{tick:.0e}".replace("e-0", "e-").replace("e+0", "e") if tick else "0"


def _ticks(least: float, most: float) -> list[float]:
    decades = 10.0 ** np.arange(-12, np.log10(most) + 0.1, 4)
    return [*(-decades[decades < -least][::-1]), 0.0, *decades]


def _row(claim: str, verdict: Mapping[str, Any]) -> Measurement:
    named = {name: verdict[name] for name in ("statement", "relation", "holds", "as_registered")}
    measured, predicted = (float(verdict[name]) for name in ("measured", "predicted"))  # "inf", "nan" in JSON
    slack = {"<=": 1, ">=": -1, "==": 0}[verdict["relation"]] * float(verdict.get("slack", 0.0))
    return Measurement(claim=claim, measured=measured, predicted=predicted + slack, **named)


def _finite(row: Measurement) -> tuple[float, float]:
    # what diverged stands at the edge
    predicted, measured = np.nan_to_num([row.predicted, row.measured], nan=1e6, posinf=1e6, neginf=-1e6)
    return float(np.clip(predicted, -1e6, 1e6)), float(np.clip(measured, -1e6, 1e6))


@dataclasses.dataclass(eq=False)
class GradientBlockDisplay:
    r"""Relative error of every block of a cross-checked gradient, beside what is allowed.

    Parameters
    ----------
    names, verdicts : sequence of str
    errors, allowed : array (blocks,)
    title : str

    Examples
    --------
    >>> import numpy as np
    >>> display = GradientBlockDisplay(["A", "B"], ["right", "wrong"], np.array([1e-9, 0.1]), np.array([1e-6, 1e-6]))
    >>> display.errors <= display.allowed
    array([ True, False])
    """

    names: Sequence[str]
    verdicts: Sequence[str]
    errors: np.ndarray
    allowed: np.ndarray
    title: str = ""

    @classmethod
    def from_report(cls, report: Report) -> GradientBlockDisplay:
        """Of the blocks that were given, from what `crosscheck.check` returned."""
        blocks = [block for block in report.blocks if block.verdict != "not given"]
        numbers = np.array([(block.error, block.tolerance) for block in blocks]).reshape(-1, 2)
        title = f"{report.name}: {report.verdict}"
        names, verdicts = ([getattr(block, field) for block in blocks] for field in ("name", "verdict"))
        return cls(names, verdicts, numbers[:, 0], numbers[:, 1], title)

    def plot(self, ax: Any = None) -> GradientBlockDisplay:
        """Draw on matplotlib axes, on a new figure by default."""
        self.ax_ = new_axes(ax, (5.6, 1.2 + 0.45 * len(self.names)))
        self.figure_ = self.ax_.figure
        places, shown = np.arange(len(self.names)), self._lengths()
        wrong = np.array([verdict == "wrong" for verdict in self.verdicts], dtype=bool)
        for chosen, colour, hatch, label in (
            (~wrong, BLUE, "", "error"),
            (wrong, RED, "///", "error of a wrong block"),
        ):
            if chosen.any():
                style = {"color": "white", "edgecolor": colour, "hatch": hatch} if hatch else {"color": colour}
                self.ax_.barh(places[chosen], shown[chosen], left=1e-18, height=0.55, label=label, **style)
        self.ax_.scatter(
            self.allowed, places, marker="|", s=320, linewidths=2, color="black", label="allowed", zorder=3
        )
        names = [f"{name}: {verdict}" for name, verdict in zip(self.names, self.verdicts, strict=True)]
        self.ax_.set_yticks(places, names)
        reach = max([10.0, *(3 * shown)])
        self.ax_.set(xscale="log", xlim=(1e-18, reach), xlabel="relative error (no unit)", title=self.title)
        self.ax_.invert_yaxis()
        if ax is None:  # its figure has room below
            self.figure_.legend(loc="outside lower center", ncols=3, fontsize=8)
        else:
            ax.legend(fontsize=8)
        return self

    def _lengths(self) -> np.ndarray:
        floored = np.maximum(self.errors, 1e-17)
        return np.asarray(np.nan_to_num(floored, nan=1e3, posinf=1e3))  # what is not finite is very wrong
