"""The report as one self-contained page. Needs jinja2 and matplotlib; everything that is inserted is escaped."""

from __future__ import annotations

from importlib import resources
from typing import Any

from .run import number

__all__ = ["render"]

STATUSES = ("holds", "corrected", "false", "definition")


def render(report: dict[str, Any]) -> str:
    """The page of a report of `run.as_json`."""
    import jinja2
    import markupsafe

    from . import plots

    wanted = {claim["id"] for claim in report["claims"]}
    drawn = {
        identifier: {"svg": markupsafe.Markup(image), "caption": caption}  # our own figures, no outside text in them
        for identifier, (image, caption) in plots.figures(report["seed"], wanted).items()
    }
    source = resources.files(__package__).joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["number"] = lambda x: x if isinstance(x, str) else number(x)
    return environment.from_string(source).render(
        report=report, figures=drawn, counts=_counts(report), statuses=STATUSES, problems=_problems(report)
    )


def _counts(report: dict[str, Any]) -> dict[str, int]:
    claims = [c for c in report["claims"] if c["id"] != "digits"]
    counts = {status: sum(c["status"] == status for c in claims) for status in STATUSES}
    verdicts = [v for c in report["claims"] for v in c["verdicts"]]
    ids = sum(1 + len(c["covers"]) for c in claims)
    return counts | {"verdicts": len(verdicts), "trials": sum(v["trials"] for v in verdicts), "ids": ids}


def _problems(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [c for c in report["claims"] if c["state"] in ("disagrees", "inconclusive")]
