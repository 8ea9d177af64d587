"""The register stays honest: what it names exists, and what exists is named."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

import implicitref
from implicitref import claims

ROOT = Path(__file__).resolve().parents[1]
ENTRIES = claims.entries()
IDENTIFIER = re.compile(
    r"\b(?:MON|NEW|GREEDY|JFB|FPN)-[A-Z][A-Za-z]*[0-9A-Za-z.-]*[0-9A-Za-z]|\bNEW-[a-z][a-zA-Z0-9-]*[a-zA-Z0-9]"
)
SEED = re.compile(r"\bseed \d+\b|\bnot random\b")
# the statements of MON sections 3 and 4 and of its appendices, of FPN and JFB, and ours
REQUIRED = {
    *(f"MON-Eq{i}" for i in range(1, 29)),
    *(f"MON-Alg{i}" for i in range(1, 5)),
    *(f"MON-Thm{i}" for i in range(1, 4)),
    *(f"MON-EqA{i}" for i in range(1, 11)),
    *("MON-Prop1", "MON-Sec3.2-prox", "MON-Sec3.3-cholesky", "MON-Sec3.4-alpha", "MON-Sec3.5-cg", "MON-Sec4.1-cost"),
    *(f"MON-EqB{i}" for i in range(1, 6)),
    *(f"MON-EqC{i}" for i in range(1, 25)),
    *("MON-Sec4.2-kernel", "MON-Sec4.2-cost", "MON-Sec4.2-padding", "MON-Sec4.3-tiers", "MON-PropC1"),
    *("MON-Tab1", "MON-TabD1", "MON-TabD2", "MON-Fig2", "MON-Fig3", "MON-FigE2"),
    *("MON-AppA-strong", "MON-AppA-subdifferential", "MON-AppA-cayley"),
    *("MON-AppD.1-readout", "MON-AppD.2-weightnorm", "MON-AppD.2-alpha", "MON-AppD.2-onecycle"),
    *("NEW-prox-alpha", "NEW-not-prox", "NEW-strong-prox", "NEW-rate-fb", "NEW-rate-pr", "NEW-best-alpha"),
    *("NEW-cert-C1", "NEW-cert-C2", "NEW-cert-C3", "NEW-cert-B1", "NEW-backward-zero", "NEW-adjoint-norms"),
    *("NEW-stopping-fooled", "NEW-sensitivity", "NEW-homogeneity", "NEW-cert-G1", "NEW-relu-wellposed"),
    # FPN and JFB
    *(f"FPN-Eq{i}" for i in range(1, 65)),
    *(f"JFB-Eq{i}" for i in range(1, 23)),
    *(f"{paper}-{name}" for paper in ("FPN", "JFB") for name in ("Alg1", "Asm2.1", "Asm3.1", "Asm3.2", "Asm3.3")),
    *(f"{paper}-{name}" for paper in ("FPN", "JFB") for name in ("Rem2.1", "Rem3.1", "Thm2.1", "Thm3.1", "Cor3.1")),
    *("FPN-LemmaA.1", "FPN-LemmaA.2", "JFB-Tab1", "JFB-Tab2", "JFB-Fig5", "JFB-Fig6"),
    *("JFB-Sec1-mon-case", "NEW-cert-F1"),
    *("NEW-jfb-threshold", "NEW-jfb-batch", "NEW-jfb-relu-descent", "NEW-neumann-descent", "NEW-descent-constant"),
    # GREEDY: well-posedness, the implicit model
    *("GREEDY-Def1", "GREEDY-Def2", "GREEDY-Thm1", "GREEDY-Asm1", "GREEDY-Asm2", "GREEDY-Asm4", "GREEDY-Rem4"),
    *(f"GREEDY-Eq{i}" for i in range(1, 5)),
    *(f"GREEDY-Sec{name}" for name in ("I-perron", "II-norm", "II-relaxation")),
    # experiments of GREEDY
    *("GREEDY-Eq14", "GREEDY-SecV-bias", "GREEDY-SecV-capacity", "GREEDY-Fig3", "GREEDY-Fig4"),
    *(f"GREEDY-Tab{i}" for i in (1, 2, 3)),
    # block-triangular models of GREEDY
    *("GREEDY-Asm3", "GREEDY-Eq5", "GREEDY-SecIII-feedforward", "GREEDY-SecIII-count", "GREEDY-SecIII-connections"),
    *("GREEDY-Eq13", "GREEDY-Thm2", "GREEDY-Thm3", "GREEDY-Eq15"),
    # sequential training of GREEDY
    *(f"GREEDY-Eq{i}" for i in range(6, 13)),
    *("GREEDY-Alg1", "GREEDY-Alg2", "GREEDY-SecIV-cost", *(f"GREEDY-Rem{i}" for i in (1, 2, 3, 5, 6))),
}

COUNTS = {"MON": 98, "GREEDY": 46, "FPN": 76, "JFB": 37, "NEW": 23}


def marked() -> dict[str, set[str]]:
    """Claim id to the test files that mark it."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.claim":
                for argument in node.args:
                    found.setdefault(ast.literal_eval(argument), set()).add(path.relative_to(ROOT).as_posix())
    return found


