"""What makes the documentation: every public name, claim and erratum is on a page, and broken links are seen."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from implicitref import claims

DOCS = Path(__file__).resolve().parents[2] / "docs"
sys.path.insert(0, str(DOCS / "_ext"))
api, links, register = (importlib.import_module(name) for name in ("api", "links", "register"))

MODULES = [module.__name__ for module in api.modules()]


def undescribed(module: ModuleType, page: str) -> list[str]:
    """The public names of a module that its page neither describes nor points to."""
    return [n for n in api.names(module) if not re.search(rf"(:: |`){re.escape(module.__name__)}\.{n}\b|\.{n}`", page)]


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_is_on_the_page_of_its_module(name):
    module = importlib.import_module(name)
    assert undescribed(module, api.page(module)) == []


def test_every_object_is_described_once_and_no_module_is_forgotten():
    pages = "\n".join(api.page(module) for module in api.modules())
    described = re.findall(r"^\.\. (?:autofunction|autoclass|py:data):: (\S+)$", pages, flags=re.MULTILINE)
    assert len(described) == len(set(described))
    assert set(described) == {entry.path for entry in api.entries() if entry.kind != "module"}
    package = DOCS.parent / "implicitref"
    files = {p.relative_to(package.parent).with_suffix("") for p in package.rglob("*.py") if not p.stem.startswith("_")}
    assert {".".join(file.parts) for file in files if api.public(".".join(file.parts))} <= set(MODULES)


def test_a_name_that_is_left_out_is_noticed():
    module = importlib.import_module("implicitref.mon")
    page = "\n".join(line for line in api.page(module).splitlines() if "equilibrium_vjp" not in line)
    assert undescribed(module, page) == ["equilibrium_vjp"]


def test_signs_of_formulas_in_docstrings_are_letters_and_ids_are_links():
    text = ["``z*`` has |z*| <= ||b||/m, u*_d, *any* [MON-Thm1] [MON-Nope]", ">>> 2 * x_", "", "coef_ of z_half"]
    assert api.readable(text) == [
        r"``z*`` has \|z*| <= \|\|b||/m, u*_d, \*any* [:ref:`MON-Thm1 <mon-thm1>`] [MON-Nope]",
        ">>> 2 * x_",
        "",
        r"coef\_ of z_half",
    ]


# ------------------------------------------------------------------------------------------------
# the register


@pytest.fixture
def pages(monkeypatch):
    """The statements of every paper, before anything was measured."""
    monkeypatch.setattr(register, "outcomes", dict)
    return {paper: "\n".join(register.statements(paper)) for paper in register.PAPERS}


def test_every_id_has_one_anchor_and_it_is_on_the_page_of_its_paper(pages):
    for paper, text in pages.items():
        found = re.findall(r"^\(([\w.-]+)\)=$", text, flags=re.MULTILINE)
        assert sorted(found) == sorted(i.lower() for i in claims.load() if i.startswith(paper + "-"))


def test_anchors_with_dots_are_kept_as_they_are(pages):
    assert '<span id="jfb-thm2.1"></span>' in pages["JFB"]
    assert '<span id="fpn-thm2.1"></span>' in pages["FPN"]


@pytest.mark.parametrize(
    ("paper", "order"),
    [
        (
            "MON",
            ["Section 3.2", "Section 3.3", "Section 3.4", "Section 3.5", "Section 4.1", "Section 4.2", "Section 4.3"],
        ),
        ("GREEDY", ["Section I", "Section II", "Section III", "Section IV", "Section V"]),
        ("JFB", ["Section 1", "Section 2", "Section 3"]),
        ("FPN", ["Section 1", "Section 2", "Section 3", "Appendix A"]),
    ],
)
def test_statements_come_in_the_order_of_the_paper(pages, paper, order):
    headings = re.findall(r"^## (.+)$", pages[paper], flags=re.MULTILINE)
    assert [heading for heading in headings if heading in order] == order
    assert len(headings) == len(set(headings))


def test_ids_in_running_text_become_links_but_not_in_code():
    text = "See [MON-Thm1, MON-Eq3], `[MON-Thm1]` and [MON-Nope].\n```python\nx  # [MON-Thm1]\n```\n[MON-Thm1](other)\n"
    assert register.cited(text) == text.replace(
        "[MON-Thm1, MON-Eq3]", "{ref}`MON-Thm1 <mon-thm1>`, {ref}`MON-Eq3 <mon-eq3>`"
    )


# ------------------------------------------------------------------------------------------------
# errata


@functools.cache
def errata() -> dict[str, str]:
    text = (DOCS / "errata.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\((e\d+)\)=\n(.*?)(?=^\(e\d+\)=|^## |\Z)", text, flags=re.MULTILINE | re.DOTALL))


def test_every_erratum_is_there_once_cites_a_claim_and_asserts_what_it_shows():
    assert list(errata()) == [f"e{i}" for i in range(1, 46)]
    for number, text in errata().items():
        assert text.startswith(f"### {number.upper()}: ")
        assert set(re.findall(rf"\[({register.ID})\]", text)) & set(claims.load()), number
        _prose, code = text.split("```{code-cell} python\n")
        assert "assert " in code, number
        assert len(code.split("```")[0].strip().splitlines()) <= 6, number


def test_the_errata_run():
    text = (DOCS / "errata.md").read_text(encoding="utf-8")
    names: dict[str, object] = {"print": lambda *shown: None}
    for cell in re.findall(r"^```\{code-cell\} python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        exec(compile(cell, "errata.md", "exec"), names)


# ------------------------------------------------------------------------------------------------
# links


def site(folder: Path, **pages: str) -> list[str]:
    """What is broken in these pages."""
    for name, text in pages.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return list(links.broken(folder))


def test_links_that_lead_somewhere_pass(tmp_path):
    assert site(tmp_path, a='<a href="b.html#x">', b='<p id="x"><a href="a.html"><a href="https://x.org/none">') == []


@pytest.mark.parametrize("link", ["b.html#y", "c.html", "#nowhere", "img/none.png"])
def test_a_broken_link_is_seen(tmp_path, link):
    assert site(tmp_path, a=f'<a href="{link}">', b='<p id="x">') == [f"a.html: {link}"]


# ------------------------------------------------------------------------------------------------
# docstrings


def incomplete(doc: str, parameters: list[str]) -> list[str]:
    """Parameters that a section of that name leaves out; a docstring without the section says all in its sentences."""
    section = re.search(r"^ *Parameters\n *-+\n(.*?)(?=^ *[A-Z][a-z]+\n *-+\n|\Z)", doc, flags=re.MULTILINE | re.DOTALL)
    return [p for p in parameters if section and not re.search(rf"(?<!\w){p}(?!\w)", section[1])]


def test_a_section_of_parameters_names_them_all():
    found = {}
    for entry in api.entries():
        thing = getattr(importlib.import_module(entry.home), entry.name, None) if entry.kind == "function" else None
        if thing is not None:
            missing = incomplete(inspect.getdoc(thing) or "", list(inspect.signature(thing).parameters))
            found.update({entry.path: missing} if missing else {})
    assert found == {}


def test_a_parameter_that_is_left_out_is_noticed():
    assert incomplete("What.\n\nParameters\n----------\nx : int\n\nReturns\n-------\ny\n", ["x", "y"]) == ["y"]
