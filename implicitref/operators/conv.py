r"""One circular convolution (MON section 4.2, appendix B): ``W = (1 - m) I - A'A + B - B'`` with convolutions A and B.

Zero padding is left to the activation: `zero_padded`.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Iterator
from typing import Any

from ..activations import Activation, ZeroBorder, zero_border
from ..arrays import Array, alongside, checked, like, memoised, namespace, owned, positive, quiet, real_like
from ..errors import HypothesisError, ShapeError
from .fourier import FourierMap, adjoint, blocks, cross_spectrum, identity_like, kernel_gradient, skew_part
from .linear import batch_of, inverse, pair_of, replaced
from .scales import check_normalised, normalised_vjp, scale_of, square

__all__ = ["MonotoneConv", "zero_padded"]


@dataclasses.dataclass(frozen=True, eq=False)
class MonotoneConv:
    r"""``W = (1 - m) I - A'A + B - B'`` with circular convolutions A, B of one image size [MON-Sec4.2-kernel].

    With g, h the weight-normalised form of appendix D.2, with the norms of the kernels [MON-AppD.2-weightnorm].
    States are (batch, n, height, width).

    Parameters
    ----------
    A, B : array (n, n, kh, kw)
        Kernels of any size, also larger than the image: they wrap around. Two kernels k x k reach 2k - 1 pixels.
    m : float
        Strong monotonicity of ``I - W``, > 0.
    size : (height, width)
    g, h : float, optional
        Scales of appendix D.2, ``g >= 0``.

    Raises
    ------
    ShapeError, HypothesisError

    Examples
    --------
    >>> import numpy as np
    >>> one = np.ones((1, 1, 1, 1))
    >>> W = MonotoneConv(2 * one, 7 * one, m=1.0, size=(2, 2))
    >>> W.matvec(np.array([[[[1.0, 2.0], [3.0, 4.0]]]])).round(12)           # - A'A
    array([[[[ -4.,  -8.],
             [-12., -16.]]]])
    """

    A: Array
    B: Array
    m: float
    size: tuple[int, int]
    g: Array | None = None
    h: Array | None = None

    def __post_init__(self) -> None:
        A = kernel_of("A", self.A)
        B = alongside("B", kernel_of("B", self.B), A)
        if B.shape[0] != A.shape[0]:
            raise ShapeError(f"B must have the channels of A, {A.shape[0]}; got shape {tuple(B.shape)}.")
        scales = {name: scale_of(name, getattr(self, name), like_=A) for name in ("g", "h")}
        check_normalised(A, B, **scales)
        m = positive("m", self.m, ": I - W >= m I must be strongly monotone [MON-Prop1]")
        size = size_of("size", self.size)
        for name, value in {"A": owned(A), "B": owned(B), "m": m, "size": size, **scales}.items():
            object.__setattr__(self, name, value)

    @property
    def params(self) -> dict[str, Array]:
        """The trained parameters by name: A, B, and g, h where given."""
        named = {name: getattr(self, name) for name in ("A", "B", "g", "h")}
        return {name: value for name, value in named.items() if value is not None}

    def replace(self, **params: Any) -> MonotoneConv:
        """The same operator with other parameters."""
        other: MonotoneConv = replaced(self, params)
        return other

    @property
    def channels(self) -> int:
        """n."""
        return int(self.A.shape[0])

    @property
    def state_shape(self) -> tuple[int, ...]:
        """Shape of a state without the batch axis, (n, height, width)."""
        return self.channels, *self.size

    @property
    def memory(self) -> tuple[int, ...]:
        """Axes of states from the slowest to the fastest in the memory order that products like best."""
        return (2, 3, 1, 0)

    @property
    def spectral_shape(self) -> tuple[int, int]:
        """How many `spectral_blocks` there are and of which size."""
        return (self.size[0] // 2 + 1) * self.size[1], self.channels

    def spectral_blocks(self) -> Array:
        """The blocks of F W F* (count, n, n), every one that differs from the conjugate of another."""
        return namespace(self.A).reshape(self._map().D, (-1, self.channels, self.channels))

    @memoised
    def _map(self) -> FourierMap:
        # one block at a time, Proposition 1 with * for ' [MON-EqB4]
        DA = blocks(self.A, self.size)
        gram, skew = adjoint(DA) @ DA, blocks(skew_part(self.B, self.size), self.size)
        if self.g is not None:
            gram = gram * like(gram, self.g / square(self.A))
        if self.h is not None:
            skew = skew * like(skew, self.h / square(self.B) ** 0.5)
        return FourierMap((1 - self.m) * identity_like(gram) - gram + skew, self.size)

    def matvec(self, z: Array) -> Array:
        """W z for every image of (batch, n, height, width)."""
        return self._map().matvec(batch_of("z", z, self.state_shape))

    def rmatvec(self, y: Array) -> Array:
        """W' y for every image of (batch, n, height, width)."""
        return self._map().rmatvec(batch_of("y", y, self.state_shape))

    def to_dense(self) -> Array:
        """W as a matrix (n height width, n height width)."""
        return self._map().to_dense()

    def resolvent(self, alpha: float) -> FourierMap:
        r"""V = (I + alpha (I - W))^-1: n x n complex blocks, inverted once for each alpha.

        ``F* ((1 + alpha m) I + alpha D_A* D_A - alpha D_B + alpha D_B*)^-1 F``; (28) and (B5) are printed without
        alpha at D_B [MON-Eq28, MON-EqB5].
        """
        V: FourierMap = self._resolvent(positive("alpha", alpha, " [MON-EqA5]"))
        return V

    @memoised
    def _resolvent(self, alpha: float) -> FourierMap:
        W = self._map().D
        with quiet():  # the inverse refuses what overflows
            shifted = (1 + alpha) * identity_like(W) - alpha * W
        V = inverse(shifted, f"I + {alpha:g} (I - W)")
        return FourierMap(V, self.size)

    @memoised
    def lipschitz(self) -> float:
        """L = ||I - W||_2, the largest singular value of a block, exactly."""
        xp, W = namespace(self.A), self.spectral_blocks()
        return float(xp.max(xp.linalg.svdvals(identity_like(W) - W)))

    @memoised
    def monotonicity(self) -> float:
        """The largest m for which ``I - W >= m I``: the smallest eigenvalue of the Hermitian part of a block."""
        xp, W = namespace(self.A), self.spectral_blocks()
        return float(xp.min(xp.linalg.eigvalsh(identity_like(W) - (W + adjoint(W)) / 2)))

    @memoised
    def magnitude(self) -> FourierMap:
        """3 |W| entry by entry: what bounds the rounding error of W z, a transform there and back included."""
        xp = namespace(self.A)
        return FourierMap(3 * blocks(xp.abs(self._kernel()), self.size), self.size)

    @memoised
    def frobenius(self) -> float:
        """3 ||W||_F, the cheap bound of the same."""
        return 3 * math.sqrt(math.prod(self.size) * float(square(self._kernel())))

    def _kernel(self) -> Array:
        """The kernel of W, as large as the image: the blocks are a unitary transform of it."""
        return kernel_gradient(self._map().D, self.size, self.size)

    def vjp(self, z: Array, dy: Array) -> dict[str, Array]:
        r"""Gradient of ``<dy, W z>``, summed over the batch, with respect to every parameter.

        Parameters
        ----------
        z, dy : array (batch, n, height, width)

        Returns
        -------
        dict of arrays, the names and shapes of `params`
        """
        return self.vjp_from([*self.correlate(z, dy)])

    def correlate(self, z: Array, dy: Array) -> Iterator[Array]:
        """What `vjp` needs of a batch, a sum over its samples: ``sum_batch dy z*`` at every frequency."""
        yield cross_spectrum(*reversed(pair_of(z, dy, self.state_shape)))

    def vjp_from(self, correlations: list[Array]) -> dict[str, Array]:
        """`vjp` from the sum of what `correlate` gives for the parts of a batch."""
        # <dy, W z> = (1/hw) sum_p Re <H(p), W(p)> with H = sum_batch dy z*, so each block is the dense case:
        # dA = -A (H + H*), dB = H - H*. In kernels: -(C(A dy, z) + C(A z, dy)) and C(dy, z) - C(z, dy), where
        # C(p, q)[o, i, d] = sum_x p_o(x) q_i(x + d - centre) is the gradient of <p, K q>.
        (H,) = correlations
        A, B, g, h = (None if p is None else real_like(H, p) for p in (self.A, self.B, self.g, self.h))
        dA = kernel_gradient(-(blocks(A, self.size) @ (H + adjoint(H))), self.size, tuple(self.A.shape[2:]))
        dB = kernel_gradient(H - adjoint(H), self.size, tuple(self.B.shape[2:]))
        return normalised_vjp(dA, dB, A, B, g, h)


