r"""The DFT of real images as two matrix products, one an axis; the fast form of `fourier.spectrum` for small images.

For sides up to about 64 two products with the DFT matrix beat an FFT on real hardware, need nothing but matmul, and
write their results in the order that the next product wants: no transposes. Complex numbers are pairs (re, im).

With strides r = (r_1, r_2) an image is seen on the coarse grid (h/r_1, w/r_2) with r_1 r_2 phases in the place of every
channel: pixel (r X + phase) of channel c is pixel X of channel (phase, c). There a strided convolution is an ordinary
one, and the frequencies that aliasing couples in Proposition C1 are the channels of one coarse frequency [MON-PropC1].
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..arrays import Array, complex_like, like, namespace

__all__ = ["Grid", "blocks", "coarse", "convolve", "from_pairs", "kernel_gradient", "multiply", "pairs", "shares"]


# ------------------------------------------------------------------------------------------------
# Kernels


Pair = tuple[int, int]


def blocks(kernel: Array, size: Pair, stride: Pair = (1, 1)) -> Array:
    r"""One matrix for each frequency of the coarse grid, between channels (phase, c) [MON-EqB1, MON-EqC13].

    ``D(q)[(s, o), (t, i)] = sum k[o, i, d] exp(2 pi i <q, D>/(size/r))`` over the offsets d with
    ``s + d - centre = r D + t``: the definition of the DFT at the offsets of the kernel.

    Parameters
    ----------
    kernel : array (out, in, kh, kw)
    size : (h, w)
    stride : (r_1, r_2), divides the size

    Returns
    -------
    complex array (h/r_1//2 + 1, w/r_2, r_1 r_2 out, r_1 r_2 in)
    """
    xp, (o, i, *support), phases = namespace(kernel), kernel.shape, stride[0] * stride[1]
    k = complex_like(kernel, kernel)
    first, second = (complex_like(k, wave) for wave in _waves(size, tuple(support), stride))
    K, w = first.shape[0], second.shape[0]
    rows = xp.tensordot(first, k, axes=((3,), (2,)))  # (q1, s1, t1, o, i, d2)
    both = xp.tensordot(rows, second, axes=((5,), (3,)))  # (q1, s1, t1, o, i, q2, s2, t2)
    return xp.reshape(xp.permute_dims(both, (0, 5, 1, 6, 3, 2, 7, 4)), (K, w, phases * o, phases * i))


@functools.lru_cache(maxsize=64)
def _waves(size: Pair, support: Pair, stride: Pair) -> tuple[np.ndarray, np.ndarray]:
    h, w = coarse(size, stride)
    return _wave(h, h // 2 + 1, support[0], stride[0]), _wave(w, w, support[1], stride[1])


def coarse(size: Pair, stride: Pair) -> Pair:
    """The size of the coarse grid."""
    return size[0] // stride[0], size[1] // stride[1]


def _wave(n: int, frequencies: int, support: int, stride: int) -> np.ndarray:
    # (q, s, t, d): exp(2 pi i q D/n) where s + d - centre = stride D + t, 0 elsewhere; angles reduced in integers
    q, s, t, d = np.ogrid[:frequencies, :stride, :stride, :support]
    D, remainder = np.divmod(s + d - (support - 1) // 2 - t, stride)
    return np.where(remainder == 0, np.exp(2j * math.pi * ((q * D) % n) / n), 0)


def kernel_gradient(dD: Array, size: Pair, support: Pair, stride: Pair = (1, 1)) -> Array:
    r"""Adjoint of `blocks`: the gradient by the kernel from dD, where ``df = mean_q Re <dD(q), D(q)>``.

    Parameters
    ----------
    dD : complex array (h/r_1//2 + 1, w/r_2, r_1 r_2 out, r_1 r_2 in)
    size : (h, w)
    support : (kh, kw)
    stride : (r_1, r_2)

    Returns
    -------
    array (out, in, kh, kw)
    """
    # D is linear in k with coefficients E: dk = Re sum_q share(q) dD(q) conj(E(q)), the mean over the whole coarse grid
    xp, (r1, r2), (K, w, o, i) = namespace(dD), stride, dD.shape
    first, second = (wave.conj() for wave in _waves(size, support, stride))
    share = shares(coarse(size, stride))[:, :1]  # the same in every column
    first, second = (complex_like(dD, wave) for wave in (first * share[:, :, None, None], second))
    split = xp.reshape(dD, (K, w, r1, r2, o // (r1 * r2), r1, r2, i // (r1 * r2)))
    rows = xp.tensordot(split, first, axes=((0, 2, 5), (0, 1, 2)))  # (q2, s2, o, t2, i, d1)
    return xp.real(xp.tensordot(rows, second, axes=((0, 1, 3), (0, 1, 2))))


@functools.lru_cache(maxsize=64)
def shares(size: Pair) -> np.ndarray:
    """The weight of each frequency of the half spectrum in a mean over the whole one, (h//2 + 1) x w."""
    twice = np.full(size[0] // 2 + 1, 2.0)  # a frequency with 0 < p_1 < h/2 stands for its mirror image too
    twice[0] = 1.0
    if size[0] % 2 == 0:
        twice[-1] = 1.0
    return np.repeat(twice[:, None], size[1], axis=1) / (size[0] * size[1])


# ------------------------------------------------------------------------------------------------
# Images. In memory they are (h, w, c, batch), so that every product is a large one and nothing is transposed.


class Grid(NamedTuple):
    """Images (channels, *size), seen on the coarse grid of this stride."""

    channels: int
    size: Pair
    stride: Pair = (1, 1)

    @property
    def phases(self) -> int:
        """Channels on the coarse grid."""
        return self.channels * math.prod(self.stride)

    @property
    def coarse(self) -> Pair:
        """Size of the coarse grid."""
        return coarse(self.size, self.stride)


@functools.lru_cache(maxsize=64)
def _matrices(size: Pair) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    # Real matrices of the two transforms and of their inverses. The first maps h rows to pairs, (K x 2, h); the second
    # maps, for one frequency of the first, pairs of columns, (2 x w), to frequencies' pairs, (w x 2).
    (h, w), K = size, size[0] // 2 + 1
    first = 2 * math.pi * ((np.arange(K)[:, None] * np.arange(h)) % h / h)
    down = np.stack([np.cos(first), -np.sin(first)], axis=1).reshape(2 * K, h)
    second = 2 * math.pi * ((np.arange(w)[:, None] * np.arange(w)) % w / w)
    cos, sin = np.cos(second), np.sin(second)
    along = np.stack([np.hstack([cos, sin]), np.hstack([-sin, cos])], axis=1).reshape(2 * w, 2 * w)
    up = (down * np.repeat(shares(size)[:, :1], 2, axis=0)).T  # the inverse, normalisation included
    return down, along, np.ascontiguousarray(up), np.ascontiguousarray(along.T)


def pairs(x: Array, stride: Pair = (1, 1)) -> Array:
    """Half spectrum on the coarse grid: (batch, c, h, w) to real (h/r_1//2 + 1, w/r_2, 2, r_1 r_2 c, batch)."""
    (b, c, h, w), rows = x.shape, _rows(x, stride)
    grid, xp = coarse((h, w), stride), namespace(x)
    return xp.reshape(_of(rows, grid)[1] @ rows, (grid[0] // 2 + 1, grid[1], 2, stride[0] * stride[1] * c, b))


def from_pairs(X: Array, size: Pair, stride: Pair = (1, 1), out: Array | None = None) -> Array:
    """Inverse of `pairs`, to (batch, c, h, w); on NumPy written to `out`, contiguous (c, h, w, batch), if given."""
    xp, (K, w, _, phases, b) = namespace(X), X.shape
    rows = _of(X, coarse(size, stride))[3] @ xp.reshape(X, (K, 2 * w, phases * b))
    return _images(rows, b, Grid(phases // math.prod(stride), size, stride), out)


def convolve(
    M: Array, inputs: Sequence[tuple[Array, Pair]], results: Sequence[Grid], out: Array | None = None
) -> list[Array]:
    """``from_pairs`` of blocks (K, w, 2 o, 2 i) times ``pairs`` of the inputs, (images, stride): side by side they are
    the i channels of one coarse grid, and the results its o channels. The first result is written to `out`, if given.
    """
    (b, *_), rows = inputs[0][0].shape, [_rows(x, stride) for x, stride in inputs]
    between = _in_cache if type(rows[0]) is np.ndarray else _at_once
    rows = between(like(rows[0], M), rows, [grid.phases * b for grid in results], results[0].coarse)
    outs = [out, *[None] * len(results)]
    return [_images(r, b, grid, to) for r, grid, to in zip(rows, results, outs, strict=False)]


def _at_once(M: Array, rows: list[Array], columns: list[int], size: Pair) -> list[Array]:
    """From the first transform of the inputs to that of the results: the second transform, the blocks, and back."""
    xp, (K, w, o, i), (_, along, _, back) = namespace(*rows), M.shape, _of(rows[0], size)
    b = sum(columns) // (o // 2)
    X = [xp.reshape(along @ r, (K, w, 2, r.shape[2] // max(1, b), b)) for r in rows]
    Y = M @ xp.reshape(X[0] if len(X) == 1 else xp.concat(X, axis=3), (K, w, i, b))
    return [back @ part for part in _split(xp.reshape(Y, (K, 2 * w, o // 2 * b)), columns)]


def _in_cache(M: np.ndarray, rows: list[np.ndarray], columns: list[int], size: Pair) -> list[np.ndarray]:
    """The same one frequency of the first axis after the other; a result takes the place of an input as wide as it."""
    (K, w, o, i), (_, along, _, back) = M.shape, _of(rows[0], size)
    widths = [r.shape[2] for r in rows]
    results = [rows[j] if widths[j : j + 1] == [n] else _like(rows[0], n) for j, n in enumerate(columns)]
    X, Y = (np.empty((2 * w, sum(n)), M.dtype) for n in (widths, columns))
    for p in range(K):
        for r, part in zip(rows, _split(X, widths), strict=True):
            np.matmul(along, r[p], out=part)
        np.matmul(M[p], X.reshape(w, i, -1), out=Y.reshape(w, o, -1))
        for result, part in zip(results, _split(Y, columns), strict=True):
            np.matmul(back, part, out=result[p])
    return results


def _like(rows: np.ndarray, columns: int) -> np.ndarray:
    return np.empty((*rows.shape[:2], columns), rows.dtype)


def _split(x: Array, columns: list[int]) -> list[Array]:
    """What lies side by side along the last axis."""
    return [x[..., end - n : end] for n, end in zip(columns, itertools.accumulate(columns), strict=True)]


def multiply(M: Array, X: Array) -> Array:
    """One product a frequency: blocks as pairs (K, w, 2 o, 2 i) with spectra as `pairs` (K, w, 2, i, batch)."""
    xp, (K, w, _, i, b) = namespace(X), X.shape
    return xp.reshape(like(X, M) @ xp.reshape(X, (K, w, 2 * i, b)), (K, w, 2, M.shape[2] // 2, b))


def _of(x: Array, size: Pair) -> Sequence[Array]:
    return _narrowed(size, x.dtype) if type(x) is np.ndarray else [like(x, matrix) for matrix in _matrices(size)]


@functools.lru_cache(maxsize=64)
def _narrowed(size: Pair, dtype: np.dtype) -> Sequence[np.ndarray]:
    return [matrix.astype(dtype) for matrix in _matrices(size)]


def _rows(x: Array, stride: Pair) -> Array:
    """The first transform: (batch, c, h, w) to (K, 2 x w/r_2, r_1 r_2 c batch)."""
    xp, (r1, r2), (b, c, *size) = namespace(x), stride, x.shape
    h, w = coarse((size[0], size[1]), stride)
    x = xp.reshape(xp.permute_dims(x, (2, 3, 1, 0)), (h, r1, w, r2, c, b))
    x = xp.reshape(xp.permute_dims(x, (0, 2, 1, 3, 4, 5)), (h, w * r1 * r2 * c * b))
    return xp.reshape(_of(x, (h, w))[0] @ x, (h // 2 + 1, 2 * w, r1 * r2 * c * b))


def _images(rows: Array, b: int, grid: Grid, out: Array | None = None) -> Array:
    """Inverse of `_rows`, for a batch of b."""
    xp, c, (r1, r2), (h, w) = namespace(rows), grid.channels, grid.stride, grid.coarse
    x = _of(rows, (h, w))[2] @ xp.reshape(rows, (rows.shape[0] * 2, w * grid.phases * b))
    x = xp.reshape(x, (h, w, r1, r2, c, b))
    if out is not None:
        out.reshape(c, h, r1, w, r2, b)[...] = x.transpose(4, 0, 2, 1, 3, 5)
        return out.transpose(3, 0, 1, 2)
    return xp.permute_dims(xp.reshape(xp.permute_dims(x, (0, 2, 1, 3, 4, 5)), (*grid.size, c, b)), (3, 2, 0, 1))
