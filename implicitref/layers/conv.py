r"""Two-dimensional convolution (correlation, as every deep-learning framework has it) and its adjoints.

    y[o, r, q] = b[o] + sum_{c, i, j} weight[o, c, i, j] x[c, s r + i - p, s q + j - p]

with stride s and padding p; x is zero outside the image, or periodic.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, namespace
from ..errors import HypothesisError, ShapeError
from . import winograd
from .windows import (
    Pair,
    batch_first,
    batch_last,
    columns,
    columns_into,
    dilated,
    fitting,
    floating,
    folded,
    images,
    overlap,
    pair,
    same_shape,
    wrapped,
)

__all__ = ["conv2d", "conv2d_vjp", "conv2d_vjp_params"]

MODES = ("zeros", "circular")
STRIP = 3 * 2**17  # entries of the columns of a strip of rows
MORE = 1.2
FEW = 16  # a matrix product over fewer inner terms than this moves its result more often than it multiplies


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    padding_mode: str = "zeros",
) -> Array:
    r"""The convolution of the module's first lines; the height is (h + 2 p - kh) // s + 1, the width likewise.

    Parameters
    ----------
    x : array (batch, c, h, w)
    weight : array (out, c, kh, kw)
    bias : array (out,), optional
    stride, padding : int or (int, int)
        s >= 1 and p >= 0, for rows and columns.
    padding_mode : "zeros" or "circular"
        Circular padding repeats the image and needs p <= h, w.

    Returns
    -------
    array (batch, out, h', w'), in memory with the batch last or with the channels last and then the batch: the fast
    order for the next layer. In float32 and 3 x 3 the sums may be those of `winograd`, whose rounding is larger.

    Raises
    ------
    TypeError, ShapeError, HypothesisError

    Examples
    --------
    >>> import numpy as np
    >>> conv2d(np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2)), padding=1)[0, 0]
    array([[1., 2., 2., 1.],
           [2., 4., 4., 2.],
           [2., 4., 4., 2.],
           [1., 2., 2., 1.]])
    """
    x, weight = images("x", x), floating("weight", weight)
    at = _geometry(tuple(x.shape), tuple(weight.shape), stride, padding, padding_mode)
    bias = None if bias is None else same_shape("bias", bias, (weight.shape[0],))
    if form := _form(at, weight.shape[1], weight.shape[0], x, weight):
        return winograd.correlation(x, weight, bias, form)
    return batch_first(_correlate(_padded(x, at), weight, bias, at.start, at.stride, at.out))


def conv2d_vjp(
    shape: tuple[int, ...],
    weight: Array,
    dy: Array,
    *,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    padding_mode: str = "zeros",
) -> Array:
    """Gradient of ``<dy, conv2d(x)>`` with respect to x of `shape`, which the map, being affine, does not depend on."""
    # y_r = sum_i w_i x_(s r + i - p), hence dx_a = sum_i w_i dy_r over s r = a + p - i. With s - 1 zeros behind every
    # entry, e_(s r) = dy_r, and the kernel turned round, i' = k - 1 - i, this is again a correlation:
    #   dx_a = sum_i' w_(k-1-i') e_(a + p - (k - 1) + i').
    # A periodic x is padded first: the adjoint of padding folds the border back.
    weight = floating("weight", weight)
    at = _geometry(tuple(shape), tuple(weight.shape), stride, padding, padding_mode)
    dy = same_shape("dy", dy, (shape[0], weight.shape[0], *at.out))
    if form := _form(at, weight.shape[1], weight.shape[0], dy, weight):
        return winograd.adjoints(dy, form, weight=weight)[0]
    turned = namespace(weight).permute_dims(namespace(weight).flip(weight, axis=(2, 3)), (1, 0, 2, 3))
    start = -at.start[0] - (at.kernel[0] - 1), -at.start[1] - (at.kernel[1] - 1)
    du = _correlate(dilated(batch_last(dy), at.stride), turned, None, start, (1, 1), at.size)
    return batch_first(folded(du, at.wrap))


def conv2d_vjp_params(
    x: Array,
    kernel: Pair,
    dy: Array,
    *,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    padding_mode: str = "zeros",
) -> tuple[Array, Array]:
    """Gradients of ``<dy, conv2d(x)>``, summed over the batch, with respect to the weight (kernel: kh, kw) and bias."""
    # y = sum_i w_i S_i with the matrices S_i of the forward pass, (out, kw c) times (kw c, h' w' batch):
    #   <dy, w_i S_i> = <dy S_i', w_i>,   <dy, b 1'> = <dy 1, b>.
    x = images("x", x)
    xp, channels, filters = namespace(x), x.shape[1], dy.shape[1]
    at = _geometry(tuple(x.shape), (filters, channels, *kernel), stride, padding, padding_mode)
    dy = same_shape("dy", dy, (x.shape[0], filters, *at.out))
    if form := _form(at, channels, filters, x, dy):
        return winograd.adjoints(dy, form, x=x)[1:]
    dy = batch_last(dy)
    flat = _products(dy, _padded(x, at), at)
    dweight = xp.permute_dims(xp.reshape(flat, (filters, *at.kernel, channels)), (0, 3, 1, 2))
    return dweight, xp.sum(_matrix(dy), axis=1)


def conv2d_vjps(x: Array, weight: Array, dy: Array, **how: Any) -> tuple[Array, Array, Array]:
    """Both: gradients with respect to x, weight and bias; in the bilinear form they share half of their work."""
    at = _geometry(tuple(x.shape), tuple(weight.shape), how["stride"], how["padding"], how["padding_mode"])
    dy = same_shape("dy", dy, (x.shape[0], weight.shape[0], *at.out))
    if form := _form(at, weight.shape[1], weight.shape[0], x, dy, weight):
        return winograd.adjoints(dy, form, weight=weight, x=x)
    return conv2d_vjp(x.shape, weight, dy, **how), *conv2d_vjp_params(x, weight.shape[2:], dy, **how)


def known_mode(mode: str) -> None:
    """HypothesisError unless `mode` is a padding mode."""
    if mode not in MODES:
        raise HypothesisError(f"padding_mode must be one of {', '.join(MODES)}; got {mode!r}.")


def _form(at: _Geometry, channels: int, filters: int, *arrays: Array) -> winograd.Form | None:
    # in float32 the bilinear form, where it multiplies little more: the sums, which float64 keeps, copy columns besides
    if any(type(u) is not np.ndarray or u.dtype != np.float32 for u in arrays):
        return None
    if at.stride != (1, 1) or at.kernel != (3, 3):
        return None
    circular, (h, w) = at.wrap != (0, 0), at.size
    padding = at.wrap if circular else (-at.start[0], -at.start[1])
    form = winograd.form((h - 2 * at.wrap[0], w - 2 * at.wrap[1]), at.out, padding, circular)
    sums = 9 * math.prod(at.out) * channels * filters
    return form if form.multiplications(channels, filters) <= MORE * sums else None


class _Geometry(NamedTuple):
    kernel: Pair
    stride: Pair
    start: Pair  # where the first window begins, in the array that is correlated
    wrap: Pair  # periodic padding that this array has
    size: Pair  # of this array
    out: Pair


def _geometry(
    shape: tuple[int, ...], weight: tuple[int, ...], stride: int | Pair, padding: int | Pair, mode: str
) -> _Geometry:
    if len(weight) != 4 or weight[1] != shape[1] or min(weight) < 1:
        raise ShapeError(
            f"weight must have shape (out, {shape[1]}, kh, kw) for x with {shape[1]} channels (there are no groups); "
            f"got {weight}."
        )
    s, p = pair("stride", stride, 1), pair("padding", padding, 0)
    known_mode(mode)
    size, kernel = (shape[2], shape[3]), (weight[2], weight[3])
    if mode == "circular" and (p[0] > size[0] or p[1] > size[1]):
        raise HypothesisError(f"padding must not exceed the image {size[0]} x {size[1]} if circular; got {padding!r}.")
    whole = size[0] + 2 * p[0], size[1] + 2 * p[1]
    fitting(kernel, whole, "padded image")
    out = (whole[0] - kernel[0]) // s[0] + 1, (whole[1] - kernel[1]) // s[1] + 1
    if mode == "circular":
        return _Geometry(kernel, s, (0, 0), p, whole, out)
    return _Geometry(kernel, s, (-p[0], -p[1]), (0, 0), size, out)


def _padded(x: Array, at: _Geometry) -> Array:
    return wrapped(batch_last(x), at.wrap)


def _correlate(u: Array, weight: Array, bias: Array | None, start: Pair, stride: Pair, out: Pair) -> Array:
    # sum_i w_i S_i + bias: one large product for every row of the kernel
    if type(u) is np.ndarray and stride[0] == 1 and weight.shape[1] * weight.shape[3] >= FEW:
        return _by_rows(u, weight, bias, start, stride[1], out)
    xp = namespace(u, weight)
    factors = _factors(u, (weight.shape[2], weight.shape[3]), start, stride, out)
    filters, channels, kh, kw = weight.shape
    flat = xp.reshape(xp.permute_dims(weight, (0, 2, 3, 1)), (filters, kh * kw * channels))
    width = flat.shape[1] // len(factors)
    y = flat[:, :width] @ factors[0]
    for i in range(1, len(factors)):
        y += flat[:, i * width : (i + 1) * width] @ factors[i]
    y = xp.reshape(y, (filters, *out, u.shape[3]))
    return y if bias is None else y + bias[:, None, None, None]


def _by_rows(
    u: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, start: Pair, stride: int, out: Pair
) -> np.ndarray:
    # the same for a row stride of 1, a strip of the image's rows at a time: one product of it with all rows of the
    # kernel, whose i-th block, moved by start + i rows, is w_i S_i
    filters, channels, kh, kw = weight.shape
    stacked = np.ascontiguousarray(weight.transpose(2, 0, 3, 1)).reshape(kh * filters, kw * channels)
    y = np.empty((filters, *out, u.shape[3]), np.result_type(stacked, u))
    y[...] = 0 if bias is None else bias[:, None, None, None]
    memory: Any = None
    for top, S in _strips(u, kw, start[1], stride, out[1]):
        memory = np.empty((kh * filters, *S.shape[1:]), y.dtype) if memory is None else memory
        blocks = _first(memory, S.shape[1])
        np.matmul(stacked, _matrix(S), out=_matrix(blocks))
        for i, block in enumerate(blocks.reshape(kh, filters, *S.shape[1:])):
            seen, source = overlap(S.shape[1], start[0] + i - top, out[0], 1)
            y[:, seen] += block[:, source]
    return y


def _strips(u: np.ndarray, kw: int, start: int, stride: int, out: int) -> Iterator[tuple[int, np.ndarray]]:
    # the first row, and `columns` of as many rows as stay in the cache, always in the same memory: larger arrays, and
    # new ones, cost more traffic and pages that the system hands out and takes back than they save calls
    rows = min(u.shape[1], max(1, STRIP // max(1, kw * u.shape[0] * out * u.shape[3])))
    memory = np.empty((kw * u.shape[0], rows, out, u.shape[3]), u.dtype)
    for top in range(0, u.shape[1], rows):
        yield top, columns_into(_first(memory, min(rows, u.shape[1] - top)), u, kw, (top, start), stride)


def _first(memory: np.ndarray, rows: int) -> np.ndarray:
    # an array of fewer rows, contiguous, at the beginning of the memory of one (_, rows, _, _)
    shape = memory.shape[0], rows, *memory.shape[2:]
    return memory.reshape(-1)[: math.prod(shape)].reshape(shape)


def _products(dy: Array, u: Array, at: _Geometry) -> Array:
    # dy S_i' beside each other: (out, kh kw c)
    xp, kh, kw = namespace(dy), *at.kernel
    if type(u) is not np.ndarray or at.stride[0] != 1 or u.shape[0] * kw < FEW:
        factors = _factors(u, at.kernel, at.start, at.stride, at.out)
        return xp.concat([_matrix(dy) @ xp.matrix_transpose(S) for S in factors], axis=1)
    total = np.zeros((kh, dy.shape[0], kw * u.shape[0]), np.result_type(dy, u))
    for top, S in _strips(u, kw, at.start[1], at.stride[1], at.out[1]):
        for i in range(kh):
            seen, source = overlap(S.shape[1], at.start[0] + i - top, at.out[0], 1)
            total[i] += _matrix(dy[:, seen]) @ _matrix(S[:, source]).T
    return total.transpose(1, 0, 2).reshape(dy.shape[0], -1)


def _factors(u: Array, kernel: Pair, start: Pair, stride: Pair, out: Pair) -> list[Array]:
    # S_i[(j, c), (r, q, batch)] = u[c, start + s r + i, start + s q + j]: rows of `columns`, no copies for s = 1
    last = stride[0] * (out[0] - 1) + 1
    S = columns(u, kernel[1], start, last + kernel[0] - 1, out[1], stride[1])
    rows = [_matrix(S[:, i : i + last : stride[0], :, :]) for i in range(kernel[0])]
    return [namespace(u).concat(rows, axis=0)] if S.shape[0] < FEW else rows


def _matrix(u: Array) -> Array:
    return namespace(u).reshape(u, (u.shape[0], u.shape[1] * u.shape[2] * u.shape[3]))
