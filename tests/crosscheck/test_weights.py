"""The gradient by the weights in pieces: their sum is the vjp of every operator, with scales and without."""

from __future__ import annotations

import numpy as np
import pytest
from oracles import assert_close, size

import implicitref as ir
from implicitref.crosscheck import weights

rng = np.random.default_rng(3)


def kernel(o, i, k=3):
    return rng.normal(size=(o, i, k, k)) / 3


OPERATORS = {
    "dense": ir.operators.MonotoneDense(rng.normal(size=(4, 4)), rng.normal(size=(4, 4)), 0.7),
    "dense, scaled": ir.operators.MonotoneDense(rng.normal(size=(4, 4)), rng.normal(size=(4, 4)), 0.7, 1.3, -0.6),
    "conv": ir.operators.MonotoneConv(kernel(2, 2), kernel(2, 2), 0.7, (4, 5)),
    "conv, scaled": ir.operators.MonotoneConv(kernel(2, 2), kernel(2, 2, 2), 0.7, (4, 5), 1.3, 0.6),
    "tiers": ir.operators.MonotoneMultiTier(
        [kernel(2, 2), kernel(1, 1)], [kernel(2, 2), kernel(1, 1)], [kernel(1, 2)], 0.7, [(4, 4), (2, 2)]
    ),
    "tiers, scaled": ir.operators.MonotoneMultiTier(
        [kernel(2, 2), kernel(1, 1)],
        [kernel(2, 2), kernel(1, 1)],
        [kernel(1, 2)],
        0.7,
        [(4, 4), (2, 2)],
        g=[1.2, 0.4],
        gs=[0.9],
        h=[0.5, -0.7],
    ),
    "plain": weights.PlainWeight(rng.normal(size=(4, 4)), "W"),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_pieces_add_up_to_the_vjp(name):
    W = OPERATORS[name]
    z, u = (rng.normal(size=(3, *W.state_shape)) for _ in range(2))
    found = weights.assembled(W, weights.pieces(W, z, u), {}, "full")
    truth = weights.flat(W.vjp(z, u))
    assert found.keys() == truth.keys()
    for key in truth:
        assert_close(found[key], truth[key], scale=size(truth[key]), tol=1e-12)
    lengths = weights.magnitudes(W, z, u)
    assert all(lengths[key] >= np.linalg.norm(truth[key]) * (1 - 1e-12) for key in lengths)


def test_a_scale_of_zero_has_a_length():
    W = ir.operators.MonotoneDense(rng.normal(size=(4, 4)), rng.normal(size=(4, 4)), 0.7, 0.0, 0.5)
    z, u = (rng.normal(size=(3, 4)) for _ in range(2))
    assert all(np.isfinite(length) for length in weights.magnitudes(W, z, u).values())


def test_a_piece_left_out_is_noticed():
    W = OPERATORS["dense"]
    z, u = (rng.normal(size=(3, 4)) for _ in range(2))
    found = weights.assembled(W, weights.pieces(W, z, u), {"B": (1, 0)}, "full")
    assert np.linalg.norm(found["B"] - W.vjp(z, u)["B"]) > 0.1
    assert_close(found["B"], u.T @ z, scale=size(found["B"]), tol=1e-12)


def test_nested_undoes_flat():
    params = OPERATORS["tiers, scaled"].params
    again = weights.nested(weights.flat(params))
    assert {key: len(value) for key, value in again.items()} == {key: len(value) for key, value in params.items()}
    assert all(np.array_equal(a, b) for key in params for a, b in zip(again[key], params[key], strict=True))
