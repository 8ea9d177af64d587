"""Figures 5 and 6 of JFB in small form: every rule trains the same network."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from oracles import assert_close

import implicitref as ir
from implicitref import claims

figures = importlib.import_module(f"{claims.validation().__name__}.jfb_figures")


@pytest.fixture(scope="module")
def curves():
    data = ir.datasets.load("digits")
    names = "jfb", "neumann:10", "implicit", "cg to .1"
    return {name: list(figures.curve(figures.RULES[name], data, 0, 3)) for name in names}


@pytest.mark.claim("JFB-Fig5", "JFB-Fig6")
def test_every_rule_learns_and_longer_series_follow_the_implicit_rule(curves):
    final = {name: points[-1] for name, points in curves.items()}
    for points in curves.values():
        assert [p["epoch"] for p in points] == [1, 2, 3]
        assert points[0]["loss"] > points[1]["loss"] > points[2]["loss"]
        assert 0 < points[0]["seconds"] < points[2]["seconds"]
        assert points[2]["accuracy"] > 0.9
    assert_close(final["neumann:10"]["loss"], final["implicit"]["loss"], scale=1.0, tol=1e-3)
    assert abs(final["jfb"]["loss"] - final["implicit"]["loss"]) > 1e-3  # another path to it
    assert abs(final["jfb"]["accuracy"] - final["implicit"]["accuracy"]) < 0.03


def test_the_weight_stays_a_contraction():
    params = figures.contractive({"W": np.array([[5.0, 10.0], [0.0, 5.0]])})
    assert ir.fixed_point.theory.spectral_norm(params["W"]) <= figures.GAMMA * (1 + 1e-12)


@pytest.mark.claim("JFB-Fig5")
def test_the_figure_names_every_rule():
    figure = pytest.importorskip("matplotlib.figure").Figure(layout="constrained")
    points = [{"seconds": t, "loss": 1 / t, "accuracy": 1 - 1 / t} for t in (1.0, 2.0)]
    figures.draw(figure, dict.fromkeys(figures.RULES, points))
    for axes in figure.axes:
        assert [line.get_label() for line in axes.lines] == list(figures.RULES)
    assert list(figure.axes[0].lines[0].get_ydata()) == [1.0, 0.5]


@pytest.mark.claim("JFB-Fig5", "JFB-Fig6")
@pytest.mark.parametrize(
    ("seconds", "accuracy", "failing"), [(0.5, 0.96, []), (1.1, 0.96, ["seconds"]), (0.5, 0.92, ["accuracy"])]
)
def test_what_the_figures_are_to_show_and_do_not_is_said(seconds, accuracy, failing):
    def points(pace, share):
        return [{"epoch": k, "seconds": k * pace, "loss": 1.0, "accuracy": share} for k in (1, 2)]

    found = figures.verdicts("JFB-Fig5", {"jfb": points(seconds, accuracy), "implicit": points(1.0, 0.96)})
    assert [v.statement.split()[0] for v in found if not v.as_registered] == failing


def test_every_epoch_of_every_rule_is_a_line():
    lines = figures.records({"jfb": [{"epoch": 1, "loss": 2.0}], "implicit": [{"epoch": 1, "loss": 3.0}]})
    assert lines == [{"rule": "jfb", "epoch": 1, "loss": 2.0}, {"rule": "implicit", "epoch": 1, "loss": 3.0}]
