"""What a check returns: a measured number beside the predicted one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

IMPLEMENTED, PRINTED, DROPPED = "as implemented", "as printed", "hypothesis dropped"

_MARGINS = {
    "<=": lambda measured, predicted: predicted - measured,
    ">=": lambda measured, predicted: measured - predicted,
    "==": lambda measured, predicted: -abs(measured - predicted),
}


@dataclasses.dataclass(frozen=True)
class Verdict:
    r"""One measurement of one claim.

    Attributes
    ----------
    claim : str
    form : str
        "as implemented" is expected to hold; "as printed", the paper's wording where that is wrong, and "hypothesis
        dropped", a case just outside the hypotheses, are expected to fail.
    statement : str
    measured, predicted : float
    relation : {"<=", ">=", "=="}
        What is claimed of measured and predicted, up to `slack`, which stands for rounding.
    slack : float
    trials : int
    worst : str
        Where the worst value was met and the seed that reproduces it.
    """

    claim: str
    form: str
    statement: str
    measured: float
    relation: str
    predicted: float
    slack: float = 0.0
    trials: int = 1
    worst: str = ""

    @property
    def margin(self) -> float:
        """How much room is left, slack included; negative (or NaN) where the relation fails."""
        return _MARGINS[self.relation](self.measured, self.predicted) + self.slack

    @property
    def holds(self) -> bool:
        """Whether the relation is true; false for NaN."""
        return bool(self.margin >= 0)

    @property
    def as_registered(self) -> bool:
        """Whether it came out as the register says."""
        return self.holds == (self.form == IMPLEMENTED)


class Extreme(NamedTuple):
    """The largest of many values, where it was met, and how many there were."""

    value: float
    where: str
    trials: int


def largest(samples: Iterable[tuple[Any, str]]) -> Extreme:
    """The largest of all values (NaN counts as larger than any) from pairs (values, where)."""
    best, trials = Extreme(-math.inf, "", 0), 0
    for values, where in samples:
        array = np.ravel(np.asarray(values, dtype=float))
        trials += array.size
        if not array.size:
            continue
        index = int(np.argmax(array))
        if np.isnan(array[index]) or array[index] > best.value:
            sample = f", sample {index}" if array.size > 1 else ""
            best = Extreme(float(array[index]), where + sample, 0)
        if math.isnan(best.value):
            break
    return best._replace(trials=trials)


def columns(rows: Iterable[tuple[tuple[Any, ...], str]]) -> Iterator[list[tuple[Any, str]]]:
    """Rows of several measured quantities to one list of (values, where) for each quantity."""
    rows = list(rows)
    for index in range(len(rows[0][0])):
        yield [(values[index], where) for values, where in rows]


def compare(
    claim: str,
    statement: str,
    measured: float | Extreme,
    relation: str,
    predicted: float,
    *,
    slack: float = 0.0,
    form: str = IMPLEMENTED,
    worst: str = "",
) -> Verdict:
    """A verdict from one number, or from the largest of many."""
    if not isinstance(measured, Extreme):
        measured = Extreme(float(measured), worst, 1)
    return Verdict(
        claim,
        form,
        statement,
        float(measured.value),
        relation,
        float(predicted),
        slack,
        measured.trials,
        measured.where,
    )
