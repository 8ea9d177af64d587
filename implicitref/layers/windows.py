r"""Windows of images and their adjoints: what convolution and pooling share.

Images are (batch, channels, height, width) outside and ``(channels, height, width, batch)`` in here. An array whose
memory lies in the second order is as fast as can be: rows of the image are long contiguous runs, a convolution is a few
large matrix products, and elementwise functions hand the order on. Every other order gives the same numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Array, is_array, namespace, native, real_dtypes, zeros
from ..errors import HypothesisError, ShapeError

Pair = tuple[int, int]


def batch_last(x: Array) -> Array:
    """(batch, c, h, w) to (c, h, w, batch), a view where the library has views."""
    return namespace(x).permute_dims(x, (1, 2, 3, 0))


def batch_first(u: Array) -> Array:
    """(c, h, w, batch) to (batch, c, h, w)."""
    return namespace(u).permute_dims(u, (3, 0, 1, 2))


def shifted(u: Array, axis: int, start: int, count: int, stride: int = 1) -> Array:
    """Entries start, start + stride, ..., `count` of them, along `axis`; zero where they lie outside."""
    xp = namespace(u)
    inside, source = overlap(u.shape[axis], start, count, stride)
    parts = [_zeros(u, axis, inside.start), u[_along(axis, source)], _zeros(u, axis, count - inside.stop)]
    parts = [part for part in parts if part.shape[axis]] or parts[:1]
    return xp.concat(parts, axis=axis) if len(parts) > 1 else parts[0]


def spread(v: Array, axis: int, start: int, size: int, stride: int = 1) -> Array:
    """The adjoint of `shifted`: v_r goes to start + stride r of an axis of length `size`, the rest is zero."""
    return shifted(_dilated(v, axis, stride), axis, -start, size)


def _dilated(v: Array, axis: int, stride: int) -> Array:
    if stride == 1:
        return v
    xp, before, after = namespace(v), tuple(v.shape[: axis + 1]), tuple(v.shape[axis + 1 :])
    gaps = zeros((*before, stride - 1, *after), v)
    joined = xp.concat([xp.reshape(v, (*before, 1, *after)), gaps], axis=axis + 1)
    return xp.reshape(joined, (*before[:-1], before[-1] * stride, *after))


def dilated(v: Array, stride: Pair) -> Array:
    """`v` with stride - 1 zeros behind every row and column."""
    return _dilated(_dilated(v, 1, stride[0]), 2, stride[1])


def wrapped(u: Array, padding: Pair) -> Array:
    """Periodic padding: `padding` rows above and below, columns left and right."""
    xp = namespace(u)
    for axis, p in zip((1, 2), padding, strict=True):
        if p:
            ends = u[_along(axis, slice(u.shape[axis] - p, u.shape[axis]))], u[_along(axis, slice(0, p))]
            u = xp.concat([ends[0], u, ends[1]], axis=axis)
    return u


def folded(u: Array, padding: Pair) -> Array:
    """The adjoint of `wrapped`: what lies on the padding is added to the entries that it repeats."""
    for axis, p in zip((1, 2), padding, strict=True):
        if p:
            size = u.shape[axis] - 2 * p
            last, first = u[_along(axis, slice(0, p))], u[_along(axis, slice(size + p, size + 2 * p))]
            u = shifted(u, axis, p, size) + spread(last, axis, size - p, size) + spread(first, axis, 0, size)
    return u


def columns(u: Array, width: int, start: Pair, rows: int, out: int, stride: int) -> Array:
    r"""``S[j, c, a, q] = u[c, start_0 + a, start_1 + stride q + j]``, zero outside, as (width c, rows, out, batch).

    Every column offset j < width of a kernel beside the others. A row offset is a shift of a whole block, so that
    rows a, ..., a + h - 1 of S are the right factor of a matrix product without being copied.
    """
    if type(u) is np.ndarray:
        S = np.empty((width * u.shape[0], rows, out, u.shape[3]), u.dtype)
        return columns_into(S, u, width, start, stride)
    tall = shifted(u, 1, start[0], rows)
    return namespace(u).concat([shifted(tall, 2, start[1] + j, out, stride) for j in range(width)], axis=0)


def columns_into(S: np.ndarray, u: np.ndarray, width: int, start: Pair, stride: int) -> np.ndarray:
    """The same in the memory of `S`, every entry written once."""
    parts = S.reshape(width, u.shape[0], *S.shape[1:])
    down, above = overlap(u.shape[1], start[0], S.shape[1], 1)
    parts[:, :, : down.start], parts[:, :, down.stop :] = 0, 0
    for j in range(width):
        right, left = overlap(u.shape[2], start[1] + j, S.shape[2], stride)
        parts[j, :, down, : right.start], parts[j, :, down, right.stop :] = 0, 0
        parts[j, :, down, right] = u[:, above, left]
    return S


def taps(u: Array, kernel: Pair, stride: Pair) -> list[Array]:
    """The kernel's offsets (i, j) in C order, each with the entries that it sees: (c, h_out, w_out, batch)."""
    return [u[(slice(None), *seen, slice(None))] for seen in _seen(u.shape, kernel, stride)]


