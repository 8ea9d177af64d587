"""Displays: what they hold is what they draw, on any axes, as PNG and SVG, without touching global state."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest

import implicitref as ir

pytest.importorskip("matplotlib")

from matplotlib import colors
from matplotlib.figure import Figure

seq = ir.sequential
Display = ir.plotting.ModelGraphDisplay


def dense_net(L):
    """A model of L blocks of two states with every connection, the norm of A_ij growing with i."""
    blocks = [seq.Block(np.full((2, 2 * i), i + 1.0), np.ones((2, 1)), np.ones((1, 2))) for i in range(L)]
    return seq.BlockTriangularModel.from_blocks(blocks)


@pytest.mark.claim("GREEDY-SecIII-connections")
@pytest.mark.parametrize("L", [1, 2, 5])
def test_one_arrow_a_connection_and_one_circle_a_node(L):
    display = Display.from_model(dense_net(L)).plot()
    kinds = [display.kind(edge) for edge in display.edges]
    assert kinds.count("input") + kinds.count("blocks") == L * (L + 1) // 2
    assert kinds.count("output") == L
    assert len(display.ax_.patches) == len(display.edges)
    assert [text.get_text().split("\n")[-1] for text in display.ax_.texts] == ["x", *["2"] * L, "y"]
    for arrow, kind in zip(display.ax_.patches, kinds, strict=True):
        assert colors.to_hex(arrow.get_edgecolor()) == ir.plotting.COLOURS[kind]


def test_widths_follow_norms():
    display = Display.from_model(dense_net(4)).plot()
    width = {(e.source, e.target): a.get_linewidth() for e, a in zip(display.edges, display.ax_.patches, strict=True)}
    assert width[1, 4] == width[3, 4] == max(width.values())  # A_4j = 4 everywhere
    assert width[1, 2] < width[1, 3] < width[1, 4]
    assert width[1, 2] == pytest.approx(0.6 + 2 * 2 / 4)


def test_absent_connections_are_not_drawn():
    display = Display.from_model(seq.feed_forward([np.eye(2)] * 4)).plot()
    assert [(e.source, e.target) for e in display.edges] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert len(display.ax_.patches) == 4
    nothing = Display((1, 1), []).plot()
    assert len(nothing.ax_.texts) == 4


def test_written_as_png_and_svg(tmp_path):
    display = Display.from_model(dense_net(3)).plot()
    for ending, magic in {"png": b"\x89PNG", "svg": b"<?xml"}.items():
        display.figure_.savefig(tmp_path / f"graph.{ending}")
        assert (tmp_path / f"graph.{ending}").read_bytes().startswith(magic)


def test_drawn_on_given_axes():
    ax = Figure().add_subplot()
    display = Display.from_model(dense_net(2))
    assert display.plot(ax) is display
    assert (display.ax_, display.figure_) == (ax, ax.figure)


def test_nothing_is_left_in_pyplot():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    before = pyplot.get_fignums()
    display = Display.from_model(dense_net(2)).plot()
    assert display.figure_.canvas.manager is None
    assert pyplot.get_fignums() == before


# ------------------------------------------------------------------------------------------------
# the other displays

P = ir.plotting
GAP = np.array([[1.0, -2.0], [2.0, 1.0]])


def planar(method="peaceman-rachford", b=(1.0, 1.5), **options):
    W = ir.operators.MonotoneDense.from_weight(np.eye(2) - GAP, 1.0)
    return ir.mon.equilibrium(W, np.array([b]), ir.activations.relu, method=method, tol=1e-9, **options)


METHODS = ("peaceman-rachford", "forward-backward", "douglas-rachford")


COUNT = 11


@functools.cache
def one_of_each():
    """A display of every class, made from a result as a user would."""
    solution = planar()
    conv = ir.operators.MonotoneConv(np.ones((10, 10, 1, 1)), np.zeros((10, 10, 1, 1)), m=1.0, size=(3, 4))
    verdict = {"statement": "s", "measured": 1.0, "relation": "<=", "predicted": 2.0, "holds": True}
    return [
        P.ConvergenceDisplay.from_solution(solution),
        P.ConvergenceDisplay.from_solutions({name: planar(name) for name in METHODS}),
        P.SpectrumDisplay.from_operator(conv),
        P.SpectrumDisplay.from_operator(solution.inclusion.W, alpha=0.3),
        P.IterateDisplay.from_solution(solution),
        P.IterateDisplay.from_solutions({name: planar(name) for name in METHODS}),
        P.ClaimDisplay.from_report({"claims": [{"id": "MON-Alg2", "verdicts": [verdict | {"as_registered": True}]}]}),
        P.GradientBlockDisplay.from_report(cross_checked()),
        P.EquilibriumDisplay.from_state(np.random.default_rng(0).normal(size=(2, 10, 3, 4))),
        P.SequentialDisplay([seq.Record(1, 2.0, 1.0, 0, 0.0), seq.Record(2, 1.0, 0.5, 3, 0.0)]),
        Display.from_model(dense_net(2)),
    ]


def cross_checked(factor=1.0):
    """A check of z = W z + x, its gradient by W times a factor."""
    W, linear = np.array([[0.1, 0.6], [-0.3, 0.2]]), ir.activations.leaky_relu(1.0)

    def forward(x):
        return np.linalg.solve(np.eye(2) - W, x.T).T

    def backward(x, dz):
        dx = np.linalg.solve(np.eye(2) - W.T, dz.T).T
        return {"W": factor * dx.T @ forward(x), "x": dx}

    return ir.crosscheck.check(
        ir.crosscheck.from_callable(forward, backward, {"W": W}, kind="fixed-point", activation=linear)
    )


@pytest.mark.parametrize("index", range(COUNT))
def test_every_display_follows_the_convention(index, tmp_path):
    display = one_of_each()[index]
    ax = Figure().add_subplot()
    assert display.plot(ax) is display
    assert (display.ax_, display.figure_) == (ax, ax.figure)
    assert display.plot() is display
    assert display.ax_ is not ax
    display.figure_.savefig(tmp_path / "figure.png", dpi=20)
    if not isinstance(display, Display):
        assert display.ax_.get_xlabel()
        assert display.ax_.get_ylabel() or display.ax_.get_yticklabels() or isinstance(display, P.EquilibriumDisplay)


@pytest.mark.parametrize("index", range(COUNT))
def test_no_two_lines_differ_in_colour_alone(index):
    display = one_of_each()[index]
    lines = [line for line in display.plot().ax_.get_lines() if not line.get_label().startswith("_")]
    looks = [(line.get_linestyle(), line.get_marker()) for line in lines]
    assert len(set(looks)) == len(looks)


def test_one_of_every_class_is_among_them():
    named = {name for name in P.__all__ if name.endswith("Display")}
    assert {type(display).__name__ for display in one_of_each()} == named
    assert len(one_of_each()) == COUNT


@pytest.mark.claim("NEW-rate-pr")
@pytest.mark.parametrize("method", METHODS)
def test_convergence_shows_the_residuals_and_a_prediction_that_holds(method):
    solution = planar(method)
    steps, bound, predicted = P.ConvergenceDisplay.from_solution(solution).curves.values()
    np.testing.assert_array_equal(steps, solution.residuals.max(axis=1))
    assert bound[-1] == pytest.approx(solution.bound.max(), rel=1e-6)
    assert np.all(steps <= predicted * (1 + 1e-9))
    too_fast = steps[0] * 0.5 ** np.arange(len(steps))
    assert not np.all(steps <= too_fast)


def test_spectrum_of_blocks_is_that_of_the_matrix():
    rng = np.random.default_rng(1)
    W = ir.operators.MonotoneConv(*rng.normal(size=(2, 2, 2, 3, 3)), m=1.0, size=(4, 5))
    dense = np.linalg.eigvals(np.eye(40) - W.to_dense())
    shown = P.SpectrumDisplay.from_operator(W)
    assert max(np.abs(shown.values - value).min() for value in dense) < 1e-9
    assert max(np.abs(dense - value).min() for value in shown.values) < 1e-9
    assert shown.values.real.min() >= shown.m - 1e-9
    assert np.abs(shown.values).max() <= shown.circles["L"] + 1e-9


def test_paths_are_the_iterates_and_balls_hold_the_equilibrium():
    solution = planar(keep=True)
    display = P.IterateDisplay.from_solution(solution, balls=5)
    np.testing.assert_allclose(display.paths["u"][1:], [state.u[0] for state in solution.states], rtol=0, atol=1e-12)
    np.testing.assert_allclose(display.paths["z"][1:], [state.z[0] for state in solution.states], rtol=0, atol=1e-12)
    exact = np.array([1.0, 0.0])  # relu(W z + b) at z = (1, 0): W z + b = (1, 1.5 - 2)
    assert all(np.linalg.norm(exact - centre) <= radius + 1e-12 for centre, radius in display.balls)
    assert len(display.balls) == 5
    with pytest.raises(ir.ShapeError, match="in the plane only"):
        P.IterateDisplay.from_solution(ir.mon.equilibrium(*one_dimensional()))


def one_dimensional():
    one = np.array([[1.0]])
    return ir.operators.MonotoneDense(one, one, m=1.0), one, ir.activations.relu


def test_claims_fall_on_the_side_of_the_diagonal_that_they_should(tmp_path):
    def verdict(measured, relation, predicted, slack=0.0, form=True):
        holds = {"<=": float(measured) <= predicted + slack, ">=": float(measured) >= predicted - slack}.get(
            relation, False
        )
        numbers = {"measured": measured, "relation": relation, "predicted": predicted, "slack": slack}
        return numbers | {"statement": "s", "holds": holds, "as_registered": holds == form}

    verdicts = [verdict(1.0, "<=", 2.0), verdict(1e-13, "<=", 0.0, 1e-12), verdict(3.0, ">=", 2.0)]
    failing = [verdict("inf", "==", 1.0, form=False), verdict(5.0, "<=", 1.0)]
    report = {"claims": [{"id": "one", "verdicts": verdicts}, {"id": "two", "verdicts": failing}]}
    (tmp_path / "report.json").write_text(json.dumps(report))
    display = P.ClaimDisplay.from_report(tmp_path / "report.json")
    assert [row.holds for row in display.rows] == [True, True, True, False, False]
    assert all({"<=": r.measured <= r.predicted, ">=": r.measured >= r.predicted}[r.relation] for r in display.rows[:3])
    assert [text.get_text() for text in display.plot().ax_.texts] == ["two"]  # the one that is not as registered
    assert [row.claim for row in P.ClaimDisplay.from_report(report, claims=["one"]).rows] == ["one"] * 3


def test_blocks_of_a_gradient_with_a_factor_stand_out():
    right, wrong = (P.GradientBlockDisplay.from_report(cross_checked(factor)) for factor in (1.0, 2.0))
    assert np.all(right.errors <= right.allowed)
    assert dict(zip(wrong.names, wrong.verdicts, strict=True)) == {"W": "wrong", "x": "right"}
    hatched = [bar.get_hatch() for bar in wrong.plot().ax_.patches]
    assert hatched.count("///") == 1
    assert not any(bar.get_hatch() for bar in right.plot().ax_.patches)


def test_feature_maps_are_the_state():
    z = np.arange(2 * 10 * 2 * 3, dtype=float).reshape(2, 10, 2, 3)
    image = P.EquilibriumDisplay.from_state(z, sample=1).mosaic()
    assert image.shape == (2 * 2 + 1, 8 * 3 + 7)
    np.testing.assert_array_equal(image[:2, 4:7], z[1, 1])
    np.testing.assert_array_equal(image[3:, :3], z[1, 8])
    assert np.isnan(image[2]).all()
    one = np.ones((1, 1, 1, 1))
    W = ir.operators.MonotoneMultiTier([one, one], [one, one], [one], m=1.0, sizes=[(2, 2), (1, 1)])
    tiers = P.EquilibriumDisplay.from_solution(ir.mon.equilibrium(W, np.ones((1, 5)), ir.activations.relu))
    assert [tier.shape for tier in tiers.tiers] == [(1, 2, 2), (1, 1, 1)]
    with pytest.raises(ir.ShapeError):
        P.EquilibriumDisplay.from_state(np.zeros((2, 3, 4)))


@pytest.mark.claim("GREEDY-Alg1")
@pytest.mark.parametrize(("loss", "names"), [("squared", ["0", "1", "2"]), ("cross-entropy", ["0", "1", "2", "all"])])
def test_losses_are_those_of_the_history(loss, names):
    x = np.linspace(-1, 1, 30)[:, None]
    y = np.abs(x) if loss == "squared" else (x[:, 0] > 0).astype(int)
    model = seq.fit(seq.augment(x), y, 4, 2, loss=loss, random_state=0)
    display = P.SequentialDisplay.from_model(model).plot()
    losses = display.losses()
    assert losses.tolist() == [model.history[0].before, *(record.loss for record in model.history)]
    assert np.all(np.diff(losses) <= 0)
    np.testing.assert_array_equal(display.ax_.get_lines()[0].get_ydata(), losses)
    assert [label.get_text() for label in display.ax_.get_xticklabels()] == names


def test_what_holds_nothing_to_draw_is_refused():
    with pytest.raises(ir.HypothesisError, match="no verdict to draw"):
        P.ClaimDisplay.from_report({"claims": [{"id": "MON-Eq1", "verdicts": []}]})
    with pytest.raises(ir.HypothesisError, match="no history"):
        P.SequentialDisplay.from_model(dense_net(2))


def test_errors_that_are_not_finite_are_drawn_as_very_wrong():
    errors = np.array([np.nan, np.inf, 1e-20])
    display = P.GradientBlockDisplay(["A", "B", "C"], ["wrong", "wrong", "right"], errors, np.full(3, 1e-6)).plot()
    widths = sorted(bar.get_width() for bar in display.ax_.patches)
    assert widths == pytest.approx([1e-17, 1e3, 1e3], rel=1e-12)
    assert display.ax_.get_xlim()[1] > 1e3
