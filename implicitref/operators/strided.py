r"""Strided circular convolutions and the inverse of Proposition C1 (MON appendix C), corrected.

A convolution with stride r is the circular one of which the pixels 0, r, 2r, ... are kept: ``B = U B'`` with ``B'``
unstrided. Keeping every r-th pixel adds up the frequencies that are equal modulo s/r, the *aliases*: with the unitary
F, ``(F U x)(q) = (1/r) sum_{p = q mod s/r} (F x)(p)`` on each axis. So ``A + B'B`` mixes r^2 frequencies at a time, and
its inverse by Woodbury's identity needs one n2 x n2 solve for each of the (s/r)^2 low frequencies q.

The paper's K has a factor s^2 r^2 (here r^2), is the same for every output channel (here they are coupled), and swaps
a shuffle for its transpose on the last page. Both forms stand here: the alias form on images, and the matrices of the
proposition, for reading and testing. A stride may differ from axis to axis; then r^2 is r_1 r_2.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from typing import Any

import numpy as np

from ..arrays import Array, like, memoised, namespace, zeros
from ..errors import HypothesisError, ShapeError
from .conv import kernel_of, size_of
from .fourier import FourierMap, adjoint, blocks, cross_spectrum, identity_like, images, kernel_gradient, spectrum
from .linear import inverse

__all__ = ["AliasInverse", "StridedMap", "alias_inverse", "strided_convolution"]

Size = tuple[int, int]


# ------------------------------------------------------------------------------------------------
# Every r-th pixel, and the aliases


def subsample(x: Array, stride: Size) -> Array:
    """U x: the pixels 0, r, 2r, ... of images (batch, c, h, w) [MON-EqC14]."""
    return x[:, :, :: stride[0], :: stride[1]]


def insert_zeros(y: Array, stride: Size) -> Array:
    """U' y: images of r times the size, zero between the pixels of y; the transpose of `subsample`."""
    xp, (b, c, h, w), (r1, r2) = namespace(y), y.shape, stride
    wide = xp.concat([y[..., None], zeros((b, c, h, w, r2 - 1), y)], axis=-1)
    rows = xp.reshape(wide, (b, c, h, 1, w * r2))
    return xp.reshape(xp.concat([rows, zeros((b, c, h, r1 - 1, w * r2), y)], axis=3), (b, c, h * r1, w * r2))


def embed(y: Array, size: Size) -> Array:
    """Images in the top left corner of larger ones, zero elsewhere."""
    xp, (b, c, h, w) = namespace(y), y.shape
    rows = xp.concat([y, zeros((b, c, size[0] - h, w), y)], axis=2)
    return xp.concat([rows, zeros((b, c, size[0], size[1] - w), y)], axis=3)


def crop(y: Array, size: Size) -> Array:
    """The top left corner; the transpose of `embed`."""
    return y[:, :, : size[0], : size[1]]