def untaps(parts: list[Array], shape: tuple[int, ...], kernel: Pair, stride: Pair) -> Array:
    """The adjoint of `taps`: the sum of all parts, each put back where it was seen, in an array of `shape`."""
    if type(parts[0]) is np.ndarray:
        return _untaps_in_place(parts, shape, kernel, stride)
    offsets = [(i, j) for i in range(kernel[0]) for j in range(kernel[1])]
    put = [
        spread(spread(part, 2, j, shape[2], stride[1]), 1, i, shape[1], stride[0])
        for (i, j), part in zip(offsets, parts, strict=True)
    ]
    return sum(put[1:], start=put[0])


def _untaps_in_place(parts: list[Any], shape: tuple[int, ...], kernel: Pair, stride: Pair) -> np.ndarray:
    u = np.zeros(shape, parts[0].dtype)
    for part, seen in zip(parts, _seen(shape, kernel, stride), strict=True):
        u[(slice(None), *seen)] += part
    return u


def _seen(shape: tuple[int, ...], kernel: Pair, stride: Pair) -> list[tuple[slice, slice]]:
    counts = [(shape[axis + 1] - kernel[axis]) // stride[axis] for axis in (0, 1)]  # windows less one
    span = [[slice(i, i + counts[a] * stride[a] + 1, stride[a]) for i in range(kernel[a])] for a in (0, 1)]
    return [(rows, cols) for rows in span[0] for cols in span[1]]


def overlap(size: int, start: int, count: int, stride: int) -> tuple[slice, slice]:
    """The r in [0, count) with ``0 <= start + stride r < size``, and those entries."""
    first = min(max(-(start // stride), 0), count)
    stop = min(max(-((start - size) // stride), first), count)
    if first == stop:
        return slice(first, first), slice(0, 0)
    return slice(first, stop), slice(start + first * stride, start + (stop - 1) * stride + 1, stride)


def _along(axis: int, part: slice) -> tuple[slice, ...]:
    return (*(slice(None),) * axis, part, *(slice(None),) * (3 - axis))


def _zeros(u: Array, axis: int, count: int) -> Array:
    return zeros((*u.shape[:axis], count, *u.shape[axis + 1 :]), u)


# ------------------------------------------------------------------------------------------------
# What a layer refuses


def floating(name: str, x: Any) -> Array:
    """The array argument `name`, refused unless it is an array of float32 or float64."""
    if not is_array(x):
        raise TypeError(f"{name} must be an array; got {type(x).__name__}. Use numpy.asarray.")
    x = native(x)
    if x.dtype not in real_dtypes(x):
        raise HypothesisError(f"{name} must be float32 or float64; got dtype {x.dtype}. Convert it with astype.")
    return x


def images(name: str, x: Any) -> Array:
    """The array argument `name`, refused unless it holds images (batch, channels, height, width)."""
    x = floating(name, x)
    if x.ndim != 4:
        hint = f" Add the batch axis: {name}[None]." if x.ndim == 3 else ""
        raise ShapeError(f"{name} must have shape (batch, channels, height, width); got {tuple(x.shape)}.{hint}")
    return x


def same_shape(name: str, x: Any, shape: tuple[int, ...]) -> Array:
    """The array argument `name`, refused unless it has `shape`."""
    x = floating(name, x)
    if tuple(x.shape) != tuple(shape):
        raise ShapeError(f"{name} must have shape {tuple(shape)}; got {tuple(x.shape)}.")
    return x


def pair(name: str, value: Any, least: int) -> Pair:
    """An integer, or two of them for height and width, each >= `least`."""
    both = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(both) != 2 or not all(
        isinstance(v, (int, np.integer)) and not isinstance(v, bool) and v >= least for v in both
    ):
        raise HypothesisError(f"{name} must be an integer >= {least}, or two of them; got {value!r}.")
    return int(both[0]), int(both[1])


def fitting(kernel: Pair, size: Pair, what: str) -> None:
    """ShapeError where the kernel is larger than what it slides over."""
    if kernel[0] > size[0] or kernel[1] > size[1]:
        raise ShapeError(f"kernel must not be larger than the {what} {size[0]} x {size[1]}; got {kernel}.")
