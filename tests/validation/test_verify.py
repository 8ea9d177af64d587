"""``implicitref verify`` end to end at reduced size: table, JSON, HTML, exit statuses."""

from __future__ import annotations

import html.parser
import importlib
import io
import json
import math
import re
import sys
from argparse import Namespace

import pytest

from implicitref import claims
from implicitref.errors import ConvergenceError

NAME = claims.validation().__name__
run = importlib.import_module(f"{NAME}.run")
tasks = importlib.import_module(f"{NAME}.tasks")
report_module = importlib.import_module(f"{NAME}.report")
verdict = importlib.import_module(f"{NAME}.verdict")
rates = importlib.import_module("implicitref.splitting.rates")


def verify(folder, seed=0, claim=None, size=0.02, jobs=1, paper=None, **paths):
    paths = {kind: str(folder / f"report.{kind}") for kind in ("json", "html")} | paths
    return run.main(Namespace(seed=seed, claim=claim, size=size, jobs=jobs, paper=paper, **paths))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify")
    assert verify(folder) == 0
    return folder


def without_times(path):
    report = json.loads(path.read_text(encoding="utf-8"))
    assert set(report.pop("times")) > {"total", "JFB-Alg1"}
    return json.dumps(report)


def test_everything_comes_out_as_registered(folder, capsys):
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert (report["schema"], report["version"], report["state"]) == ("implicitref-verification", 1, "as registered")
    assert {i for c in report["claims"] for i in (c["id"], *c["covers"])} == {*claims.load(), "digits"}
    for claim in report["claims"]:
        assert claim["state"] == ("definition" if claim["status"] == "definition" else "as registered"), claim["id"]
        printed = [v for v in claim["verdicts"] if v["form"] == "as printed"]
        assert bool(printed) == (claim["status"] in ("corrected", "false"))
        assert not any(v["holds"] for v in printed)
    assert {"numpy", "scipy", "python", "platform"} <= set(report["environment"])


def test_the_json_is_the_same_for_the_same_seed_in_two_processes(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # the page needs it, the numbers do not
    for jobs in (1, 2):
        assert verify(tmp_path, paper="jfb", html=None, jobs=jobs, json=str(tmp_path / f"{jobs}.json")) == 0
    assert without_times(tmp_path / "1.json") == without_times(tmp_path / "2.json")


def test_another_seed_measures_something_else(folder, tmp_path):
    assert verify(tmp_path, seed=1, claim="NEW-cert-C1", html=None) == 0
    reports = [json.loads((place / "report.json").read_text(encoding="utf-8")) for place in (folder, tmp_path)]
    first, second = (next(c for c in r["claims"] if c["id"] == "NEW-cert-C1")["verdicts"] for r in reports)
    assert [v["statement"] for v in first] == [v["statement"] for v in second]
    assert first[0]["worst"] != second[0]["worst"]


class Links(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.external, self.ids, self.targets = [], [], []

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href"):
                (self.targets if value.startswith("#") else self.external).append(value)


def test_the_page_is_self_contained(folder):
    page = (folder / "report.html").read_text(encoding="utf-8")
    links = Links()
    links.feed(page)
    assert links.external == []
    assert not re.search(r"@import|url\((?!#)", page)
    assert len(links.ids) == len(set(links.ids)), "ids must be unique"
    assert {target[1:] for target in links.targets} <= set(links.ids)
    assert set(links.ids) >= {entry.id for entry in claims.entries()}
    assert page.count("<svg") >= 8
    assert "prefers-color-scheme: dark" in page


def test_whatever_a_verdict_says_is_escaped():
    bad = "<script>alert(1)</script>"
    entry = claims.Claim(bad, bad, bad, "holds", bad, as_printed=bad, hypotheses=bad)
    failing = verdict.compare("X", bad, math.nan, "<=", math.inf, worst=bad)
    outcome = run.Outcome(entry, (failing,), "disagrees", bad)
    page = report_module.render(run.as_json([outcome], 0, 1.0, 0.0))
    assert bad not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "measured <b>nan</b>" in page


def test_one_claim_prints_every_verdict_and_leaves_the_reports_alone(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert verify(tmp_path, claim="MON-Eq25", json=None, html=None) == 0
    printed = capsys.readouterr().out
    assert "fails, as it must" in printed
    assert printed.count("MON-Eq24") == 4
    assert list(tmp_path.iterdir()) == []


def test_a_disagreement_is_1_and_names_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(rates, "forward_backward_class", lambda m, L, alpha: 0.5)
    assert verify(tmp_path, claim="NEW-rate-fb", seed=7) == 1
    printed = capsys.readouterr().out
    assert "NOT AS REGISTERED" in printed
    assert "implicitref verify --claim NEW-rate-fb --seed 7" in printed
    assert 'class="card wrong"' in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_crash_is_1_and_says_what_happened(tmp_path, capsys, monkeypatch):
    monkeypatch.delattr(rates, "forward_backward_class")
    assert verify(tmp_path, claim="NEW-rate-fb") == 1
    assert "AttributeError" in capsys.readouterr().out


def test_a_solver_that_falls_short_is_3(tmp_path, capsys, monkeypatch):
    def short(*args, **kwargs):
        raise ConvergenceError("max_iter reached", None)

    monkeypatch.setattr(importlib.import_module("implicitref.mon"), "equilibrium", short)
    assert verify(tmp_path, claim="NEW-homogeneity") == 3
    assert "inconclusive: implicitref verify --claim NEW-homogeneity" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"claim": "MON-Alg5"}, "Did you mean MON-Alg"),
        ({"seed": -1}, "--seed must be >= 0"),
        ({"json": "/nonexistent/r.json"}, "no such folder"),
        ({"json": "."}, "is a folder"),
        ({"json": "same", "html": "same"}, "must name two files"),
    ],
)
def test_usage_is_2(arguments, complaint, tmp_path, capsys):
    assert verify(tmp_path, **arguments) == 2
    assert complaint in capsys.readouterr().err


