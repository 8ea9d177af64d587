r"""The DFT of real images as two matrix products, one an axis; the fast form of `fourier.spectrum` for small images.

For sides up to about 64 two products with the DFT matrix beat an FFT on real hardware, need nothing but matmul, and
write their results in the order that the next product wants: no transposes. Complex numbers are pairs (re, im).

With a stride r an image is seen on the coarse grid (h/r, w/r) with r^2 phases in the place of every channel: pixel
(r X + phase) of channel c is pixel X of channel (phase, c). There a strided convolution is an ordinary one, and the
frequencies that aliasing couples in Proposition C1 are the channels of one coarse frequency [MON-PropC1].
"""

from __future__ import annotations

import functools
import math

import numpy as np

from ..arrays import Array, complex_like, like, namespace

__all__ = ["blocks", "from_pairs", "kernel_gradient", "pairs", "shares"]


# ------------------------------------------------------------------------------------------------
# Kernels


def blocks(kernel: Array, size: tuple[int, int], stride: int = 1) -> Array:
    r"""One matrix for each frequency of the coarse grid, between channels (phase, c) [MON-EqB1, MON-EqC13].

    ``D(q)[(s, o), (t, i)] = sum k[o, i, d] exp(2 pi i <q, D>/(size/r))`` over the offsets d with
    ``s + d - centre = r D + t``: the definition of the DFT at the offsets of the kernel.

    Parameters
    ----------
    kernel : array (out, in, kh, kw)
    size : (h, w)
    stride : int, divides h and w

    Returns
    -------
    complex array (h/r//2 + 1, w/r, r^2 out, r^2 in)
    """
    xp, (o, i, *support) = namespace(kernel), kernel.shape
    k = complex_like(kernel, kernel)
    first, second = (complex_like(k, wave) for wave in _waves(size, tuple(support), stride))
    (K, r, _, _), w = first.shape, second.shape[0]
    rows = xp.tensordot(first, k, axes=((3,), (2,)))  # (q1, s1, t1, o, i, d2)
    both = xp.tensordot(rows, second, axes=((5,), (3,)))  # (q1, s1, t1, o, i, q2, s2, t2)
    return xp.reshape(xp.permute_dims(both, (0, 5, 1, 6, 3, 2, 7, 4)), (K, w, r * r * o, r * r * i))


