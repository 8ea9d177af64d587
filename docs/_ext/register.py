"""The pages that come from the register of claims and from the last `implicitref verify`.

In a Markdown page a line `% claims: MON` stands for every statement of that paper, in the paper's order, and
`% evidence` for the table of all measurements; [MON-Thm1] in running text becomes a link to the statement.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import api
from api import ID

from implicitref import claims
from implicitref.claims import Claim

HERE = Path(__file__).resolve().parents[1]
REPORT = HERE / "_build" / "report.json"
PAPERS = ("MON", "FPN", "JFB", "GREEDY", "NEW")
COLOURS = {"holds": "success", "corrected": "warning", "false": "danger", "definition": "secondary"}
APPENDIX = 100
# the section in which the numbered equations of FPN and JFB stand: (first equation, section)
SECTIONS = {
    "JFB": ((1, "1"), (6, "2"), (11, "3")),
    "FPN": ((1, "1"), (3, "2"), (8, "3"), (19, "A")),
}
ALGORITHM = 7  # Algorithm 1, which has no number of the kind, stands beside this equation in both


# ------------------------------------------------------------------------------------------------
# what is known of a claim


@functools.cache
def report() -> dict[str, Any]:
    """The report of the last verification."""
    if not REPORT.is_file():
        raise FileNotFoundError(
            "the documentation shows what the last verification measured: run "
            "`implicitref verify --json docs/_build/report.json --html docs/_build/report.html` first."
        )
    content: dict[str, Any] = json.loads(REPORT.read_text(encoding="utf-8"))
    return content


@functools.cache
def outcomes() -> MappingProxyType[str, dict[str, Any]]:
    """What the last verification found, by claim."""
    return MappingProxyType({outcome["id"]: outcome for outcome in report()["claims"]})


@functools.cache
def mentions(folder: str) -> dict[str, list[str]]:
    """Claim id to the pages (lessons, the errata) that speak of it, in their order."""
    found: dict[str, list[str]] = {}
    for path in sorted(HERE.glob(folder)):
        for identifier in sorted(set(re.findall(ID, path.read_text(encoding="utf-8")))):
            found.setdefault(identifier, []).append(path.relative_to(HERE).as_posix())
    return found


@functools.cache
def errata() -> dict[str, list[str]]:
    """Claim id to the numbers of the errata that speak of it."""
    path, found = HERE / "errata.md", dict[str, list[str]]()
    for number, text in re.findall(r"^\((e\d+)\)=\n(.*?)(?=^\(e\d+\)=|\Z)", path.read_text("utf-8"), re.M | re.S):
        for identifier in sorted(set(re.findall(rf"\[({ID})\]", text))):
            found.setdefault(identifier, []).append(number)
    return found


# ------------------------------------------------------------------------------------------------
# the order of a paper


def anchor(identifier: str) -> str:
    """The anchor of a claim on its page."""
    return claims.anchor(identifier).partition("#")[2]


def section(paper: str, claim: Claim) -> str:
    """The section of the paper that a statement stands in: "3.2", "II-A", "A"; empty for our own."""
    own = next((part for part in re.split(r"; (?=[A-Z]{3})", claim.source) if part.startswith(paper)), claim.source)
    said = re.search(r"(?:sections?|appendix) ([0-9A-Z]+(?:[.-][0-9A-Z]+)*)", own)
    if paper not in SECTIONS:
        return said[1].replace(".", "-" if paper == "GREEDY" else ".") if said else ""
    identifiers = " ".join(i for i in claim.ids if i.startswith(paper))
    named = re.search(r"-(?:Thm|Asm|Rem|Cor|Sec|Lemma)([0-9A-Z])", identifiers)
    numbers = [int(n) for n in re.findall(r"-Eq(\d+)", identifiers)]
    counted = [name for first, name in SECTIONS[paper] if first <= min(numbers, default=ALGORITHM)][-1]
    return named[1] if named else counted if numbers or not said else said[1]


ROMAN = {"I": 1, "II": 2, "III": 3, "IV": 4, "V": 5, "VI": 6}


def place(paper: str, claim: Claim) -> tuple[int, ...]:
    """What to sort by: sections in their order, appendices after them."""
    name = section(paper, claim)
    if paper == "GREEDY" and "appendix" not in claim.source:
        head, _, rest = name.partition("-")
        return ROMAN.get(head, APPENDIX), ord(rest[0]) if rest else 0
    parts = re.split(r"[.-]", name)
    return tuple(int(p) if p.isdigit() else APPENDIX + ord(p[0]) for p in parts if p)


def heading(paper: str, claim: Claim) -> str:
    """The heading that a statement stands under: sections are not split further."""
    if paper == "NEW":
        return next(name for name, pattern in OURS.items() if re.search(pattern, claim.id))
    name = section(paper, claim)
    if paper == "GREEDY":
        return f"{'Appendix' if 'appendix' in claim.source else 'Section'} {name.split('-')[0]}"
    return f"Appendix {name[0]}" if name[0].isalpha() else f"Section {name}"


OURS = {
    "Certificates": r"-cert-",
    "Rates, steps, stopping": r"-rate-|-best-alpha|-stopping",
    "When leaving the Jacobian out descends": r"-jfb-|descent",
    "Proximal maps": r"prox",
    "Equilibria and their adjoints": "",
}


def of(paper: str) -> list[Claim]:
    """The entries that answer for a statement of this paper, in its order."""
    chosen = [c for c in claims.entries() if any(i.startswith(paper + "-") for i in c.ids)]
    if paper == "NEW":
        return sorted(chosen, key=lambda claim: list(OURS).index(heading(paper, claim)))
    return sorted(chosen, key=lambda claim: place(paper, claim))


# ------------------------------------------------------------------------------------------------
# Markdown


def statements(paper: str) -> Iterator[str]:
    """Every statement of a paper, under the headings of its sections."""
    last = ""
    for claim in of(paper):
        if heading(paper, claim) != last:
            last = heading(paper, claim)
            yield f"\n## {last}\n"
        full = claim.id.startswith(paper + "-")
        yield from _entry(claim) if full else _reference(paper, claim)


def _targets(identifiers: Iterable[str]) -> Iterator[str]:
    for identifier in identifiers:
        yield f"({anchor(identifier)})="
    yield ""


def _spans(identifiers: Iterable[str]) -> str:
    """Anchors whose names Sphinx would change (a dot becomes a hyphen)."""
    dotted = [anchor(i) for i in identifiers if "." in i]
    return "".join(f'<span id="{name}"></span>' for name in dotted)


def _entry(claim: Claim) -> Iterator[str]:
    own = [i for i in claim.ids if i.split("-")[0] == claim.id.split("-")[0]]
    yield from _targets(own)
    yield f"### {claim.id}: {prose(claim.title)}\n"
    yield f"{_spans(own)}{{bdg-{COLOURS[claim.status]}}}`{claim.status}` {prose(claim.source)}\n"
    if claim.hypotheses:
        yield f"**Hypotheses.** {prose(claim.hypotheses)}\n"
    yield f"**As implemented.** {prose(claim.as_implemented)}\n"
    yield from _display(claim.formula)
    if claim.as_printed:
        yield f"**As printed.** {prose(claim.as_printed)}\n"
        yield from _display(claim.formula_printed)
    yield from _evidence(claim)
    yield from _links(claim)


def _display(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield f"$$\n{line}\n$$\n"


def _reference(paper: str, claim: Claim) -> Iterator[str]:
    """A statement that is the same as one of another paper, where everything is said."""
    own = [i for i in claim.ids if i.startswith(paper + "-")]
    yield from _targets(own)
    yield f"### {', '.join(_abbreviated(own))}: {prose(claim.title)}\n"
    yield f"{_spans(own)}{{bdg-{COLOURS[claim.status]}}}`{claim.status}` the same as [{claim.id}].\n"


def _abbreviated(identifiers: list[str]) -> list[str]:
    return identifiers if len(identifiers) <= 4 else [*identifiers[:3], "...", identifiers[-1]]


def _evidence(claim: Claim) -> Iterator[str]:
    outcome = outcomes().get(claim.id)
    if claim.status == "definition":
        return
    if outcome is None:
        yield "**Evidence.** Not in the last verification.\n"
        return
    verdicts, message = outcome["verdicts"], outcome.get("message", "")
    yield f"**Evidence.** {prose(outcome['state'] + (': ' + message if message else ''))}\n"
    if verdicts:
        yield from (":::{rst-class} claim", ":::", "")
        yield "| what is measured | measured | | predicted | trials | verdict |"
        yield "|---|---|---|---|---|---|"
        yield from (f"| {' | '.join(_cells(v))} |" for v in verdicts)
        yield ""


def _cells(v: dict[str, Any]) -> tuple[str, ...]:
    form = "" if v["form"] == "as implemented" else f"*{prose(v['form'])}*: "
    word = ("holds" if v["holds"] else "fails") + ("" if v["as_registered"] else ": **not as registered**")
    relation = {"<=": "≤", ">=": "≥", "==": "="}[v["relation"]]
    return form + prose(v["statement"]), number(v["measured"]), relation, number(v["predicted"]), str(v["trials"]), word


def number(x: float | str) -> str:
    """Four digits; integers as they are."""
    x = float(x)
    return str(int(x)) if math.isfinite(x) and x == int(x) and abs(x) < 1e7 else f"{x:.4g}"


def _links(claim: Claim) -> Iterator[str]:
    parts = ["code " + ", ".join(_code(path) for path in claim.code)] if claim.code else []
    if claim.validation:
        parts.append(f"`implicitref verify --claim {claim.id}`")
    lessons = [page for i in claim.ids for page in mentions("lessons/*.md").get(i, ()) if "index" not in page]
    if lessons:
        parts.append("lesson " + ", ".join(f"{{doc}}`/{page.removesuffix('.md')}`" for page in dict.fromkeys(lessons)))
    wrong = dict.fromkeys(n for i in claim.ids for n in errata().get(i, ()))
    if wrong:
        parts.append("erratum " + ", ".join(f"{{ref}}`{n.upper()} <{n}>`" for n in wrong))
    if parts:
        yield "**See** " + "; ".join(parts) + ".\n"


def _code(path: str) -> str:
    known = api.documented().get(path)
    if known is not None:
        return f"{{py:obj}}`{path.removeprefix('implicitref.')} <{known.path}>`"
    is_module = any(module.__name__ == path for module in api.modules())
    return f"{{py:mod}}`{path}`" if is_module else f"`{path}`"


def evidence() -> Iterator[str]:
    """Every measurement of the last verification in one table."""
    made = ", ".join(f"{name} {value}" for name, value in report()["environment"].items())
    states: dict[str, int] = {}
    for outcome in outcomes().values():
        states[outcome["state"]] = states.get(outcome["state"], 0) + 1
    counted = ", ".join(f"{count} {state}" for state, count in states.items())
    yield f"**{counted}** (seed {report()['seed']}; {prose(made)}).\n"
    yield "| claim | what is measured | measured | | predicted | trials | verdict |"
    yield "|---|---|---|---|---|---|---|"
    for outcome in outcomes().values():
        link = f"[{outcome['id']}]" if outcome["id"] in claims.load() else prose(outcome["title"])
        yield from (f"| {link} | {' | '.join(_cells(v))} |" for v in outcome["verdicts"])
    yield ""


def prose(text: str) -> str:
    """Plain text as Markdown: every sign stands for itself."""
    return re.sub(r"([\\`*_{}\[\]<>#|$~])", r"\\\1", text)


def cited(text: str) -> str:
    """[ID] in running text, outside code, becomes a link."""
    parts = re.split(r"(^(?:```|:::\{code).*?^(?:```|:::)\s*$|`[^`\n]+`)", text, flags=re.M | re.S)
    parts[::2] = [re.sub(rf"(?<!\\)\[({ID}(?:, {ID})*)\](?![(\[:])", _link, part) for part in parts[::2]]
    return "".join(parts)


def _link(match: re.Match[str]) -> str:
    identifiers = match[1].split(", ")
    if not set(identifiers) <= set(claims.load()):
        return match[0]
    return ", ".join(f"{{ref}}`{i} <{anchor(i)}>`" for i in identifiers)


def expanded(text: str) -> str:
    """A page, its lines that begin with % replaced by what they ask for."""
    text = re.sub(r"^% claims: (\w+)$", lambda m: "\n".join(statements(m[1])), text, flags=re.M)
    text = re.sub(r"^% evidence$", lambda m: "\n".join(evidence()), text, flags=re.M)
    return cited(text)


def _read(app: Any, docname: str, source: list[str]) -> None:
    if str(app.env.doc2path(docname)).endswith(".md"):
        source[0] = expanded(source[0])


def _changed(app: Any, env: Any, added: Any, changed: Any, removed: Any) -> list[str]:
    """Pages made of the register are read again at every build."""
    return [f"papers/{paper.lower()}" for paper in PAPERS] + ["evidence"]


def setup(app: Any) -> dict[str, bool]:
    """Expand a page when it is read."""
    app.connect("source-read", _read)
    app.connect("env-get-outdated", _changed)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
