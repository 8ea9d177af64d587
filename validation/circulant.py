"""Convolutions as dense matrices, entry by entry from the definition: the second source for MON appendices B and C.

Images are square, s x s, vectorised row by row, one channel after another. Nothing here calls the package.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
import scipy.linalg

Array = np.ndarray


def convolution(kernel: Array, s: int, stride: int = 1) -> Array:
    """The circular convolution (out, in, k, k), centred at (k - 1)//2, at every stride-th pixel."""
    o, i, k, _ = kernel.shape
    t, centre = s // stride, (k - 1) // 2
    M = np.zeros((o, t, t, i, s, s))
    for x, y, a, b in itertools.product(range(t), range(t), range(k), range(k)):
        M[:, x, y, :, (stride * x + a - centre) % s, (stride * y + b - centre) % s] += kernel[:, :, a, b]
    return M.reshape(o * t * t, i * s * s)


def padded_convolution(kernel: Array, s: int) -> Array:
    """The convolution that sees zeros outside the image."""
    o, i, k, _ = kernel.shape
    M, centre = np.zeros((o, s, s, i, s, s)), (k - 1) // 2
    for x, y, a, b in itertools.product(range(s), range(s), range(k), range(k)):
        u, v = x + a - centre, y + b - centre
        if 0 <= u < s and 0 <= v < s:
            M[:, x, y, :, u, v] += kernel[:, :, a, b]
    return M.reshape(o * s * s, i * s * s)


def weight(A: Array, B: Array, m: float, *strided: Array) -> Array:
    """(1 - m) I - A'A - sum S'S + B - B'."""
    return (1 - m) * np.eye(len(A)) - A.T @ A - sum(S.T @ S for S in strided) + B - B.T


def basis(s: int) -> Array:
    """The unitary F_s: omega^((i - 1)(j - 1))/sqrt(s)."""
    return scipy.linalg.dft(s, "sqrtn").conj()


@functools.lru_cache(maxsize=32)
def fourier(s: int, n: int = 1) -> Array:
    """F_{s,n} = I_n x F_s x F_s (Kronecker products)."""
    return np.kron(np.eye(n), np.kron(basis(s), basis(s)))


def permuted(D: Array, n_out: int, n_in: int) -> Array:
    """(B2) to (B3): the blocks D^k of size n_out x n_in, one a frequency."""
    split = D.reshape(n_out, D.shape[0] // n_out, n_in, D.shape[1] // n_in)
    return np.einsum("ikjk->kij", split)


def keeping(r: int, s: int) -> Array:
    """U: every r-th pixel of every r-th row, as the strided convolution with a single 1."""
    return convolution(np.ones((1, 1, 1, 1)), s, r)


def embedding(side: int, larger: int, channels: int) -> Array:
    """Images into the top left corner of larger ones, zero elsewhere."""
    corner = np.eye(larger, side)
    return np.kron(np.eye(channels), np.kron(corner, corner))


def tiers(A: list[Array], B: list[Array], S: list[Array], sides: list[int], stride: int) -> tuple[Array, Array]:
    """The whole A and B of a multi-tier W, block bidiagonal, with B_{i+1,i} = -A_{i+1,i+1}' A_{i+1,i} as (C4) asks."""
    at = np.cumsum([0, *(len(k) * s * s for k, s in zip(A, sides, strict=True))])
    whole_A, whole_B = np.zeros((2, at[-1], at[-1]))
    for i, s in enumerate(sides):
        own = slice(at[i], at[i + 1])
        whole_A[own, own], whole_B[own, own] = convolution(A[i], s), convolution(B[i], s)
        if i:
            before = slice(at[i - 1], at[i])
            out = sides[i - 1] // stride
            whole_A[own, before] = embedding(out, s, len(A[i])) @ convolution(S[i - 1], sides[i - 1], stride)
            whole_B[own, before] = -whole_A[own, own].T @ whole_A[own, before]
    return whole_A, whole_B


def relative(found: Array, truth: Array) -> float:
    """||found - truth||_F/||truth||_F."""
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))