def test_without_jinja2_the_json_is_written_and_the_extra_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "selected", lambda *which: tasks.selected("MON-Eq24"))
    assert verify(tmp_path, html=None) == 0
    assert "jinja2 is missing" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_a_page_that_is_asked_for_and_cannot_be_made_is_refused_before_anything_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert verify(tmp_path, claim="MON-Eq9") == 2
    assert "--html needs matplotlib" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_keeps_what_is_finished(tmp_path, capsys, monkeypatch):
    def check(claim, *rest, whole=tasks.check):
        if claim.id == "MON-Eq4":
            raise KeyboardInterrupt
        return whole(claim, *rest)

    monkeypatch.setattr(tasks, "check", check)
    assert verify(tmp_path) == 130
    printed, complaint = capsys.readouterr()
    assert "MON-Thm1" in printed
    assert "stopped after 2 entries; they are kept in" in complaint
    assert [p.name for p in tmp_path.iterdir()] == ["report.json.journal"]


def test_a_report_that_cannot_be_written_hides_no_disagreement(tmp_path, capsys, monkeypatch):
    def full(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr(run, "_write", full)
    assert verify(tmp_path, claim="MON-Eq9") == 2
    monkeypatch.setattr(rates, "forward_backward_class", lambda m, L, alpha: 0.5)
    assert verify(tmp_path, claim="NEW-rate-fb") == 1
    assert capsys.readouterr().err.count("could not be written: no space left") == 2


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("columns", [60, 80, 110, 160])
def test_the_rich_table_respects_no_color(columns, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert verify(tmp_path, claim="MON-Eq9") == 0
    assert out.getvalue().count("MON-Eq9 ") >= 3
    assert "━" in out.getvalue(), "a drawn table"
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", out.getvalue()), "no colour"


def test_a_terminal_without_rich_shows_plain_progress(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    err = Terminal()
    monkeypatch.setattr(sys, "stderr", err)
    assert verify(tmp_path, claim="MON-Eq9") == 0
    assert err.getvalue() == "[1/1] MON-Eq9\n"
    assert "MON-Eq9" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("measured", "relation", "predicted", "holds"),
    [
        (1.0, "<=", 1.0, True),
        (1.1, "<=", 1.0, False),
        (1.1, ">=", 1.0, True),
        (0.9, ">=", 1.0, False),
        (1.0, "==", 1.0, True),
        (1.1, "==", 1.0, False),
        (math.nan, "<=", 1.0, False),
        (math.inf, "<=", 1.0, False),
    ],
)
def test_relations(measured, relation, predicted, holds):
    assert verdict.compare("X", "x", measured, relation, predicted).holds is holds


def test_the_largest_of_many_remembers_where_and_never_hides_nan():
    found = verdict.largest([([1.0, 5.0], "a"), (2.0, "b"), ([], "c")])
    assert found == (5.0, "a, sample 1", 3)
    assert math.isnan(verdict.largest([(9.0, "a"), (math.nan, "b"), (10.0, "c")]).value)
