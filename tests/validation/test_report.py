"""The page of the report: formulas that parse, every card there, and what a browser makes of it."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET

import pytest

from implicitref import claims

NAME = claims.validation().__name__
record, report_module, tasks, verdict, plots = (
    importlib.import_module(f"{NAME}.{name}") for name in ("record", "report", "tasks", "verdict", "plots")
)
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FIGURES = ("MON-Eq28", "JFB-Eq4")  # drawing all of them belongs to the tests of the command


def outcome(claim):
    """What a check could have given, without checking."""
    if not claim.validation:
        return tasks.Outcome(claim, (), "definition")
    long = "a_statement_without_a_place_to_break" * 3
    holds = verdict.compare(claim.id, f"the bound {long}", 0.96, "<=", 1.0)
    fails = verdict.compare(claim.id, f"as the paper has it {long}", 1.5, "<=", 1.0, form="as printed")
    verdicts = (fails, holds) if claim.status in ("corrected", "false") else (holds,)
    return tasks.Outcome(claim, verdicts, "as registered")


@pytest.fixture(scope="module")
def page():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "_DRAWN", {name: plots._DRAWN[name] for name in FIGURES})
        return report_module.render(record.as_json([outcome(c) for c in tasks.everything()], 0, 1.0, 0.0))


# ------------------------------------------------------------------------------------------------
# formulas


LINES = [(name, line) for name, both in claims.formulas().items() for lines in both.values() for line in lines]


def text_of(formula):
    return "".join(ET.fromstring(report_module.mathml(formula)).itertext())


@pytest.mark.parametrize(("name", "line"), LINES, ids=[f"{name}-{k}" for k, (name, _) in enumerate(LINES)])
def test_every_formula_is_mathml(name, line):
    assert not re.search(r"[\\$&]|\bleft|\bright", text_of(line)), "a command that the converter does not know"


def test_a_command_that_is_none_is_seen():
    assert "\\" in text_of(r"\notacommand x")


def test_formulas_belong_to_entries_and_say_what_was_printed():
    entries = {entry.id: entry for entry in claims.entries()}
    assert set(claims.formulas()) <= set(entries)
    for entry in entries.values():
        if entry.status in ("corrected", "false"):
            assert entry.formula, f"{entry.id}: add it to formulas.toml"
            assert entry.formula_printed, f"{entry.id}: add it to formulas.toml"
            assert entry.formula != entry.formula_printed
        elif entry.status == "holds" and re.match(r"NEW-|[A-Z]+-(Thm|Prop|Alg|Lemma|Cor)", entry.id):
            assert entry.formula, f"{entry.id}: add it to formulas.toml"


# ------------------------------------------------------------------------------------------------
# the page


def test_every_entry_has_one_card_with_all_its_parts(page):
    cards = dict(re.findall(r'<article class="card[^"]*" id="([^"]+)"(.*?)</article>', page, re.DOTALL))
    assert set(cards) == {claim.id for claim in tasks.everything()}
    assert page.count("<article ") == len(cards)
    for claim in tasks.everything():
        card = cards[claim.id]
        assert card.count("<math") == len(claim.formula) + len(claim.formula_printed)
        assert ("as printed</h4>" in card) == bool(claim.as_printed)
        assert (f"implicitref verify --claim {claim.id} --seed 0" in card) == bool(claim.validation)
        assert all(f'id="{other}"' in card for other in claim.covers)
        assert ("<svg" in card) == (claim.id in FIGURES)
    assert "96.0 % of the bound" in cards["MON-Thm1"]


def test_the_page_is_small_and_without_a_network(page):
    assert len(page.encode()) < 3e6
    assert not re.search(r"""(src|href)=["'](?!#)|@import|url\((?!#)|https?://(?!www\.w3\.org)""", page)


def test_what_is_wrong_is_open_and_named_at_the_top():
    claim = claims.load()["MON-Thm1"]
    failing = verdict.compare(claim.id, "too large", 2.0, "<=", 1.0)
    page = report_module.render(record.as_json([tasks.Outcome(claim, (failing,), "disagrees")] * 2, 0, 1.0, 0.0))
    assert '<a href="#MON-Thm1">MON-Thm1</a> (disagrees)' in page
    assert page.count("<details open>") == 2


def test_formulas_are_escaped():
    assert "<script>" not in report_module.mathml(r"\text{<script>alert(1)</script>} <script>alert(1)</script>")


