"""The figure of training runs: every run is a line, at the times and errors of its file."""

from __future__ import annotations

import importlib
import json
import sys

import numpy as np
import pytest

from implicitref import claims

pytest.importorskip("matplotlib")
curves = importlib.import_module(f"{claims.validation().__name__}.training_curves")


def test_every_run_is_a_line(tmp_path, monkeypatch):
    history = [
        {"seconds": 60.0, "test_accuracy": 0.9, "loss": 0.5},
        {"seconds": 120.0, "test_accuracy": 0.95, "loss": 0.2},
    ]
    runs = {"a": {"model": "mon-fc"}, "b": {"model": "jfb-mnist", "rule": "neumann:5"}}
    for name, config in runs.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({"config": config, "history": history}))
    figure = curves.draw({"mon-fc": history, "other": history[:1]})
    first, second = figure.axes[0].lines
    np.testing.assert_allclose(first.get_xydata(), [[1, 10], [3, 5]])
    np.testing.assert_allclose(figure.axes[1].lines[0].get_xydata(), [[1, 0.5], [3, 0.2]])
    assert len(second.get_xydata()) == 1
    files = [str(tmp_path / f"{name}.json") for name in runs]
    monkeypatch.setattr(sys, "argv", ["training_curves", *files, "--out", str(tmp_path / "c.svg")])
    curves.main()
    text = (tmp_path / "c.svg").read_text()
    assert text.count("jfb-mnist, neumann:5") == text.count("mon-fc") >= 1