def fold(X: Array, size: Size, stride: Size) -> Array:
    r"""Sum over the aliases ``p = q mod size/r``: half spectra (h//2 + 1, w, ...) to those of the coarse grid.

    ``fold(spectrum(x)) = r^2 spectrum(subsample(x))``: the geometric sums of (C19) to (C22) [MON-EqC19].

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(4.0).reshape(1, 1, 1, 4)
    >>> fold(spectrum(x), (1, 4), (1, 2))[0, :, 0, 0].real           # 2 (0 + 2), 2 (0 - 2)
    array([ 4., -4.])
    """
    xp, (r1, r2), (h, w) = namespace(X), stride, coarse(size, stride)
    aliases = xp.reshape(whole(X, size), (r1, h, r2, w, *X.shape[2:]))
    return xp.sum(aliases, axis=(0, 2))[: h // 2 + 1, ...]


def spread(Y: Array, size: Size, stride: Size) -> Array:
    """A coarse spectrum repeated at every alias, the transpose of `fold`: ``spectrum(insert_zeros(y))``."""
    xp, (r1, r2) = namespace(Y), stride
    return xp.tile(whole(Y, coarse(size, stride)), (r1, r2) + (1,) * (Y.ndim - 2))[: size[0] // 2 + 1, ...]


def whole(X: Array, size: Size) -> Array:
    """The half spectrum of real images completed by ``X(-p) = conj X(p)``."""
    xp, mirrored = namespace(X), X[1 : (size[0] + 1) // 2, ...]
    return xp.concat([X, xp.conj(xp.roll(xp.flip(mirrored, axis=(0, 1)), 1, axis=1))], axis=0)


def coarse(size: Size, stride: Size) -> Size:
    """size/r."""
    return size[0] // stride[0], size[1] // stride[1]


# ------------------------------------------------------------------------------------------------
# The strided convolution


@dataclasses.dataclass(frozen=True, eq=False)
class StridedMap:
    r"""``U F* D F``: a circular convolution of which every r-th pixel is kept, in the top left corner of `out`.

    Attributes
    ----------
    D : complex array (h//2 + 1, w, o, i), of the unstrided convolution
    size, stride, out : pairs; out is at least size/stride, and zero where it is larger
    """

    D: Array
    size: Size
    stride: Size
    out: Size

    def matvec(self, x: Array) -> Array:
        """(batch, i, h, w) to (batch, o, *out)."""
        return embed(subsample(self._unstrided().matvec(x), self.stride), self.out)

    def rmatvec(self, y: Array) -> Array:
        """The transpose: zeros between the pixels, then the transposed convolution."""
        return self._unstrided().rmatvec(self._up(y))

    @memoised
    def _unstrided(self) -> FourierMap:
        return FourierMap(self.D, self.size)

    def _up(self, y: Array) -> Array:
        return insert_zeros(crop(y, coarse(self.size, self.stride)), self.stride)

    def gradient(self, p: Array, q: Array, support: Size) -> Array:
        r"""Gradient of ``<p, S q>``, summed over the batch, by the kernel: ``C_r(p, q) = C(U'p, q)``.

        Parameters
        ----------
        p : array (batch, o, *out)
        q : array (batch, i, h, w)
        support : (kh, kw)
        """
        # <p, U K q> = <U'p, K q>, and C(p, q) is the gradient of <p, K q>
        return kernel_gradient(cross_spectrum(self._up(p), q), self.size, support)


def strided_convolution(kernel: Array, size: Size, stride: int | Size = 2, out: Size | None = None) -> StridedMap:
    r"""The strided circular convolution with a kernel: the circular one at the pixels 0, r, 2r, ... [MON-EqC13].

    Parameters
    ----------
    kernel : array (out channels, in channels, kh, kw)
        Centred at (k - 1)//2, of any size.
    size : (height, width) of the input
    stride : int or (int, int), divides `size`
    out : (height, width), optional
        At least size/stride, zero-filled at the bottom and at the right; size/stride by default.

    Raises
    ------
    ShapeError, HypothesisError

    Examples
    --------
    >>> import numpy as np
    >>> S = strided_convolution(np.ones((1, 1, 1, 1)), (1, 4), (1, 2))
    >>> S.matvec(np.array([[[[1.0, 2.0, 3.0, 4.0]]]])).round(12)
    array([[[[1., 3.]]]])
    """
    kernel = kernel_of("kernel", kernel, kernel.shape[1] if getattr(kernel, "ndim", 0) == 4 else 1)
    size, pair = size_of("size", size), stride_of(stride)
    least = divided("size", size, pair)
    out = least if out is None else size_of("out", out)
    if out[0] < least[0] or out[1] < least[1]:
        raise ShapeError(f"out must be at least size/stride = {least}; got {out}.")
    return StridedMap(blocks(kernel, size), size, pair, out)


def stride_of(stride: Any) -> Size:
    """The stride as two integers >= 1, refused by name otherwise."""
    try:
        r1, r2 = (operator.index(r) for r in (stride if isinstance(stride, list | tuple) else (stride, stride)))
    except (TypeError, ValueError):
        r1 = r2 = 0
    if min(r1, r2) < 1:
        raise HypothesisError(f"stride must be an integer >= 1, or one for each axis; got {stride!r}.")
    return r1, r2


def divided(name: str, size: Size, stride: Size) -> Size:
    """size/stride, refused by name where that is no pair of integers."""
    for n, r in zip(size, stride, strict=True):
        if n % r:
            sides = " or ".join(str(side) for side in (n - n % r, n - n % r + r) if side)
            strides = ", ".join(str(d) for d in range(1, n + 1) if n % d == 0)
            raise HypothesisError(
                f"stride must divide {name} [MON-PropC1]; got stride {r} for a side of {n}. A side of {sides} would "
                f"do, or a stride among {strides}."
            )
    return coarse(size, stride)


# ------------------------------------------------------------------------------------------------
# Proposition C1, the alias form


@dataclasses.dataclass(frozen=True, eq=False)
class AliasInverse:
    r"""``(A + B'B)^-1 = F* (D_A^-1 - D_A^-1 D_B* K D_B D_A^-1) F`` on images, see `alias_inverse` [MON-EqC9].

    Attributes
    ----------
    X : complex array (h//2 + 1, w, n1, n1), D_A^-1
    B : complex array (h//2 + 1, w, n2, n1), D_B of the unstrided convolution
    M_inv : complex array (h/r//2 + 1, w/r, n2, n2), the inverses of M_q
    size, stride : pairs
    """

    X: Array
    B: Array
    M_inv: Array
    size: Size
    stride: Size

    def matvec(self, z: Array) -> Array:
        """(A + B'B)^-1 z."""
        Z = spectrum(z)
        X, B, M_inv = (like(Z, D) for D in (self.X, self.B, self.M_inv))
        Y = X @ Z
        aliased = M_inv @ fold(B @ Y, self.size, self.stride)  # K = (spread) M^-1 (fold)
        return images(Y - X @ (adjoint(B) @ spread(aliased, self.size, self.stride)), self.size)

    def rmatvec(self, y: Array) -> Array:
        """(A' + B'B)^-1 y."""
        return self.adjoint().matvec(y)

    @memoised
    def adjoint(self) -> AliasInverse:
        """The inverse of the transpose, from the same factors."""
        return AliasInverse(adjoint(self.X), self.B, adjoint(self.M_inv), self.size, self.stride)


def alias_inverse(D_A: Array, D_B: Array, size: Size, stride: Size) -> AliasInverse:
    r"""Proposition C1, corrected: ``(A + B'B)^-1`` of an unstrided A and a strided B [MON-PropC1, MON-EqC10].

    With ``M_q = r^2 I + sum_{p = q mod s/r} D_B(p) D_A(p)^-1 D_B(p)*``, n2 x n2, one for each low frequency q.
    A need not be symmetric; A and A + B'B must be invertible, which holds where A has a positive symmetric part.

    Parameters
    ----------
    D_A : complex array (h//2 + 1, w, n1, n1)
    D_B : complex array (h//2 + 1, w, n2, n1), of the unstrided convolution
    size, stride : pairs; stride divides size

    Examples
    --------
    >>> import numpy as np
    >>> one = np.ones((2, 2, 1, 1)) + 0j                         # A = I, B keeps one pixel of four
    >>> alias_inverse(one, one, (2, 2), (2, 2)).matvec(np.ones((1, 1, 2, 2)))
    array([[[[0.5, 1. ],
             [1. , 1. ]]]])
    """
    X = inverse(D_A, "A")
    M = fold(D_B @ X @ adjoint(D_B), size, stride)
    M = math.prod(stride) * identity_like(M) + M
    return AliasInverse(X, D_B, inverse(M, "A + B'B"), size, stride)


# ------------------------------------------------------------------------------------------------
# Proposition C1 and its proof in matrices of NumPy, for square images, each row-major, channel after channel


def dft(s: int) -> np.ndarray:
    """F_s, unitary: 1/sqrt(s) where the paper prints 1/s [MON-EqB1]."""
    i = np.arange(s)
    return np.asarray(np.exp(2j * math.pi * (np.outer(i, i) % s) / s) / math.sqrt(s))


def dft2(s: int, n: int) -> np.ndarray:
    """F_{s,n} = I_n (x) F_s (x) F_s."""
    return np.kron(np.eye(n), np.kron(dft(s), dft(s)))


def shuffle(a: int, b: int) -> np.ndarray:
    """The perfect shuffle S_{a,b}: the rows of I_ab in steps of b, from each of the first b [MON-EqC11]."""
    return np.concatenate([np.eye(a * b)[start::b] for start in range(b)])


def gather(s: int, r: int) -> np.ndarray:
    """S'J, (s^2, s^2/r^2): which frequencies p are aliases of which q; J is r^2 stacked identities."""
    S, J = np.kron(np.eye(r), shuffle(s // r, s)), np.tile(np.eye((s // r) ** 2), (r * r, 1))
    return np.asarray(S.T @ J)


def selection(s: int, r: int) -> np.ndarray:
    """U_{r,s}, (s^2/r^2, s^2): every r-th row of every r-th row of pixels [MON-EqC14]."""
    every = np.eye(s)[::r]
    return np.kron(every, every)


def kept(s: int, r: int) -> np.ndarray:
    """T_{r,s}, U'U = T (x) T: ones where ``i = 1 (mod r)``, also for r = 1 [MON-EqC16, MON-EqC17]."""
    return np.diag((np.arange(s) % r == 0).astype(float))


def congruent(s: int, r: int) -> np.ndarray:
    """L = F T F*: 1/r where ``i = j (mod s/r)``; the printed 1/(s r) belongs to the printed F [MON-EqC19]."""
    i = np.arange(s)
    return np.asarray(((i[:, None] - i) % (s // r) == 0) / r)


def coupled_inverse(D_A: np.ndarray, D_B: np.ndarray, s: int, r: int) -> np.ndarray:
    r"""K of Proposition C1, corrected: ``P (r^2 I + P' D_B D_A^-1 D_B* P)^-1 P'`` with ``P = I_n2 (x) S'J``.

    r^2 for the printed s^2 r^2, and one inverse over all n2 output channels for ``I_n2 (x) K`` [MON-EqC10].

    Parameters
    ----------
    D_A : array (n1 s^2, n1 s^2), F A F*
    D_B : array (n2 s^2, n1 s^2), F B' F* of the unstrided convolution B'
    """
    P = np.kron(np.eye(D_B.shape[0] // (s * s)), gather(s, r))
    inner = P.T @ D_B @ np.linalg.inv(D_A) @ D_B.conj().T @ P
    return np.asarray(P @ np.linalg.inv(r**2 * np.eye(P.shape[1]) + inner) @ P.T)


def proposition_c1(A: np.ndarray, B: np.ndarray, s: int, r: int) -> np.ndarray:
    r"""``(A + B'U'UB)^-1`` as (C9) has it, with the corrected K [MON-PropC1, MON-EqC9].

    Parameters
    ----------
    A : array (n1 s^2, n1 s^2), a circular convolution
    B : array (n2 s^2, n1 s^2), an unstrided circular convolution, of which U keeps every r-th pixel

    Examples
    --------
    >>> import numpy as np
    >>> proposition_c1(np.eye(4), np.eye(4), s=2, r=2).real.diagonal().round(12)        # printed: 0.8, 1, 1, 1
    array([0.5, 1. , 1. , 1. ])
    """
    F1, F2 = dft2(s, A.shape[0] // (s * s)), dft2(s, B.shape[0] // (s * s))
    D_A, D_B = F1 @ A @ F1.conj().T, F2 @ B @ F1.conj().T
    X = np.linalg.inv(D_A)
    K = coupled_inverse(D_A, D_B, s, r)
    return np.asarray(F1.conj().T @ (X - X @ D_B.conj().T @ K @ D_B @ X) @ F1)
