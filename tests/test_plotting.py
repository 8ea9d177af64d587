"""Displays: what they hold is what they draw, on any axes, as PNG and SVG, without touching global state."""

from __future__ import annotations

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
