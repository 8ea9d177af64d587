r"""Circular convolutions as one small matrix a frequency (MON section 4.2, appendix B).

Images are (batch, channels, h, w), kernels (out, in, kh, kw). A convolution is the correlation of deep-learning
frameworks, centred at (k - 1)//2 and wrapped around the border, whatever the size of the kernel:
``(K z)_o(x) = sum_i sum_d k[o, i, d] z_i(x + d - centre)``. With the unitary DFT F, ``K = F* D F`` where D has one
o x i block a frequency p, ``D(p) = sum_d k[d] exp(2 pi i <p, d - centre>/size)``. The paper writes both A = F D F* and
D = F A F*, and normalises F by 1/s, which is not unitary; here D = F A F* and 1/sqrt(s) [MON-Eq27, MON-EqB1].

Images are real, so the frequencies p_1 = 0 .. h//2 of the first axis say everything.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np
import scipy.fft

from ..arrays import Array, complex_of, eye, like, memoised, namespace
from .dft import Grid, blocks, convolve, kernel_gradient, pairs
from .linear import about

__all__ = ["FourierMap", "blocks", "cross_spectrum", "kernel_gradient", "product"]

BY_MATRICES_UP_TO = 64  # beyond this side the s^3 of a DFT as matrix products outgrow the FFT


def identity_like(D: Array) -> Array:
    """The identity in the place of every block of D."""
    return like(D, eye(D.shape[-1], namespace(D).real(D)))


def adjoint(D: Array) -> Array:
    """D(p)* for every frequency."""
    xp = namespace(D)
    return xp.conj(xp.matrix_transpose(D))


def skew_part(B: Array, size: tuple[int, int]) -> Array:
    """The kernel of B - B', no larger than the image.

    Subtracted before the transform, entry by entry: D_B - D_B* would keep the rounding of a large symmetric part of B,
    which W does not see and no certificate would know of.
    """
    xp = namespace(B)
    first, second = (like(B, _folding(k, n)) for k, n in zip(B.shape[2:], size, strict=True))
    K = first @ B @ xp.matrix_transpose(second)
    mirrored = xp.flip(xp.permute_dims(K, (1, 0, 2, 3)), axis=(2, 3))
    return K - xp.roll(mirrored, tuple(side % 2 - 1 for side in K.shape[2:]), axis=(2, 3))  # even: centre before middle


@functools.lru_cache(maxsize=64)
def _folding(k: int, n: int) -> np.ndarray:
    # one axis of a kernel onto an odd side, or onto the n pixels where that is more: entries that wrap together add up
    side, d = min(n, 2 * (k // 2) + 1), np.arange(k)
    return np.eye(side)[:, (d - (k - 1) // 2 + (side - 1) // 2) % side]


# ------------------------------------------------------------------------------------------------
# Products, readable: FFT, one small product a frequency, inverse FFT


def spectrum(x: Array) -> Array:
    """Half spectrum of images: (batch, c, h, w) to complex (h//2 + 1, w, c, batch)."""
    xp, axes = namespace(x), (3, 2)  # the last of the axes is the halved one
    transformed = scipy.fft.rfftn(x, axes=axes) if type(x) is np.ndarray else xp.fft.rfftn(x, axes=axes)
    return xp.permute_dims(transformed, (2, 3, 1, 0))


def images(X: Array, size: tuple[int, int]) -> Array:
    """Inverse of `spectrum`: the images of that size."""
    xp, axes = namespace(X), (3, 2)
    X = xp.permute_dims(X, (3, 2, 0, 1))
    sides = (size[1], size[0])
    return scipy.fft.irfftn(X, sides, axes) if type(X) is np.ndarray else xp.fft.irfftn(X, s=sides, axes=axes)


def product(D: Array, x: Array) -> Array:
    r"""``F* D F x`` [MON-Eq27]: the convolution with blocks D, by the FFT. The readable form of `FourierMap.matvec`.

    Parameters
    ----------
    D : complex array (h//2 + 1, w, o, i)
    x : array (batch, i, h, w)
    """
    X = spectrum(x)
    return images(like(X, D) @ X, tuple(x.shape[2:]))


# ------------------------------------------------------------------------------------------------
# Products, fast


@dataclasses.dataclass(frozen=True, eq=False)
class FourierMap:
    r"""``F* D F`` on images, for a complex D with one o x i block a frequency [MON-Eq27].

    Attributes
    ----------
    D : complex array (h//2 + 1, w, o, i)
    size : (h, w)
    """

    D: Array
    size: tuple[int, int]

    def __post_init__(self) -> None:
        if type(self.D) is np.ndarray:  # operators remember their maps: nobody may write to one through what it returns
            D = self.D.view()
            D.flags.writeable = False
            object.__setattr__(self, "D", D)

    def matvec(self, x: Array) -> Array:
        """(batch, i, h, w) to (batch, o, h, w)."""
        if max(self.size) > BY_MATRICES_UP_TO:
            return product(self.D, x)
        return self._by_matrices(like(x, self.pairs()), x)

    def rmatvec(self, y: Array) -> Array:
        """The transpose, (batch, o, h, w) to (batch, i, h, w): real matrices, so transpose and adjoint are one."""
        if max(self.size) > BY_MATRICES_UP_TO:
            return product(adjoint(self.D), y)
        return self._by_matrices(like(y, namespace(self.D).matrix_transpose(self.pairs())), y)

    def _by_matrices(self, M: Array, x: Array) -> Array:
        return convolve(M, [(x, (1, 1))], [Grid(M.shape[2] // 2, self.size)])[0]

    def about(self, shift: Array) -> Callable[[Array], Array]:
        """u -> M (u + shift) + shift."""
        return about(self, shift)

    @memoised
    def cayley(self) -> FourierMap:
        """2 V - I in one pass, for the V that this map is."""
        return FourierMap(2 * self.D - identity_like(self.D), self.size)

    @memoised
    def pairs(self) -> Array:
        """D with complex numbers as 2 x 2 blocks, (h//2 + 1, w, 2 o, 2 i)."""
        return real_blocks(self.D)

    def to_dense(self) -> Array:
        """The matrix (o h w, i h w)."""
        identity = eye(self.D.shape[-1] * math.prod(self.size), namespace(self.D).real(self.D))
        columns = self.matvec(namespace(identity).reshape(identity, (-1, self.D.shape[-1], *self.size)))
        return namespace(identity).matrix_transpose(namespace(identity).reshape(columns, (identity.shape[0], -1)))


def real_blocks(D: Array) -> Array:
    """[[Re D, -Im D], [Im D, Re D]]."""
    xp = namespace(D)
    re, im = xp.real(D), xp.imag(D)
    return xp.concat([xp.concat([re, -im], axis=-1), xp.concat([im, re], axis=-1)], axis=-2)


def cross_spectrum(y: Array, z: Array) -> Array:
    r"""``H(p) = sum_batch y(p) z(p)*``, complex (h//2 + 1, w, o, i): the gradient of ``<y, K z>`` by the blocks of K.

    Parameters
    ----------
    y : array (batch, o, h, w)
    z : array (batch, i, h, w)
    """
    if max(z.shape[2:]) > BY_MATRICES_UP_TO:
        return spectrum(y) @ adjoint(spectrum(z))
    return outer(pairs(y), pairs(z))


def outer(Y: Array, Z: Array) -> Array:
    """``sum_batch y z*`` of spectra as `pairs`, (K, w, 2, o, batch) and (K, w, 2, i, batch)."""
    (Y_r, Y_i), (Z_r, Z_i) = ((X[:, :, 0, ...], X[:, :, 1, ...]) for X in (Y, Z))
    Z_r, Z_i = namespace(Z).matrix_transpose(Z_r), namespace(Z).matrix_transpose(Z_i)
    return complex_of(Y_r @ Z_r + Y_i @ Z_i, Y_i @ Z_r - Y_r @ Z_i)
