"""The report as data: equal for equal settings on one machine, except for "times"."""

from __future__ import annotations

import dataclasses
import math
import os
import platform
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy

from .. import __version__
from .tasks import AGREES, DISAGREES, INCONCLUSIVE, Outcome, Settings, papers
from .verdict import Verdict

__all__ = ["as_json", "environment", "verdict_entry"]


def environment() -> dict[str, str]:
    """What the numbers depend on."""
    return {
        "implicitref": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cores": str(os.cpu_count()),
    }


def as_json(
    outcomes: Sequence[Outcome], seed: int, size: float, seconds: float, *, level: str = "quick", backend: str = "numpy"
) -> dict[str, Any]:
    """The report.

    Of the run: "seed", "level" and the "size" it stands for, "backend", "command", "state", "environment", "times".
    Of every claim, beside the fields of the register: "state", "message", "verdicts"; "paper" (mon, sequential, fpn,
    jfb, ours) and "papers", all that it is about; "backend", the library it ran on, "numpy" where its validation knows
    no other; "command", which repeats it alone ("" for a definition).
    """
    settings = Settings(seed, size, level, backend)
    return {
        "schema": "implicitref-verification",
        "version": 1,
        "environment": environment(),
        "seed": seed,
        "level": level,
        "size": size,
        "backend": backend,
        "command": settings.command(),
        "state": _overall(outcomes),
        "claims": [_claim(o, settings) for o in outcomes],
        "times": {"total": seconds, **{o.claim.id: o.seconds for o in outcomes if o.verdicts}},
    }


def _overall(outcomes: Sequence[Outcome]) -> str:
    states = {o.state for o in outcomes}
    return DISAGREES if DISAGREES in states else INCONCLUSIVE if INCONCLUSIVE in states else AGREES


def _claim(outcome: Outcome, settings: Settings) -> dict[str, Any]:
    about = papers(outcome.claim)
    return dataclasses.asdict(outcome.claim) | {
        "paper": about[0],
        "papers": about,
        "backend": outcome.backend,
        "command": settings.command(outcome.claim.id) if outcome.claim.validation else "",
        "state": outcome.state,
        "message": outcome.message,
        "verdicts": [verdict_entry(v) for v in outcome.verdicts],
    }


def verdict_entry(v: Verdict) -> dict[str, Any]:
    """A verdict as JSON can hold it."""
    fields = dataclasses.asdict(v) | {"margin": v.margin, "holds": v.holds, "as_registered": v.as_registered}
    # JSON has no NaN and no infinity
    return {k: x if not isinstance(x, float) or math.isfinite(x) else str(x) for k, x in fields.items()}
