"""Cascades, the fast form of multi-tier operators, against the form tier by tier; the DFT as matrix products."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import assert_close, size
from tiered import CASES, draw, tiers

from implicitref.operators import cascade, dft, fourier


def batches(N, batch=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(batch, N)), rng.normal(size=(batch, N))


def agree(actual, desired, *scale, tol=1e-13):
    assert_close(actual, desired, scale=(1 + size(desired)) * (1 + size(*scale)), tol=tol)


@pytest.mark.parametrize("case", CASES)
def test_products_are_those_of_the_readable_form(case):
    W = tiers(np.asarray, **CASES[case])
    z, y = batches(W.size)
    slow = W.by_tiers()
    agree(W.matvec(z), slow.matvec(z), z)
    agree(W.rmatvec(y), slow.rmatvec(y), y)
    for alpha in (0.05, 1.0, 7.0):
        V, V_slow = W.resolvent(alpha), W.resolvent_by_tiers(alpha)
        agree(V.matvec(z), V_slow.matvec(z), z, tol=1e-12)
        agree(V.rmatvec(z), V_slow.rmatvec(z), z, tol=1e-12)
        agree(V.cayley().matvec(z), 2 * V_slow.matvec(z) - z, z, tol=1e-12)
        agree(V.cayley().rmatvec(z), 2 * V_slow.rmatvec(z) - z, z, tol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_the_readable_form(case):
    W = tiers(np.asarray, **CASES[case])
    z, dy = batches(W.size)
    fast, slow = W.vjp(z, dy), W.vjp_by_tiers(z, dy)
    assert list(fast) == list(slow)
    for name in fast:
        for one, other in zip(fast[name], slow[name], strict=True):
            agree(one, other, z, dy, tol=1e-12)


def test_any_memory_order_and_no_batch():
    W = tiers(np.asarray, **CASES["zero-filled"])
    z, _ = batches(W.size)
    last = np.asfortranarray(z)
    np.testing.assert_array_equal(W.matvec(last), W.matvec(z))
    assert W.matvec(last).T.flags.c_contiguous  # so that a chain of products stays in this order
    assert W.resolvent(1.0).matvec(z[:0]).shape == (0, W.size)


def test_float32_stays_and_float64_follows_the_state():
    W = tiers(lambda x: np.asarray(x, np.float32), **CASES["two tiers, scales"])
    z, _ = batches(W.size)
    assert W.resolvent(0.5).matvec(z.astype(np.float32)).dtype == np.float32
    V, y = W.resolvent(0.5), batches(W.size)[1]
    assert V.matvec(z).dtype == np.float64
    for product in (V.matvec, V.rmatvec):  # nothing on the way was rounded to float32
        agree(product(z) + product(y), product(z + y), z, y, tol=1e-13)


@given(st.data())
def test_transforms_and_polyphase_blocks(data):
    stride = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    grid = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    image = grid[0] * stride[0], grid[1] * stride[1]
    o, i, b, kh, kw = (data.draw(st.integers(1, 3)) for _ in range(5))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    k, z, y = rng.normal(size=(o, i, kh, kw)), rng.normal(size=(b, i, *image)), rng.normal(size=(b, o, *image))
    Z, Y = dft.pairs(z, stride), dft.pairs(y, stride)
    agree(dft.from_pairs(Z, image, stride), z)
    D = dft.blocks(k, image, stride)
    product = D @ (Z[:, :, 0] + 1j * Z[:, :, 1])
    convolved = dft.from_pairs(np.stack([product.real, product.imag], axis=2), image, stride)
    desired = fourier.product(fourier.blocks(k, image), z)
    agree(convolved, desired, k, z)
    first = np.stack([product.real, product.imag], axis=2)[:, :, :, :o]  # phase 0 is the strided convolution
    strided = dft.from_pairs(first, grid)
    agree(strided, desired[:, :, :: stride[0], :: stride[1]], k, z)
    dk = dft.kernel_gradient(fourier.outer(Y, Z), image, (kh, kw), stride)
    agree(np.vdot(dk, k), np.vdot(y, desired), k, z, y)


@given(st.data())
def test_in_cache_and_at_once_are_one_map(data):
    K, w, b = (data.draw(st.integers(*ends)) for ends in ((1, 4), (1, 4), (0, 3)))
    size = (2 * K - 2 or 1, w)
    ins, outs = (data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=2)) for _ in range(2))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    M = rng.normal(size=(K, w, 2 * sum(outs), 2 * sum(ins)))
    rows = [rng.normal(size=(K, 2 * w, n * b)) for n in ins]
    columns = [n * b for n in outs]
    slow = dft._at_once(M, rows, columns, size)
    fast = dft._in_cache(M, [r.copy() for r in rows], columns, size)
    for one, other in zip(fast, slow, strict=True):
        agree(one, other, M, *rows, tol=1e-12)


def test_a_wrong_carry_is_seen():
    W = tiers(np.asarray, **CASES["two tiers"])
    z, _ = batches(W.size)
    V = W.resolvent(1.0)
    first, second = V.stages
    n = first.state.phases
    D = np.concatenate([first.D[..., :n, :], 1.01 * first.D[..., n:, :]], axis=-2)
    planted = cascade.Cascade((dataclasses.replace(first, D=D), second))
    with pytest.raises(AssertionError):
        agree(planted.matvec(z), W.resolvent_by_tiers(1.0).matvec(z), z, tol=1e-12)


@pytest.mark.parametrize("stride", [1, 2, (2, 1), (1, 3)])
def test_resolvent_of_one_strided_pair_of_tiers(stride):
    r = stride if isinstance(stride, tuple) else (stride, stride)
    W = tiers(np.asarray, **draw([(2 * r[0], r[1]), (2, 2)], [2, 1], stride, seed=3))
    z, _ = batches(W.size)
    shifted = 1.7 * np.eye(W.size) - 0.7 * W.to_dense()
    agree(W.resolvent(0.7).matvec(z) @ shifted.T, z, z, tol=1e-11)
