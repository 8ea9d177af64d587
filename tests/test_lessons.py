"""The lessons: their cells run as scripts, every claim in them is asserted, each ends with what goes wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "lessons"
LESSONS = sorted(FOLDER.glob("[0-9]*.md"))
CELL = re.compile(r"^```\{code-cell\} python\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
INCLUDE = re.compile(r"^```\{literalinclude\} (\S+)\n:pyobject: (\S+)$", flags=re.MULTILINE)
SLOW = {"13-digits", "14-crosscheck"}  # the build of the documentation runs every lesson too


def text(lesson: Path) -> str:
    return lesson.read_text(encoding="utf-8")


def script(lesson: Path) -> str:
    """The cells of a lesson, without what only a notebook understands (tags, magics)."""
    lines = "\n".join(CELL.findall(text(lesson))).splitlines()
    return "\n".join(line for line in lines if not line.startswith((":tags:", "%")))


def lessons() -> list[object]:
    marks = {lesson: [pytest.mark.slow] if lesson.stem in SLOW else [] for lesson in LESSONS}
    return [pytest.param(lesson, id=lesson.stem, marks=mark) for lesson, mark in marks.items()]


@pytest.mark.parametrize("lesson", lessons())
def test_the_cells_run(lesson):
    pytest.importorskip("matplotlib")
    exec(compile(script(lesson), lesson.name, "exec"), {"__name__": lesson.stem})


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)
def test_claims_are_asserted_and_the_end_is_a_mistake(lesson):
    sections = re.split(r"^## ", text(lesson), flags=re.MULTILINE)
    assert sections[-1].startswith("Break it\n")
    assert "assert " in sections[-1]
    assert len(re.findall(r"^\s*assert ", script(lesson), flags=re.MULTILINE)) >= 5


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)
def test_the_code_shown_is_the_shipped_code(lesson):
    for path, name in INCLUDE.findall(text(lesson)):
        source = (FOLDER / path).resolve().read_text(encoding="utf-8")
        last = name.split(".")[-1]
        assert re.search(rf"^\s*(def|class) {last}\b", source, flags=re.MULTILINE), f"{path} has no {name}"


def test_there_are_fourteen_and_the_index_lists_them():
    assert [int(lesson.stem[:2]) for lesson in LESSONS] == list(range(1, 15))
    index = (FOLDER / "index.md").read_text(encoding="utf-8")
    toctree = re.search(r"```\{toctree\}(.*?)```", index, flags=re.DOTALL)[1]
    assert [line for line in toctree.split() if line[0].isdigit()] == [lesson.stem for lesson in LESSONS]


def test_the_reader_of_cells_sees_what_it_should(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "a\n```{code-cell} python\n:tags: [hide-input]\n%matplotlib inline\nassert 1\n```\nb\n```python\n2\n```\n"
    )
    assert script(page) == "assert 1"