MARKED = marked()


def resolve(dotted: str) -> object:
    """The module, class or function behind a dotted path."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for name in parts[cut:]:
            found = getattr(found, name)
        return found
    raise AssertionError(f"{dotted} does not resolve")


def test_every_statement_is_registered_once():
    assert set(claims.load()) == REQUIRED
    assert sum(len(entry.ids) for entry in ENTRIES) == len(REQUIRED) == 280
    # of each paper, so that an id cannot move from one to another unnoticed
    papers = [identifier.partition("-")[0] for identifier in REQUIRED]
    assert {paper: papers.count(paper) for paper in papers} == COUNTS


def test_every_id_has_one_anchor_in_the_documentation():
    anchors = {claims.anchor(identifier) for identifier in REQUIRED}
    assert len(anchors) == len(REQUIRED)  # small letters make no two ids one
    assert {anchor.partition("#")[0] for anchor in anchors} == {f"papers/{p.lower()}.html" for p in COUNTS}
    assert all(entry.docs == claims.anchor(entry.id) for entry in ENTRIES)
    assert claims.load()["MON-Sec3.2-prox"].docs == "papers/mon.html#mon-sec3.2-prox"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
def test_entry(entry):
    assert entry.title
    assert entry.source
    assert entry.as_implemented
    assert entry.code, "no code"
    for dotted in entry.code:
        assert resolve(dotted) is not None
    assert entry.tests, "no test"
    for test in entry.tests:
        path, _, name = test.partition("::")
        text = (ROOT / path).read_text(encoding="utf-8")
        assert not name or f"def {name}(" in text
        assert any(path in MARKED.get(i, ()) for i in entry.ids), f"{path} marks none of {entry.ids}"
    for identifier in entry.ids:
        assert MARKED.get(identifier), f"no test is marked @pytest.mark.claim({identifier!r})"


@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.status != "definition"], ids=lambda entry: entry.id)
def test_every_claim_has_a_validation_that_speaks_of_it(entry):
    module, _, name = entry.validation.partition(":")
    validation = importlib.import_module(f"{claims.validation().__name__}.{module}")
    assert name in validation.__all__
    verdicts = getattr(validation, name)(0, 0.02)
    assert any(v.claim == entry.id for v in verdicts)
    assert {v.claim for v in verdicts} <= {*entry.ids}
    for v in verdicts:
        assert v.trials == 1 or SEED.search(v.worst), (
            f"{v.statement}: {v.worst!r} does not say which seed reproduces it"
        )
    forms = {v.form for v in verdicts}
    assert "as implemented" in forms
    assert ("as printed" in forms) == (entry.status in ("corrected", "false"))
    if entry.status in ("corrected", "false"):
        assert entry.as_printed


def test_every_mark_and_every_id_in_a_docstring_is_registered():
    assert set(MARKED) <= REQUIRED
    package = Path(implicitref.__file__).parent
    folders = package, ROOT / "validation"
    for path in [p for folder in folders for p in folder.rglob("*.py")]:
        unknown = set(IDENTIFIER.findall(path.read_text(encoding="utf-8"))) - REQUIRED
        assert not unknown, f"{path.name} cites {sorted(unknown)}"


def test_the_scan_for_ids_sees_them():
    text = "[MON-Alg2, NEW-cert-C1] (MON-Sec3.4-alpha) MON-Alg9. NEW-later"
    assert IDENTIFIER.findall(text) == ["MON-Alg2", "NEW-cert-C1", "MON-Sec3.4-alpha", "MON-Alg9", "NEW-later"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [({"status": "true"}, "status must be one of"), ({"id": "MON-Eq1"}, "two entries answer for MON-Eq1")],
)
def test_a_wrong_entry_is_refused(change, complaint, monkeypatch):
    table = {"id": "X", "title": "t", "source": "s", "status": "holds", "as_implemented": "f"}
    first = table | {"id": "MON-Eq1"}
    monkeypatch.setattr(claims.tomllib, "loads", lambda text: {"claim": [first, table | change]})
    with pytest.raises(ValueError, match=complaint):
        claims.entries.__wrapped__()