def zero_padded(W: MonotoneConv, activation: Activation, width: int | None = None) -> ZeroBorder:
    r"""The activation whose border of zeros makes the circular W a zero-padded convolution inside [MON-Sec4.2-padding].

    A'A reaches k - 1 pixels, k the side of A's kernel, and B - B' reaches k//2, k the side of B's; nothing wraps around
    a border of p pixels exactly when 2 p is at least both, which for kernels of one side is ``2 p >= k - 1``. The paper
    asks for (k - 1)/2 pixels with k the receptive field: the same if k means the kernels of A and B.

    Parameters
    ----------
    W : MonotoneConv, on the padded image
    activation : Activation
    width : int, optional
        Border pixels p on each side; the fewest that do by default.

    Raises
    ------
    HypothesisError
        2 p is less. With p = 1, k = 5 the interior differs from the zero-padded operator by 0.2.

    Examples
    --------
    >>> import numpy as np
    >>> from implicitref.activations import relu
    >>> kernel = np.ones((1, 1, 3, 3))
    >>> zero_padded(MonotoneConv(kernel, kernel, 1.0, (6, 6)), relu)
    zero_border(relu, 1)
    """
    if not isinstance(W, MonotoneConv):
        raise TypeError(f"W must be a MonotoneConv; got {type(W).__name__}.")
    reach = max(*(side - 1 for side in W.A.shape[2:]), *(side // 2 for side in W.B.shape[2:]))
    border = zero_border(activation, math.ceil(reach / 2) if width is None else width)
    if 2 * border.width < reach:
        raise HypothesisError(
            f"width must be at least {math.ceil(reach / 2)}, so that 2 width >= {reach}, the reach of W: k - 1 for "
            f"kernels of side k [MON-Sec4.2-padding]; got {width}, around which W would still wrap."
        )
    return border


def kernel_of(name: str, K: Any, channels_in: int | None = None) -> Array:
    """A kernel (n, n, kh, kw), or (out, channels_in, kh, kw), refused by name otherwise."""
    K = checked(name, K, 4)
    wanted = K.shape[0] if channels_in is None else channels_in
    if K.shape[1] != wanted or not math.prod(K.shape):
        form = "(n, n, kh, kw)" if channels_in is None else f"(out, {channels_in}, kh, kw)"
        raise ShapeError(f"{name} must be kernels {form}, nowhere empty; got shape {tuple(K.shape)}.")
    return K


def size_of(name: str, size: Any) -> tuple[int, int]:
    """(height, width) as two integers >= 1, refused by name otherwise."""
    try:
        height, width = map(operator.index, size)
    except (TypeError, ValueError):
        height = width = 0
    if min(height, width) < 1:
        raise HypothesisError(f"{name} must be (height, width), two integers >= 1; got {size!r}.")
    return height, width
