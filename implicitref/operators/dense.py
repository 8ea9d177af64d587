r"""The dense operator of Proposition 1: ``W = (1 - m) I - A'A + B - B'``, so that ``I - W >= m I``.

The weight-normalised form of appendix D.2 is ``W = (1 - m) I - g A'A/||A||_F^2 + h (B - B')/||B||_F``. Read
``A'A`` for A transposed times A.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from ..arrays import Array, alongside, checked, eps, eye, like, memoised, namespace, owned, positive, quiet
from ..errors import HypothesisError, ShapeError
from .linear import DenseMap, batch_of, inverse, pair_of, replaced
from .scales import check_normalised, normalised_vjp, scale_of, square

__all__ = ["MonotoneDense", "weight"]


def weight(A: Array, B: Array, m: float, g: Array | None = None, h: Array | None = None) -> Array:
    r"""W of Proposition 1 [MON-Prop1, MON-Eq5], or of appendix D.2 where g or h is given [MON-AppD.2-weightnorm].

    Its symmetric part is ``(1 - m) I - A'A``, hence ``I - W >= m I`` for every A and B (with g >= 0).

    Examples
    --------
    >>> import numpy as np
    >>> weight(np.array([[2.0]]), np.array([[7.0]]), 1.0)
    array([[-4.]])
    """
    xp = namespace(A, B)
    gram, skew = xp.matrix_transpose(A) @ A, B - xp.matrix_transpose(B)
    if g is not None:
        gram = gram * (g / square(A))
    if h is not None:
        skew = skew * (h / square(B) ** 0.5)
    return (1 - m) * eye(A.shape[0], A) - gram + skew


@dataclasses.dataclass(frozen=True, eq=False)
class MonotoneDense:
    r"""``W = (1 - m) I - A'A + B - B'`` [MON-Prop1], or its weight-normalised form [MON-AppD.2-weightnorm].

    Parameters
    ----------
    A, B : array (n, n)
        Any real matrices. Copied: later changes to the caller's arrays are not seen.
    m : float
        Strong monotonicity of ``I - W``, > 0.
    g, h : float, optional
        Scales of appendix D.2. ``g >= 0`` is required, which the paper omits: with g free the theorem is false,
        n = 1, m = 1, g = -3 gives ``I - W = -2``.

    Raises
    ------
    ShapeError, HypothesisError

    Examples
    --------
    >>> import numpy as np
    >>> W = MonotoneDense(np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[0.0, 1.0], [0.0, 0.0]]), m=0.5)
    >>> W.to_dense()
    array([[-0.5,  1. ],
           [-1. , -3.5]])
    >>> W.matvec(np.array([[1.0, 0.0]]))
    array([[-0.5, -1. ]])
    """

    A: Array
    B: Array
    m: float
    g: Array | None = None
    h: Array | None = None

    def __post_init__(self) -> None:
        A = checked("A", self.A, 2)
        if A.shape[0] != A.shape[1] or A.shape[0] == 0:
            raise ShapeError(f"A must be square, (n, n) with n >= 1; got shape {tuple(A.shape)}.")
        B = alongside("B", checked("B", self.B, 2), A)
        if B.shape != A.shape:
            raise ShapeError(f"B must have the shape of A, {tuple(A.shape)}; got {tuple(B.shape)}.")
        scales = {name: scale_of(name, getattr(self, name), like_=A) for name in ("g", "h")}
        check_normalised(A, B, **scales)
        m = positive("m", self.m, ": I - W >= m I must be strongly monotone [MON-Prop1]")
        for name, value in {"A": owned(A), "B": owned(B), "m": m, **scales}.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_weight(cls, W: Array, m: float) -> MonotoneDense:
        r"""The other half of Proposition 1: factors of a given W with ``I - W >= m I``.

        ``A'A = (1 - m) I - (W + W')/2`` by its eigenvalue decomposition, which also serves singular matrices,
        and ``B = W/2``.

        Raises
        ------
        HypothesisError
            ``I - W >= m I`` fails; the message names the largest m that holds.

        Examples
        --------
        >>> import numpy as np
        >>> MonotoneDense.from_weight(np.array([[0.0, 1.0], [-1.0, 0.0]]), 1.0).to_dense()
        array([[ 0.,  1.],
               [-1.,  0.]])
        """
        W, m = checked("W", W, 2), positive("m", m, " [MON-Prop1]")
        if W.shape[0] != W.shape[1] or W.shape[0] == 0:
            raise ShapeError(f"W must be square, (n, n) with n >= 1; got shape {tuple(W.shape)}.")
        xp = namespace(W)
        gram = (1 - m) * eye(W.shape[0], W) - (W / 2 + xp.matrix_transpose(W) / 2)
        values, vectors = xp.linalg.eigh(gram)
        smallest = float(xp.min(values))
        if smallest < -8 * W.shape[0] * eps(W) * (1 + float(xp.max(xp.abs(values)))):
            raise HypothesisError(
                f"I - W >= m I [MON-Prop1] needs m <= {m + smallest:.6g}, the smallest eigenvalue of the symmetric "
                f"part of I - W; got m = {m:g}."
            )
        roots = xp.sqrt(xp.clip(values, 0.0, None))
        return cls(roots[:, None] * xp.matrix_transpose(vectors), W / 2, m)

    @property
    def params(self) -> dict[str, Array]:
        """The trained parameters by name: A, B, and g, h where given."""
        named = {name: getattr(self, name) for name in ("A", "B", "g", "h")}
        return {name: value for name, value in named.items() if value is not None}

    def replace(self, **params: Any) -> MonotoneDense:
        """The same operator with other parameters."""
        other: MonotoneDense = replaced(self, params)
        return other

    @property
    def size(self) -> int:
        """Length n of a state."""
        return int(self.A.shape[0])

    @property
    def state_shape(self) -> tuple[int, ...]:
        """Shape of a state without the batch axis, (n,)."""
        return (self.size,)

    @property
    def memory(self) -> tuple[int, ...]:
        """Axes of states from the slowest to the fastest in the memory order that products like best."""
        return (0, 1)

    @property
    def spectral_shape(self) -> tuple[int, int]:
        """How many `spectral_blocks` there are and of which size: (1, n)."""
        return 1, self.size

    def spectral_blocks(self) -> Array:
        """Matrices (count, n, n) that W is unitarily equivalent to, side by side: W itself."""
        return self.to_dense()[None, ...]

    @memoised
    def to_dense(self) -> Array:
        """W as a matrix (n, n)."""
        return owned(weight(self.A, self.B, self.m, self.g, self.h))

    def matvec(self, z: Array) -> Array:
        """W z for every row of (batch, n)."""
        z = batch_of("z", z, self.state_shape)
        return self._map(z).matvec(z)

    def rmatvec(self, y: Array) -> Array:
        """W' y for every row of (batch, n)."""
        y = batch_of("y", y, self.state_shape)
        return self._map(y).rmatvec(y)

    def _map(self, x: Array) -> DenseMap:
        W = self._dense_map()
        moved = like(x, W.matrix)
        return W if moved is W.matrix else DenseMap(moved)

    @memoised
    def _dense_map(self) -> DenseMap:
        return DenseMap(self.to_dense())

    def resolvent(self, alpha: float) -> DenseMap:
        """V = (I + alpha (I - W))^-1, factored once for each alpha: O(n^3), shared by both passes and the batch."""
        V: DenseMap = self._resolvent(positive("alpha", alpha, " [MON-EqA5]"))
        return V

    @memoised
    def _resolvent(self, alpha: float) -> DenseMap:
        with quiet():  # the inverse refuses what overflows
            shifted = (1 + alpha) * eye(self.size, self.A) - alpha * self.to_dense()
        return DenseMap(owned(inverse(shifted, f"I + {alpha:g} (I - W)")))

    @memoised
    def lipschitz(self) -> float:
        """L = ||I - W||_2, the largest singular value."""
        xp = namespace(self.A)
        return float(xp.max(xp.linalg.svdvals(eye(self.size, self.A) - self.to_dense())))

    @memoised
    def magnitude(self) -> DenseMap:
        """|W| entry by entry: what bounds the rounding error of W z."""
        return DenseMap(namespace(self.A).abs(self.to_dense()))

    @memoised
    def frobenius(self) -> float:
        """||W||_F >= || |W| ||_2, the cheap bound of the same."""
        return float(square(self.to_dense()) ** 0.5)

    def vjp(self, z: Array, dy: Array) -> dict[str, Array]:
        r"""Gradient of ``<dy, W z>``, summed over the batch, with respect to every parameter.

        Parameters
        ----------
        z, dy : array (batch, n)

        Returns
        -------
        dict of arrays, the names and shapes of `params`
        """
        return self.vjp_from([*self.correlate(z, dy)])

    def correlate(self, z: Array, dy: Array) -> Iterator[Array]:
        """What `vjp` needs of a batch, a sum over its samples: ``sum_batch dy z'``."""
        z, dy = pair_of(z, dy, self.state_shape)
        yield namespace(z, dy).matrix_transpose(dy) @ z

    def vjp_from(self, correlations: list[Array]) -> dict[str, Array]:
        """`vjp` from the sum of what `correlate` gives for the parts of a batch."""
        # <dy, W z> = <H, W> with H = sum_batch dy z'. On the two parts of W:
        #   d<H, A'A> = <A (H + H'), dA>                    d<H, B - B'> = <H - H', dB>
        (H,), xp = correlations, namespace(*correlations)
        A, B, g, h = (None if p is None else like(H, p) for p in (self.A, self.B, self.g, self.h))
        dB = H - xp.matrix_transpose(H)
        dA = A @ (dB - 2 * H)  # -A (H + H'), with one pass over a transposed matrix
        return normalised_vjp(dA, dB, A, B, g, h)
