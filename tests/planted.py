"""A planted bug has to be noticed by the validation of a claim: one check for all modules of controls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from implicitref import claims


def check_noticed(run: Any, plant: Callable[[Any], None], claim: str, monkeypatch: Any) -> None:
    """The claim is as registered, and with the bug disagrees in a verdict, without a crash."""
    entry = claims.load()[claim]
    assert run.check(entry, 0, 0.1).state == "as registered"
    plant(monkeypatch)
    outcome = run.check(entry, 0, 0.1)
    assert outcome.message == "", "it has to be a verdict that fails, not a crash"
    assert outcome.state == "disagrees"
    assert any(not v.as_registered for v in outcome.verdicts)