@pytest.mark.parametrize(
    ("relation", "measured", "predicted", "expected"),
    [
        ("<=", 0.5, 1.0, "50.0"),
        (">=", 4.0, 1.0, "25.0"),
        ("<=", 1.5, 1.0, ""),
        ("==", 1.0, 1.0, ""),
        ("<=", 1e-10, 2e-10, ""),
        ("<=", "nan", 1.0, ""),
        ("<=", -1.0, 1.0, ""),
    ],
)
def test_share_of_the_bound(relation, measured, predicted, expected):
    assert report_module.share({"relation": relation, "measured": measured, "predicted": predicted}) == expected


# ------------------------------------------------------------------------------------------------
# in a browser, inside a frame, since a window has a least width: a script looks at the page and tells what it found


PROBE = """
<script>
function widest() { return document.documentElement.scrollWidth - document.documentElement.clientWidth; }
function shown() { return document.querySelectorAll(".card:not([hidden])").length; }
function choose(name, value) { document.querySelector(`[name=${name}][value=${value}]`).click(); }
addEventListener("load", function () {
  const found = {width: innerWidth, cards: shown(), closed: widest()};
  document.getElementById("open").click();
  found.open = widest();
  found.tall = [...document.querySelectorAll("details")].every(d => d.open && d.offsetHeight > 60);
  found.maths = [...document.querySelectorAll("math")].filter(m => m.getBoundingClientRect().height > 10).length;
  const style = where => getComputedStyle(document.querySelector(where));
  found.colours = [style("body").color, style(".card").backgroundColor];
  choose("paper", "jfb"); found.jfb = shown();
  choose("status", "corrected"); found.corrected = shown();
  choose("paper", "all"); choose("status", "all");
  found.covered = document.getElementById("JFB-Eq5").closest(".card").id;
  parent.postMessage(JSON.stringify(found), "*");
});
</script>
"""
FRAME = """<!doctype html><meta name="color-scheme" content="light dark">
<pre></pre><iframe src="page.html" width="{}" height="900" style="border: 0"></iframe>
<script>addEventListener("message", event => {{ document.querySelector("pre").textContent = event.data; }});</script>
"""


def browse(page, folder, width, dark):
    """What the probe found, and what the browser had to complain about."""
    (folder / "page.html").write_text(page + PROBE, encoding="utf-8")
    (folder / "frame.html").write_text(FRAME.format(width), encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    command += [f"--user-data-dir={folder / 'profile'}", "--window-size=1500,900", "--virtual-time-budget=5000"]
    command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", (folder / "frame.html").as_uri()]
    run = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    found = re.search(r"<pre>(.*?)</pre>", run.stdout)[1]
    return json.loads(found) if found else None, [line for line in run.stderr.splitlines() if "CONSOLE" in line]


def luminance(colour):
    parts = [int(x) / 255 for x in re.findall(r"\d+", colour)[:3]]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.skipif(BROWSER is None, reason="no chromium here")
@pytest.mark.parametrize(("width", "dark"), [(380, True), (1400, False)])
def test_in_a_browser(page, tmp_path, width, dark):
    found, complaints = browse(page, tmp_path, width, dark)
    everything = tasks.everything()
    jfb = [c for c in everything if "jfb" in tasks.papers(c)]
    assert complaints == []
    assert (found["width"], found["cards"], found["tall"]) == (width, len(everything), True)
    assert (found["closed"], found["open"]) == (0, 0), "nothing sticks out"
    assert found["maths"] == len(LINES)
    assert (found["jfb"], found["corrected"]) == (len(jfb), sum(c.status == "corrected" for c in jfb))
    assert found["covered"] == claims.load()["JFB-Eq5"].id
    ink, paper = map(luminance, found["colours"])
    assert (ink > paper) == dark
    assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) > 7, "contrast"


@pytest.mark.skipif(BROWSER is None, reason="no chromium here")
def test_the_browser_sees_a_page_that_is_wrong(page, tmp_path):
    wide = page.replace("</h1>", '</h1><div style="width: 2000px">x</div>')
    found, complaints = browse(wide, tmp_path, 380, False)
    assert (found["closed"] > 1000, complaints) == (True, [])
    _, complaints = browse(page.replace("filter(); show();", "filter(; show();"), tmp_path, 380, False)
    assert any("SyntaxError" in line for line in complaints)
