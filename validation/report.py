"""The report as one self-contained page. Needs the extra `report`; everything that is inserted is escaped."""

from __future__ import annotations

import math
from importlib import resources
from typing import Any

from ..claims import anchor, load
from .table import number

__all__ = ["mathml", "render", "share"]

TOLERANCE = 1e-4  # what is predicted below it is a tolerance for rounding or for a solver, no bound of a theorem
STATUSES = {
    "holds": "registered as true",
    "corrected": "true after correction",
    "false": "false",
    "definition": "definitions",
}
TITLES = {
    "mon": "Monotone operator equilibrium networks",
    "sequential": "Sequential training of implicit models",
    "fpn": "Fixed point networks",
    "jfb": "Jacobian-free backpropagation",
    "ours": "In no paper: sharp rates, certificates, thresholds",
}


def render(report: dict[str, Any]) -> str:
    """The page of a report of `record.as_json`."""
    import jinja2
    import markupsafe

    from . import plots

    wanted = {claim["id"] for claim in report["claims"]}
    drawn = {
        identifier: {"svg": markupsafe.Markup(image), "caption": caption}  # our own figures, no outside text in them
        for identifier, (image, caption) in plots.figures(report["seed"], wanted).items()
    }
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {
        "docs": lambda identifier: anchor(identifier) if identifier in load() else "",
        "number": lambda x: x if isinstance(x, str) else number(x),
        "mathml": lambda x: markupsafe.Markup(mathml(x)),
        "share": share,
    }
    source = resources.files(__package__).joinpath("report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        report=report, figures=drawn, counts=_counts(report), problems=_problems(report), papers=_papers(report),
        statuses=STATUSES, titles=TITLES,
    )  # fmt: skip


def mathml(formula: str) -> str:
    r"""A formula in LaTeX as a MathML element.

    Examples
    --------
    >>> mathml(r"\alpha < 1")[-33:]
    '<mo>&#x0003C;</mo><mn>1</mn></mrow></math>'
    """
    from latex2mathml.converter import convert

    # within \text the converter would let tags through
    return str(convert(formula.replace("<", r"\lt ").replace(">", r"\gt "), display="block"))


def share(verdict: dict[str, Any]) -> str:
    """How far the worst case went towards its bound, in percent; empty where that says nothing.

    Examples
    --------
    >>> share({"relation": "<=", "measured": 0.4785, "predicted": 0.5})
    '95.7'
    >>> share({"relation": "<=", "measured": 1e-15, "predicted": 1e-9})
    ''
    """
    measured, predicted, relation = verdict["measured"], verdict["predicted"], verdict["relation"]
    if relation == "==" or isinstance(measured, str) or isinstance(predicted, str):
        return ""
    if min(measured, predicted) <= TOLERANCE:
        return ""
    part = measured / predicted if relation == "<=" else predicted / measured
    return f"{math.floor(1000 * part) / 10:.1f}" if 0.05 <= part <= 1 else ""


def _counts(report: dict[str, Any]) -> dict[str, int]:
    claims = [c for c in report["claims"] if c["id"] != "digits"]
    counts = {status: sum(c["status"] == status for c in claims) for status in STATUSES}
    verdicts = [v for c in report["claims"] for v in c["verdicts"]]
    ids = sum(1 + len(c["covers"]) for c in claims)
    return counts | {"verdicts": len(verdicts), "trials": sum(v["trials"] for v in verdicts), "ids": ids}


def _papers(report: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    found = {name: [c for c in report["claims"] if c["paper"] == name] for name in TITLES}
    return {name: claims for name, claims in found.items() if claims}


def _problems(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [c for c in report["claims"] if c["state"] in ("disagrees", "inconclusive")]
