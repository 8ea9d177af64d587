"""MON Figures 2, 3, E2 and Table 1 on small networks: what is drawn is what is measured."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from oracles import assert_close

from implicitref import claims, datasets, networks
from implicitref.splitting import rates

package = claims.validation().__name__
figures, run = (importlib.import_module(f"{package}.{name}") for name in ("mon_figures", "run"))


@pytest.fixture(scope="module")
def rows():
    return figures.along(datasets.load("digits"), 0, 2)


def axes_of(draw, *arguments):
    figure = pytest.importorskip("matplotlib.figure").Figure(layout="constrained")
    draw(figure, *arguments)
    return figure.axes


@pytest.mark.claim("MON-Fig2", "MON-FigE2")
def test_rows_are_measured_before_training_and_after_every_epoch(rows):
    assert [row.epoch for row in rows] == [0, 1, 2]
    network = networks.mon_fc(np.random.default_rng(0), 64)
    dense = np.eye(87) - np.asarray(network.W.to_dense(), dtype=np.float64)
    assert_close(rows[0].lipschitz, np.linalg.norm(dense, 2), scale=1.0, tol=1e-5)
    assert rows[2].lipschitz > rows[0].lipschitz
    assert all(row.best_alpha in 0.5 ** np.arange(8) for row in rows)
    assert all(row.forward_at_best <= row.forward_at_1 for row in rows)


@pytest.mark.claim("MON-Fig2", "MON-FigE2")
@pytest.mark.parametrize("way", ["forward", "backward"])
def test_figures_2_and_e2_show_the_rows(rows, way):
    left, right = axes_of(figures.draw_iterations, rows, way)
    shown = {line.get_label(): list(line.get_ydata()) for line in left.lines}
    assert shown["alpha = 1"] == [getattr(row, f"{way}_at_1") for row in rows]
    assert shown["best alpha"] == [getattr(row, f"{way}_at_best") for row in rows]
    assert list(right.lines[0].get_ydata()) == [row.lipschitz for row in rows]
    assert way in left.get_ylabel()


@pytest.mark.claim("MON-Fig3")
def test_curves_are_relative_errors_of_the_iterates():
    network = networks.mon_fc(np.random.default_rng(0), 3, hidden=4, classes=2, dtype=np.float64)
    x = np.random.default_rng(1).normal(size=(5, 3))
    forward, splitting = figures.curves(network, x, (0.25,), 60)
    W, b = np.asarray(network.W.to_dense()), network.inject(x)
    truth = z = 0 * b
    for _ in range(2000):
        truth = np.maximum(0.9 * truth + 0.1 * (truth @ W.T + b), 0)
    for error in forward.errors:
        z = np.maximum(0.75 * z + 0.25 * (z @ W.T + b), 0)
        assert_close(error, np.linalg.norm(z - truth) / np.linalg.norm(truth), scale=1.0, tol=1e-9)
    assert_close(splitting.factor, rates.peaceman_rachford(np.eye(4) - W, 0.25), scale=1.0, tol=1e-12)
    assert splitting.errors[-1] < 1e-8
    assert forward.iterations(1e-3) == np.argmax(forward.errors < 1e-3) + 1
    assert forward.iterations(0.0) == np.inf


@pytest.mark.claim("MON-Fig3")
def test_figure_3_has_a_line_an_alpha_and_no_diverging_values():
    errors = np.array([1.0, 0.1, np.inf])
    found = [figures.Curve(m, a, 0.5, errors, errors) for m in figures.GENERATORS for a in figures.ALPHAS]
    panels = axes_of(figures.draw_convergence, found)
    assert [line.get_label() for line in panels[1].lines] == [
        "1",
        "1/4",
        "1/8",
        "1/16",
        "1/32",
        "1/64",
    ]
    assert np.isnan(panels[0].lines[0].get_ydata()[2])


def no_memory_of_steps(patch):
    # the error of every iterate taken for that of the first
    right = figures._curve

    def wrong(*arguments):
        found = right(*arguments)
        return found._replace(
            errors=np.full_like(found.errors, found.errors[0]), auxiliary=np.ones_like(found.auxiliary)
        )

    patch.setattr(figures, "_curve", wrong)


def untrained(patch):
    right = figures.states
    patch.setattr(figures, "states", lambda data, seed, epochs: [next(right(data, seed, epochs))] * 2)


def printed_channels(patch):
    patch.setitem(figures.SIZES, "MNIST, single convolution", (84, figures.table_d1.predict_single(54, (1, 28, 28))))


@pytest.mark.claim("MON-Tab1", "MON-Fig2", "MON-Fig3")
@pytest.mark.parametrize(
    ("plant", "claim"), [(no_memory_of_steps, "MON-Fig3"), (untrained, "MON-Fig2"), (printed_channels, "MON-Tab1")]
)
def test_planted_bugs_are_noticed(plant, claim, monkeypatch):
    entry = claims.load()[claim]
    plant(monkeypatch)
    outcome = run.check(entry, 0, 0.02)
    assert outcome.message == ""
    assert outcome.state == "disagrees"
