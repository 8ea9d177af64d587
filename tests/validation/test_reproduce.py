"""What the command reproduce leaves behind, and the figures of tables."""

from __future__ import annotations

import csv
import importlib
import json
import sys

import pytest

from implicitref import __main__ as cli
from implicitref import claims

package = claims.validation().__name__
artefacts, reproduce, figures, table_d1 = (
    importlib.import_module(f"{package}.{name}") for name in ("artefacts", "reproduce", "mon_figures", "table_d1")
)
RECORDS = [{"name": "a", "value": 1.5, "printed": None}, {"name": "b, c", "value": 2.0, "printed": 2}]


def run(*arguments):
    return cli.main(["reproduce", *map(str, arguments)])


def lines(figure):
    rows = [artefacts.Line("ours", (1.0, 2.0, 4.0), 3.0), artefacts.Line("theirs", (5.0, 5.0, 5.0))]
    artefacts.dots(figure, [("seconds", rows, True), ("error", rows, False)])


def test_the_list_names_every_experiment_and_what_it_takes(capsys):
    assert run("--list") == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[0] == "name"
    assert [row.split()[0] for row in rows] == list(reproduce.EXPERIMENTS)
    assert all(e.shows in row and e.takes in row for e, row in zip(reproduce.EXPERIMENTS.values(), rows, strict=True))


def test_csv_holds_every_record(tmp_path):
    path = artefacts.save(tmp_path / "new" / "x", RECORDS, artefacts.Picture(lines))[0]
    with path.open(encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == [
            {"name": "a", "value": "1.5", "printed": ""},
            {"name": "b, c", "value": "2.0", "printed": "2"},
        ]


def test_pictures_are_the_same_bytes_for_the_same_numbers(tmp_path):
    pytest.importorskip("matplotlib")
    one, two = (artefacts.save(tmp_path / name, RECORDS, artefacts.Picture(lines)) for name in "ab")
    assert [path.suffix for path in one] == [".csv", ".png", ".svg"]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    assert one[1].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert one[2].read_text(encoding="utf-8").startswith("<?xml")


def test_dots_show_what_is_measured_and_what_is_printed():
    figure = pytest.importorskip("matplotlib.figure").Figure(layout="constrained")
    lines(figure)
    left, right = figure.axes
    assert (left.get_xscale(), right.get_xscale()) == ("log", "linear")
    spans, (measured, printed) = left.lines[:2], left.lines[2:]
    assert [list(line.get_xdata()) for line in spans] == [[1.0, 4.0], [5.0, 5.0]]
    assert list(measured.get_xdata()) == [2.0, 5.0]
    assert list(printed.get_xdata()) == [3.0]
    assert list(printed.get_ydata()) == [0]


def test_without_matplotlib_the_numbers_are_written_all_the_same(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run("mon-table-d1", "--out", tmp_path) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["mon-table-d1.csv"]
    assert "matplotlib is missing. Install it with: pip install 'implicitref[report]'" in capsys.readouterr().err


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path, capsys):
    (tmp_path / "taken").write_text("")
    assert run("mon-table-d1", "--out", tmp_path / "taken") == 2
    assert "--out must be a folder" in capsys.readouterr().err


@pytest.mark.claim("MON-TabD1")
def test_table_d1_stands_beside_what_is_printed(tmp_path, capsys):
    assert run("mon-table-d1", "--out", tmp_path, "--json", tmp_path / "r.json") == 0
    out = capsys.readouterr().out
    assert "79,500              79,500      84,460" in out
    assert "54 channels on 28 x 28: 79500 == 84460: as printed, does not hold" in out
    assert len(json.loads((tmp_path / "r.json").read_text())["verdicts"]) == 18
    different = [row for row in table_d1.networks() if row[1] != row[3]]
    assert [(counted, formula) for _, counted, formula, _ in different] == [(79_500, 79_500)]


@pytest.mark.claim("MON-Fig2", "MON-Fig3", "MON-FigE2")
@pytest.mark.parametrize("name", ["mon-figure-2", "mon-figure-3", "mon-figure-e2"])
def test_mon_figures_by_the_command(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(figures, "EPOCHS", 3)
    monkeypatch.setattr(artefacts, "missing_for_pictures", lambda: "matplotlib")  # drawn in another test
    assert run(name, "--out", tmp_path) == 0
    out = capsys.readouterr().out
    assert "printed (CIFAR-10, multi-tier)" in out.splitlines()[1]
    assert "DOES NOT HOLD" not in out
    with (tmp_path / f"{name}.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {"mon-figure-3": "relative error"}.get(name, "lipschitz") in rows[0]
    assert len(rows) == 4 if name != "mon-figure-3" else len(rows) > 1000
