"""Validations: does each theorem's property hold, how tight is its bound, do independent methods agree.

One file a family of claims. A check is a function ``check(seed, size)`` that returns verdicts; the register of claims
(claims.toml) names the check of every claim, and `run` runs them all. ``size`` scales the number of trials.
"""

from __future__ import annotations

from .verdict import DROPPED, IMPLEMENTED, PRINTED, Verdict

__all__ = ["DROPPED", "IMPLEMENTED", "PRINTED", "Verdict"]
