"""The bilinear form of a convolution against the sums as they are written, in float64, and where it is used."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import assert_close, size

from implicitref import layers as L
from implicitref.layers import winograd

EPS = float(np.finfo(np.float32).eps)


@st.composite
def cases(draw):
    side = draw(st.tuples(st.integers(1, 11), st.integers(1, 11)))
    mode = draw(st.sampled_from(["zeros", "circular"]))
    padding = tuple(draw(st.integers(int(n < 3), n if mode == "circular" else 4)) for n in side)
    batch, channels, filters = (draw(st.integers(1, most)) for most in (5, 4, 4))
    return (batch, channels, *side), (filters, channels, 3, 3), padding, mode


@given(cases(), st.sampled_from([1, 700, 2**18]), st.integers(0, 2**32 - 1))
def test_the_form_is_the_sums_and_their_adjoints(case, values, seed):
    shape, kernel, padding, mode = case
    rng = np.random.default_rng(seed)
    x, weight, bias = (rng.normal(size=s).astype(np.float32) for s in (shape, kernel, kernel[0]))
    how = {"padding": padding, "padding_mode": mode}
    wide = x.astype(float), weight.astype(float)
    y = L.conv2d(*wide, bias.astype(float), **how)
    dy = rng.normal(size=y.shape).astype(np.float32)
    form = winograd.form(shape[2:], y.shape[2:], padding, mode == "circular")

    tol = 64 * EPS  # for sums of n terms by n times the largest
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(winograd.correlation.__globals__, "VALUES", values)  # parts of the batch of one image and more
        found = winograd.correlation(x, weight, bias, form)
        dx, dw, db = winograd.adjoints(dy, form, weight=weight, x=x)
    assert {a.dtype for a in (found, dx, dw, db)} == {np.dtype(np.float32)}
    assert_close(found, y, scale=size(x) * size(weight) * weight[0].size + size(bias), tol=tol)
    wide_dy = dy.astype(float)
    of_weight = L.conv2d_vjp_params(wide[0], (3, 3), wide_dy, **how)
    assert_close(dx, L.conv2d_vjp(shape, wide[1], wide_dy, **how), scale=size(dy) * size(weight) * dy[0].size, tol=tol)
    assert_close(dw, of_weight[0], scale=size(dy) * size(x) * dy[:, 0].size, tol=tol)
    assert_close(db, of_weight[1], scale=size(dy) * dy[:, 0].size, tol=tol)
    for alone, together in zip(
        (winograd.adjoints(dy, form, weight=weight)[0], *winograd.adjoints(dy, form, x=x)[1:]),
        (dx, dw, db),
        strict=True,
    ):
        assert_close(alone, together, scale=size(together), tol=tol)


def draw(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


USED = {
    "the latent convolutions of JFB": ((128, 32, 9, 9), (32, 32, 3, 3), {"padding": 1}),
    "without padding": ((4, 32, 9, 9), (16, 32, 3, 3), {}),
    "circular": ((4, 32, 9, 9), (32, 32, 3, 3), {"padding": 1, "padding_mode": "circular"}),
}
UNUSED = {
    "double": ((4, 32, 9, 9), (32, 32, 3, 3), {"padding": 1, "dtype": float}),
    "a double weight": ((4, 32, 9, 9), (32, 32, 3, 3), {"padding": 1, "weights": float}),
    "stride": ((4, 32, 9, 9), (32, 32, 3, 3), {"stride": (1, 2)}),
    "a larger kernel": ((4, 32, 9, 9), (32, 32, 5, 5), {"padding": 2}),
    "few channels of a large image": ((4, 4, 28, 28), (4, 4, 3, 3), {"padding": 1}),
}


@pytest.mark.parametrize(
    ("case", "used"), [*((c, True) for c in USED.values()), *((c, False) for c in UNUSED.values())],
    ids=[*USED, *UNUSED],
)  # fmt: skip
def test_where_it_is_used(case, used, monkeypatch):
    shape, kernel, how = case
    dtype, weights = how.get("dtype", np.float32), how.get("weights", how.get("dtype", np.float32))
    how = {key: value for key, value in how.items() if key not in ("dtype", "weights")}
    calls = []
    here = L.conv2d.__globals__["winograd"]
    for name in ("correlation", "adjoints"):
        whole = getattr(here, name)
        monkeypatch.setattr(here, name, lambda *a, whole=whole, name=name, **k: calls.append(name) or whole(*a, **k))
    layer = L.Conv2d(draw(*kernel).astype(weights), draw(kernel[0]).astype(weights), **how)
    x = draw(*shape).astype(dtype)
    y = L.conv2d(x, layer.weight, layer.bias, **how)
    dx = L.conv2d_vjp(shape, layer.weight, y, **how)
    dw, db = L.conv2d_vjp_params(x, kernel[2:], y, **how)
    assert calls == (["correlation", "adjoints", "adjoints"] if used and weights is dtype else [])
    calls.clear()
    value, pull, _ = layer.linearize(x)
    both, grads = pull(value)
    assert calls == (["correlation", "adjoints"] if used or weights is not dtype else [])  # a layer follows its input
    if weights is dtype:
        for actual, wanted in ((value, y), (both, dx), (grads["weight"], dw), (grads["bias"], db)):
            assert_close(actual, wanted, scale=size(wanted), tol=32 * EPS)


def test_multiplications_are_counted():
    # 9 x 9 with padding: three tiles, 15 values an axis
    form = winograd.form((9, 9), (9, 9), (1, 1), False)
    D = 15 * 9 * 9 + 15 * 15 * 9  # D times x, and that times D'
    assert form.multiplications(1, 1) == 225 + 2 * D
    assert form.multiplications(32, 16) == 225 * 32 * 16 + (32 + 16) * D


def test_what_it_gives_is_the_fast_order_for_the_next_layer():
    x, (_, kernel, how) = draw(8, 32, 9, 9), USED["the latent convolutions of JFB"]
    norm = L.BatchNorm(np.zeros(32, np.float32), np.ones(32, np.float32), np.ones(32, np.float32), draw(32))
    chain = L.Sequential({"conv": L.Conv2d(draw(*kernel), **how), "norm": norm, "pool": L.MaxPool(3)})
    y, pull, _ = chain.linearize(x, training=True)
    dx, _ = pull(y)
    for array in (y, dx):
        assert array.dtype == np.float32
        assert np.moveaxis(array, (0, 1), (-2, -1)).flags.c_contiguous