@functools.lru_cache(maxsize=64)
def _waves(size: tuple[int, int], support: tuple[int, int], stride: int) -> tuple[np.ndarray, np.ndarray]:
    coarse = size[0] // stride, size[1] // stride
    return _wave(coarse[0], coarse[0] // 2 + 1, support[0], stride), _wave(coarse[1], coarse[1], support[1], stride)


def _wave(n: int, frequencies: int, support: int, stride: int) -> np.ndarray:
    # (q, s, t, d): exp(2 pi i q D/n) where s + d - centre = stride D + t, 0 elsewhere; angles reduced in integers
    q, s, t, d = np.ogrid[:frequencies, :stride, :stride, :support]
    D, remainder = np.divmod(s + d - (support - 1) // 2 - t, stride)
    return np.where(remainder == 0, np.exp(2j * math.pi * ((q * D) % n) / n), 0)


def kernel_gradient(dD: Array, size: tuple[int, int], support: tuple[int, int], stride: int = 1) -> Array:
    r"""Adjoint of `blocks`: the gradient by the kernel from dD, where ``df = mean_q Re <dD(q), D(q)>``.

    Parameters
    ----------
    dD : complex array (h/r//2 + 1, w/r, r^2 out, r^2 in)
    size : (h, w)
    support : (kh, kw)
    stride : int

    Returns
    -------
    array (out, in, kh, kw)
    """
    # D is linear in k with coefficients E: dk = sum_q share(q) Re(conj(dD) E), the mean over the whole coarse grid
    xp, r, (K, w, o, i) = namespace(dD), stride, dD.shape
    coarse = size[0] // r, size[1] // r
    first, second, share = (complex_like(dD, wave) for wave in (*_waves(size, support, r), shares(coarse)))
    split = xp.conj(dD) * share[:, :, None, None]
    split = xp.reshape(split, (K, w, r, r, o // r**2, r, r, i // r**2))
    rows = xp.tensordot(split, first, axes=((0, 2, 5), (0, 1, 2)))  # (q2, s2, o, t2, i, d1)
    return xp.real(xp.tensordot(rows, second, axes=((0, 1, 3), (0, 1, 2))))


@functools.lru_cache(maxsize=64)
def shares(size: tuple[int, int]) -> np.ndarray:
    """The weight of each frequency of the half spectrum in a mean over the whole one, (h//2 + 1) x w."""
    twice = np.full(size[0] // 2 + 1, 2.0)  # a frequency with 0 < p_1 < h/2 stands for its mirror image too
    twice[0] = 1.0
    if size[0] % 2 == 0:
        twice[-1] = 1.0
    return np.repeat(twice[:, None], size[1], axis=1) / (size[0] * size[1])


# ------------------------------------------------------------------------------------------------
# Images


@functools.lru_cache(maxsize=64)
def _matrices(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
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


def pairs(x: Array, stride: int = 1, out: Array | None = None) -> Array:
    """Half spectrum on the coarse grid: (batch, c, h, w) to real (h/r//2 + 1, w/r, 2, r^2 c, batch).

    On NumPy it is written to `out` if given.
    """
    xp, r, (b, c, h, w) = namespace(x), stride, x.shape
    coarse = h // r, w // r
    K, n = coarse[0] // 2 + 1, coarse[1]
    down, along = (like(x, matrix) for matrix in _matrices(coarse)[:2])
    rows = xp.reshape(xp.permute_dims(x, (1, 2, 3, 0)), (c, coarse[0], r, w * b))
    rows = xp.reshape(down @ xp.permute_dims(rows, (0, 2, 1, 3)), (c, r, K, 2 * n, r, b))
    target = None if out is None else out.reshape(K, 2 * n, r, r, c, b)
    spectrum = product_into(along, xp.permute_dims(rows, (0, 1, 2, 4, 3, 5)), (2, 4, 1, 3, 0, 5), target)
    return xp.reshape(spectrum, (K, n, 2, r * r * c, b))


def from_pairs(X: Array, size: tuple[int, int], stride: int = 1, out: Array | None = None) -> Array:
    """Inverse of `pairs`, to (c, h, w, batch): the batch varies fastest in memory, as the next transform wants it."""
    xp, r, (h, w), (K, n, _, C, b) = namespace(X), stride, size, X.shape
    up, back = (like(X, matrix) for matrix in _matrices((h // r, w // r))[2:])
    columns = xp.permute_dims(xp.reshape(X, (K, 2 * n, r, r, C // r**2, b)), (4, 2, 0, 3, 1, 5))
    columns = product_into(back, columns, (0, 1, 2, 4, 3, 5))
    target = None if out is None else out.reshape(C // r**2, h // r, r, w * b)
    rows = product_into(up, xp.reshape(columns, (C // r**2, r, 2 * K, w * b)), (0, 2, 1, 3), target)
    return xp.reshape(rows, (C // r**2, h, w, b))


def product_into(P: Array, X: Array, axes: tuple[int, ...], out: Array | None = None) -> Array:
    """``permute_dims(P @ X, axes)``, contiguous or in `out`: NumPy's matmul writes there directly, without a copy."""
    if type(X) is not np.ndarray:
        return namespace(X).permute_dims(P @ X, axes)
    if out is None:
        shape = (*X.shape[:-2], P.shape[-2], X.shape[-1])
        out = np.empty([shape[axis] for axis in axes], X.dtype)
    np.matmul(P, X, out=out.transpose(np.argsort(axes)))
    return out
