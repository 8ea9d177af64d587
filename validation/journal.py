"""The finished outcomes of a run that has not ended, one a line of JSON, so that nothing finished is computed twice."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..archives import write_atomically
from ..claims import Claim
from .tasks import Outcome, everything
from .verdict import Verdict

__all__ = ["add", "begin", "differences", "read"]


def begin(path: Path, settings: dict[str, Any], kept: Iterable[Outcome]) -> None:
    """Start a journal with what is kept of an earlier one, in one step: the earlier one is whole until then."""
    text = "".join([_line(settings), *(_line(_entry(o)) for o in kept)])
    write_atomically(path, lambda file: file.write(text.encode()))


def add(path: Path, outcome: Outcome) -> None:
    """Append one finished outcome."""
    with path.open("a", encoding="utf-8") as journal:
        journal.write(_line(_entry(outcome)))


def read(path: Path) -> tuple[dict[str, Any], list[Outcome]]:
    """The settings of a journal and its outcomes; a torn line, and what follows it, is left out.

    Raises
    ------
    ValueError
        The first line is not the settings of a run, or an entry is not of this version: this is no such journal.
    """
    first, *rest = path.read_text(encoding="utf-8", errors="replace").split("\n")
    settings = _parsed(first)
    if "seed" not in settings:
        raise ValueError(f"{path} is no journal of a verification.")
    known = {claim.id: claim for claim in everything()}
    entries = itertools.takewhile(lambda entry: entry.get("claim") in known, map(_parsed, rest))
    try:
        return settings, [_outcome(entry, known[entry["claim"]]) for entry in entries]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} was written by another version: {error}.") from None


def _outcome(entry: dict[str, Any], claim: Claim) -> Outcome:
    verdicts = tuple(Verdict(**v) for v in entry["verdicts"])
    return Outcome(**entry | {"claim": claim, "verdicts": verdicts})


def differences(earlier: dict[str, Any], now: dict[str, Any]) -> str:
    """What the settings of two runs differ in, in words."""
    keys = [key for key in {**now, **earlier} if earlier.get(key) != now.get(key)]
    return "; ".join(f"{key} was {earlier.get(key)}, is {now.get(key)}" for key in keys)


def _entry(outcome: Outcome) -> dict[str, Any]:
    verdicts = [dataclasses.asdict(v) for v in outcome.verdicts]
    return vars(outcome) | {"claim": outcome.claim.id, "verdicts": verdicts}


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry) + "\n"  # NaN and infinity as Python reads them back


def _parsed(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
