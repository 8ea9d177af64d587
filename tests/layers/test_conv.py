"""Convolution by its definition, for any geometry; and the places it is proved equal to."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
from hypothesis import given
from hypothesis import strategies as st
from oracles import assert_close, size

from implicitref import layers as L


def by_definition(x, weight, bias, stride, padding, mode):
    """y[o, r, q] = b[o] + sum w[o, c, i, j] x[c, s r + i - p, s q + j - p], entry by entry."""
    batch, _, h, w = x.shape
    out, _, kh, kw = weight.shape
    rows, cols = ((n + 2 * p - k) // s + 1 for n, p, k, s in zip((h, w), padding, (kh, kw), stride, strict=True))
    y = np.zeros((batch, out, rows, cols)) + bias[:, None, None]
    for r, q, i, j in itertools.product(range(rows), range(cols), range(kh), range(kw)):
        a, b = stride[0] * r + i - padding[0], stride[1] * q + j - padding[1]
        if mode == "circular" or (0 <= a < h and 0 <= b < w):
            y[:, :, r, q] += x[:, :, a % h, b % w] @ weight[:, :, i, j].T
    return y


@st.composite
def geometries(draw):
    size_ = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    mode = draw(st.sampled_from(["zeros", "circular"]))
    padding = tuple(draw(st.integers(0, n if mode == "circular" else 4)) for n in size_)
    kernel = tuple(draw(st.integers(1, min(n + 2 * p, 5))) for n, p in zip(size_, padding, strict=True))
    stride = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    batch, channels, out = (draw(st.integers(1, most)) for most in (3, 7, 3))
    return (batch, channels, *size_), (out, channels, *kernel), stride, padding, mode


@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("strip", [1, 7 * 3 * 9 * 2 * 4, 10**9])
def test_strips_of_rows_give_one_convolution(monkeypatch, strip, mode):
    monkeypatch.setitem(L.conv2d.__globals__, "STRIP", strip)  # of the module that is imported, whatever pytest loads
    rng = np.random.default_rng(0)
    x, weight, dy = (rng.normal(size=shape) for shape in ((2, 7, 11, 9), (3, 7, 5, 3), (2, 3, 11, 9)))
    y = L.conv2d(x, weight, padding=(2, 1), padding_mode=mode)
    assert_close(y, by_definition(x, weight, np.zeros(3), (1, 1), (2, 1), mode), scale=size(y), tol=1e-14)
    along = {
        "x": np.sum(L.conv2d_vjp(x.shape, weight, dy, padding=(2, 1), padding_mode=mode) * x),
        "weight": np.sum(L.conv2d_vjp_params(x, (5, 3), dy, padding=(2, 1), padding_mode=mode)[0] * weight),
    }
    for value in along.values():
        assert_close(value, np.sum(dy * y), scale=size(dy) * size(y) * y.size, tol=1e-14)


def test_no_samples_are_a_batch():
    x, weight = np.ones((0, 7, 5, 5)), np.ones((3, 7, 3, 3))
    y = L.conv2d(x, weight, padding=1)
    assert y.shape == (0, 3, 5, 5)
    assert L.conv2d_vjp(x.shape, weight, y, padding=1).shape == x.shape
    assert (L.conv2d_vjp_params(x, (3, 3), y, padding=1)[0] == np.zeros((3, 7, 3, 3))).all()


@given(geometries(), st.integers(0, 2**32 - 1))
def test_convolution_and_its_adjoints_by_definition(geometry, seed):
    shape, kernel, stride, padding, mode = geometry
    rng = np.random.default_rng(seed)
    x, weight, bias = rng.normal(size=shape), rng.normal(size=kernel), rng.normal(size=kernel[0])
    how = {"stride": stride, "padding": padding, "padding_mode": mode}
    y = L.conv2d(x, weight, bias, **how)
    desired = by_definition(x, weight, bias, stride, padding, mode)
    assert_close(y, desired, scale=size(x) * size(weight) * weight[0].size, tol=1e-14)

    # <dy, y> is linear in x and in the weight: the dot test is exact, entry by entry where the other is a unit
    dy = rng.normal(size=y.shape)
    dx = L.conv2d_vjp(shape, weight, dy, **how)
    dweight, dbias = L.conv2d_vjp_params(x, kernel[2:], dy, **how)
    along = (dy * (desired - bias[:, None, None])).sum()
    scale = size(dy) * size(x) * size(weight) * dy.size * weight[0].size
    assert_close((dx * x).sum(), along, scale=scale, tol=1e-14)
    assert_close((dweight * weight).sum(), along, scale=scale, tol=1e-14)
    assert_close(dbias, dy.sum(axis=(0, 2, 3)), scale=size(dy) * dy.size, tol=1e-14)
    unit = np.zeros(shape)
    where = tuple(rng.integers(n) for n in shape)
    unit[where] = 1
    response = by_definition(unit, weight, np.zeros(kernel[0]), stride, padding, mode)
    assert_close(dx[where], (dy * response).sum(), scale=scale, tol=1e-14)
    unit = np.zeros(kernel)
    where = tuple(rng.integers(n) for n in kernel)
    unit[where] = 1
    response = by_definition(x, unit, np.zeros(kernel[0]), stride, padding, mode)
    assert_close(dweight[where], (dy * response).sum(), scale=scale, tol=1e-14)


def test_convolution_is_scipy_s_correlation():
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(1, 1, 8, 7)), rng.normal(size=(1, 1, 3, 3))
    zeros = scipy.signal.correlate2d(x[0, 0], weight[0, 0], mode="same")
    assert_close(L.conv2d(x, weight, padding=1)[0, 0], zeros, scale=size(zeros), tol=1e-14)
    circular = scipy.ndimage.correlate(x[0, 0], weight[0, 0], mode="wrap")
    found = L.conv2d(x, weight, padding=1, padding_mode="circular")[0, 0]
    assert_close(found, circular, scale=size(circular), tol=1e-14)


def test_an_empty_batch_stays_empty():
    layer = L.Conv2d(np.ones((2, 3, 3, 3)), np.ones(2), padding=1)
    y, pull, _ = layer.linearize(np.ones((0, 3, 5, 5)))
    dx, grads = pull(y)
    assert (y.shape, dx.shape) == ((0, 2, 5, 5), (0, 3, 5, 5))
    assert_close(grads["weight"], np.zeros((2, 3, 3, 3)), scale=1, tol=1e-15)
