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

import numpy as np
import scipy.fft

from ..arrays import Array, eye, like, memoised, namespace

__all__ = ["FourierMap", "blocks", "cross_spectrum", "kernel_gradient", "product"]

BY_MATRICES_UP_TO = 64  # beyond this side the s^3 of a DFT as matrix products outgrow the FFT


# ------------------------------------------------------------------------------------------------
# Kernels and their blocks


def blocks(kernel: Array, size: tuple[int, int]) -> Array:
    r"""D(p) of a kernel for the half spectrum: the definition of the DFT at the kernel's offsets [MON-EqB1].

    Parameters
    ----------
    kernel : array (out, in, kh, kw)
    size : (h, w)

    Returns
    -------
    complex array (h//2 + 1, w, out, in)

    Examples
    --------
    >>> import numpy as np
    >>> blocks(np.ones((1, 1, 1, 2)), (1, 4))[0, :, 0, 0].real      # 1 + cos(2 pi p/4)
    array([2., 1., 0., 1.])
    """
    xp, (o, i, kh, kw) = namespace(kernel), kernel.shape
    cos, sin = (like(kernel, wave) for wave in _waves(size, (kh, kw)))
    flat = xp.reshape(xp.permute_dims(kernel, (2, 3, 0, 1)), (kh * kw, o * i))
    return xp.reshape(complex_of(cos @ flat, sin @ flat), (size[0] // 2 + 1, size[1], o, i))


def kernel_gradient(dD: Array, size: tuple[int, int], support: tuple[int, int]) -> Array:
    r"""Adjoint of `blocks`: the gradient by the kernel from dD, where ``df = (1/hw) sum_p Re <dD(p), D(p)>``.

    Parameters
    ----------
    dD : complex array (h//2 + 1, w, out, in)
    size : (h, w)
    support : (kh, kw)

    Returns
    -------
    array (out, in, kh, kw)
    """
    # Re <dD, D> = sum_d k[d] (cos Re dD + sin Im dD); Parseval's identity brings the 1/hw. A frequency with
    # 0 < p_1 < h/2 stands for its mirror image too.
    xp, (K, w, o, i) = namespace(dD), dD.shape
    re, im = (xp.reshape(part, (K * w, o * i)) for part in (xp.real(dD), xp.imag(dD)))
    cos, sin = (like(re, (wave * _shares(size)[:, None]).T) for wave in _waves(size, support))
    return xp.permute_dims(xp.reshape(cos @ re + sin @ im, (*support, o, i)), (2, 3, 0, 1))


@functools.lru_cache(maxsize=64)
def _waves(size: tuple[int, int], support: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    # cos and sin of 2 pi <p, d - centre>/size, (frequencies, offsets); the angles are reduced exactly, in integers
    turns = [
        (np.arange(frequencies)[:, None] * (np.arange(k) - (k - 1) // 2)) % n / n
        for frequencies, n, k in zip((size[0] // 2 + 1, size[1]), size, support, strict=True)
    ]
    angle = 2 * math.pi * (turns[0][:, None, :, None] + turns[1][None, :, None, :])
    angle = angle.reshape(-1, support[0] * support[1])
    return np.cos(angle), np.sin(angle)


@functools.lru_cache(maxsize=64)
def _shares(size: tuple[int, int]) -> np.ndarray:
    # the weight of each frequency of the half spectrum in a mean over the whole one
    twice = np.full(size[0] // 2 + 1, 2.0)
    twice[0] = 1.0
    if size[0] % 2 == 0:
        twice[-1] = 1.0
    return np.repeat(twice, size[1]) / (size[0] * size[1])


def complex_of(re: Array, im: Array) -> Array:
    """re + i im."""
    xp = namespace(re)
    dtype = xp.complex64 if re.dtype == xp.float32 else xp.complex128
    return xp.astype(re, dtype) + 1j * xp.astype(im, dtype)


def identity_like(D: Array) -> Array:
    """The identity in the place of every block of D."""
    return like(D, eye(D.shape[-1], namespace(D).real(D)))


def adjoint(D: Array) -> Array:
    """D(p)* for every frequency."""
    xp = namespace(D)
    return xp.conj(xp.matrix_transpose(D))


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
    return images(D @ spectrum(x), tuple(x.shape[2:]))


# ------------------------------------------------------------------------------------------------
# Products, fast: the DFT of each axis as a matrix product


@functools.lru_cache(maxsize=64)
def _dft(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    # Real matrices of the two transforms and of their inverses; complex numbers as pairs (re, im), next to their
    # frequency. The first maps h rows to pairs, (2K, h); the second pairs of w columns, as (re, im) x w, to pairs.
    (h, w), K = size, size[0] // 2 + 1
    first = 2 * math.pi * ((np.arange(K)[:, None] * np.arange(h)) % h / h)
    down = np.stack([np.cos(first), -np.sin(first)], axis=1).reshape(2 * K, h)
    second = 2 * math.pi * ((np.arange(w)[:, None] * np.arange(w)) % w / w)
    cos, sin = np.cos(second), np.sin(second)
    along = np.stack([np.hstack([cos, sin]), np.hstack([-sin, cos])], axis=1).reshape(2 * w, 2 * w)
    up = (down * np.repeat(_shares(size)[::w], 2)[:, None]).T  # the inverse, normalisation included
    return down, along, np.ascontiguousarray(up), np.ascontiguousarray(along.T)


def pairs(x: Array) -> Array:
    """`spectrum` with complex numbers as pairs: (batch, c, h, w) to real (h//2 + 1, w, 2, c, batch)."""
    xp, (b, c, h, w) = namespace(x), x.shape
    down, along = (like(x, matrix) for matrix in _dft((h, w))[:2])
    K, batch_last = h // 2 + 1, xp.reshape(xp.permute_dims(x, (1, 2, 3, 0)), (c, h, w * b))
    rows = xp.reshape(down @ batch_last, (c, K, 2 * w, b))
    return xp.reshape(_product_into(along, rows, (1, 2, 0, 3)), (K, w, 2, c, b))


def images_of_pairs(X: Array, size: tuple[int, int]) -> Array:
    """Inverse of `pairs`; the batch varies fastest in memory, as the next product wants it."""
    xp, (h, w), (K, _, _, c, b) = namespace(X), size, X.shape
    up, back = (like(X, matrix) for matrix in _dft(size)[2:])
    columns = back @ xp.permute_dims(xp.reshape(X, (K, 2 * w, c, b)), (2, 0, 1, 3))
    return xp.permute_dims(xp.reshape(up @ xp.reshape(columns, (c, 2 * K, w * b)), (c, h, w, b)), (3, 0, 1, 2))


def _product_into(P: Array, X: Array, axes: tuple[int, ...]) -> Array:
    # permute_dims(P @ X, axes), contiguous: NumPy's matmul writes there directly
    xp = namespace(X)
    if type(X) is not np.ndarray:
        return xp.permute_dims(P @ X, axes)
    shape = (*X.shape[:-2], P.shape[-2], X.shape[-1])
    result = np.empty([shape[axis] for axis in axes], X.dtype)
    np.matmul(P, X, out=result.transpose(np.argsort(axes)))
    return result


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

    def matvec(self, x: Array) -> Array:
        """(batch, i, h, w) to (batch, o, h, w)."""
        return self._apply(self, x)

    def rmatvec(self, y: Array) -> Array:
        """The transpose, (batch, o, h, w) to (batch, i, h, w): real matrices, so transpose and adjoint are one."""
        return self._apply(self.adjoint(), y)

    @memoised
    def adjoint(self) -> FourierMap:
        """F* D* F."""
        return FourierMap(adjoint(self.D), self.size)

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

    @staticmethod
    def _apply(map_: FourierMap, x: Array) -> Array:
        xp = namespace(x)
        if max(map_.size) > BY_MATRICES_UP_TO:
            return product(map_.D, x)
        X, M = pairs(x), like(x, map_.pairs())
        K, w, _, c, b = X.shape
        Y = M @ xp.reshape(X, (K, w, 2 * c, b))
        return images_of_pairs(xp.reshape(Y, (K, w, 2, Y.shape[2] // 2, b)), map_.size)


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
    xp, Y, Z = namespace(y), pairs(y), pairs(z)
    (K, w, _, o, b), i = Y.shape, Z.shape[3]
    H = xp.reshape(Y, (K, w, 2 * o, b)) @ xp.matrix_transpose(xp.reshape(Z, (K, w, 2 * i, b)))
    rr, ri, ir, ii = H[..., :o, :i], H[..., :o, i:], H[..., o:, :i], H[..., o:, i:]
    return complex_of(rr + ii, ir - ri)
