r"""Multi-tier networks (MON section 4.3, appendix C): images of several resolutions in one state.

A and B are block lower bidiagonal, with convolutions A_ii, B_ii inside a tier and strided ones A_{i+1,i} from each tier
to the next, here S_i. The blocks of B below the diagonal are not free: no tier acts on the one above, W_{i,i+1} = 0, so
``B_{i+1,i} = -A_{i+1,i+1}' S_i``. What is left of ``W = (1 - m) I - A'A + B - B'`` [MON-EqC1 to MON-EqC5]:

    W_ii    = (1 - m) I - A_ii'A_ii - S_i'S_i + B_ii - B_ii'        (without S_i'S_i in the last tier)
    W_i+1,i = -2 A_{i+1,i+1}' S_i

So ``I + alpha (I - W)`` is inverted tier by tier (C6, C7), its diagonal blocks by Proposition C1. Here in the paper's
order, one map after another.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..arrays import Array, alongside, eye, from_numpy, is_array, like, memoised, namespace, owned, positive, to_numpy
from ..errors import HypothesisError, ShapeError
from . import cascade
from .conv import kernel_of, size_of
from .fourier import FourierMap, adjoint, blocks, cross_spectrum, identity_like, kernel_gradient
from .linear import batch_of, inverse, pair_of, replaced
from .scales import scale_of, square
from .strided import StridedMap, alias_inverse, divided, stride_of

__all__ = ["MonotoneMultiTier"]

EXACT_UP_TO = 512  # states up to this long have their norms from the dense matrix
ROOTED = ("g", "gs")  # scales of a square: their roots multiply A and S

Shape = tuple[int, int, int]


@dataclasses.dataclass(frozen=True, eq=False)
class MonotoneMultiTier:
    r"""Block lower bidiagonal W of appendix C: convolutions in every tier, strided ones between [MON-Sec4.3-tiers].

    States are flat, (batch, N): the tiers one after another, each (channels, height, width) in C order; see `split`.
    With g, gs, h the kernels are ``sqrt(g_i) A_i/||A_i||_F``, ``sqrt(gs_i) S_i/||S_i||_F``, ``h_i B_i/||B_i||_F``
    [MON-AppD.2-weightnorm]; g_i, gs_i > 0, for the root has no derivative at 0.

    Parameters
    ----------
    A, B : list of arrays (n_i, n_i, kh, kw), one a tier
    S : list of arrays (n_{i+1}, n_i, kh, kw), one between two tiers: the paper's A_{i+1,i}
    m : float
        Strong monotonicity of ``I - W``, > 0.
    sizes : list of (height, width), one a tier
        Tier i + 1 is at least sizes[i]/stride; where larger, it receives zeros at the bottom and at the right.
    stride : int or (int, int)
        Divides the sizes of all tiers but the last.
    g, gs, h : list of floats, optional

    Raises
    ------
    ShapeError, HypothesisError

    Examples
    --------
    >>> import numpy as np
    >>> one = np.ones((1, 1, 1, 1))
    >>> W = MonotoneMultiTier([one, one], [one, one], [one], m=1.0, sizes=[(1, 2), (1, 1)], stride=(1, 2))
    >>> W.matvec(np.array([[1.0, 2.0, 3.0]])).round(12)        # -(1 + 1) 1, -2, -3 - 2 1
    array([[-2., -2., -5.]])
    """

    A: Sequence[Array]
    B: Sequence[Array]
    S: Sequence[Array]
    m: float
    sizes: Sequence[tuple[int, int]]
    stride: int | tuple[int, int] = 2
    g: Sequence[Array] | None = None
    gs: Sequence[Array] | None = None
    h: Sequence[Array] | None = None

    def __post_init__(self) -> None:
        kernels = _kernels(self.A, self.B, self.S)
        stride, m = stride_of(self.stride), positive("m", self.m, ": I - W >= m I must be monotone [MON-Prop1]")
        sizes = _sizes(self.sizes, stride, len(kernels["A"]))
        scales = {
            scale: _scales(scale, getattr(self, scale), name, kernels[name])
            for scale, name in (("g", "A"), ("gs", "S"), ("h", "B"))
        }
        for name, value in {**kernels, "m": m, "sizes": sizes, "stride": stride, **scales}.items():
            object.__setattr__(self, name, value)

    @property
    def params(self) -> dict[str, list[Array]]:
        """The trained parameters by name, each a list: A, B, S, and g, gs, h where given."""
        named = {name: getattr(self, name) for name in ("A", "B", "S", "g", "gs", "h")}
        return {name: list(value) for name, value in named.items() if value is not None}

    def replace(self, **params: Any) -> MonotoneMultiTier:
        """The same operator with other parameters."""
        other: MonotoneMultiTier = replaced(self, params)
        return other

    @property
    def shapes(self) -> list[Shape]:
        """(channels, height, width) of every tier, as `zero_border` takes them."""
        return [(int(A.shape[0]), *size) for A, size in zip(self.A, self.sizes, strict=True)]

    @property
    def size(self) -> int:
        """Length N of a state."""
        return sum(math.prod(shape) for shape in self.shapes)

    @property
    def state_shape(self) -> tuple[int, ...]:
        """Shape of a state without the batch axis, (N,)."""
        return (self.size,)

    def split(self, z: Array) -> list[Array]:
        """A flat state (batch, N) as its tiers (batch, channels, height, width)."""
        return _split(batch_of("z", z, self.state_shape), self.shapes)

    def join(self, tiers: Sequence[Array]) -> Array:
        """The flat state of these tiers, the inverse of `split`."""
        tiers = _listed("tiers", tiers, len(self.A), "the images of every tier")
        for i, (tier, shape) in enumerate(zip(tiers, self.shapes, strict=True)):
            batch_of(f"tiers[{i}]", tier, shape)
        return _join(tiers)

    @memoised
    def _effective(self) -> dict[str, list[Array]]:
        # the kernels that act, scales included
        return {
            name: [_scaled(K, c) for K, c in zip(getattr(self, name), self._factors(scale, name), strict=True)]
            for name, scale in (("A", "g"), ("B", "h"), ("S", "gs"))
        }

    def _factors(self, scale: str, name: str) -> list[Array | None]:
        # what multiplies K/||K||_F, or None where K acts as it is
        values = getattr(self, scale)
        if values is None:
            return [None] * len(getattr(self, name))
        return [value**0.5 if scale in ROOTED else value for value in values]

    @memoised
    def by_tiers(self) -> _Tiers:
        """W block by block, in the paper's letters: the readable form of `matvec` and `rmatvec`."""
        kernels = self._effective()
        A = [blocks(K, size) for K, size in zip(kernels["A"], self.sizes, strict=True)]
        B = [blocks(K, size) for K, size in zip(kernels["B"], self.sizes, strict=True)]
        inside = [(1 - self.m) * identity_like(a) - adjoint(a) @ a + b - adjoint(b) for a, b in zip(A, B, strict=True)]
        return self._tiers(inside, A, [blocks(K, size) for K, size in zip(kernels["S"], self.sizes, strict=False)], -1)

    def _tiers(self, inside: list[Array], A: list[Array], S: list[Array], sign: float) -> _Tiers:
        maps = [[FourierMap(D, size) for D, size in zip(each, self.sizes, strict=True)] for each in (inside, A)]
        stride = stride_of(self.stride)
        strided = [StridedMap(D, self.sizes[i], stride, self.sizes[i + 1]) for i, D in enumerate(S)]
        return _Tiers(maps[0], maps[1], strided, sign, self.shapes)

    @memoised
    def _coarse(self) -> list[cascade.Tier]:
        kernels = self._effective()
        return cascade.tiers(kernels["A"], kernels["B"], kernels["S"], self.sizes, stride_of(self.stride))

    @memoised
    def _cascade(self) -> cascade.Cascade:
        return cascade.weight(self._coarse(), self.m)

    def matvec(self, z: Array) -> Array:
        """W z for every row of (batch, N)."""
        return self._cascade().matvec(batch_of("z", z, self.state_shape))

    def rmatvec(self, y: Array) -> Array:
        """W' y for every row of (batch, N)."""
        return self._cascade().rmatvec(batch_of("y", y, self.state_shape))

    def to_dense(self) -> Array:
        """W as a matrix (N, N)."""
        return self._cascade().to_dense()

    def resolvent(self, alpha: float) -> cascade.Cascade:
        r"""V = (I + alpha (I - W))^-1, one block product a tier, factored once for each alpha [MON-EqC6, MON-EqC7].

        See `resolvent_by_tiers` for the paper's form.
        """
        V: cascade.Cascade = self._resolvent(positive("alpha", alpha, " [MON-EqA5]"))
        return V

    @memoised
    def _resolvent(self, alpha: float) -> cascade.Cascade:
        return cascade.resolvent(self._coarse(), self.m, alpha)

    def resolvent_by_tiers(self, alpha: float) -> BackSubstitution:
        r"""V = (I + alpha (I - W))^-1 by back substitution over the tiers [MON-EqC6, MON-EqC7].

        A diagonal block is ``A + B'B`` with ``A = (1 + alpha m) I + alpha (A_ii'A_ii - B_ii + B_ii')`` and
        ``B = sqrt(alpha) S_i``, inverted by Proposition C1, once for each alpha [MON-PropC1]. (C8) is printed with
        ``+ B_ii - B_ii'``.
        """
        W, alpha, inverses = self.by_tiers(), positive("alpha", alpha, " [MON-EqA5]"), []
        for i, tier in enumerate(W.inside):
            D = (1 + alpha) * identity_like(tier.D) - alpha * tier.D
            last = i == len(W.S)
            inverses.append(
                FourierMap(inverse(D, f"I + {alpha:g} (I - W)"), tier.size)
                if last
                else alias_inverse(D, alpha**0.5 * W.S[i].D, tier.size, W.S[i].stride)
            )
        return BackSubstitution(W, alpha, inverses)

    def vjp(self, z: Array, dy: Array) -> dict[str, list[Array]]:
        r"""Gradient of ``<dy, W z>``, summed over the batch, with respect to every parameter.

        Parameters
        ----------
        z, dy : array (batch, N)

        Returns
        -------
        dict of lists of arrays, the names and shapes of `params`
        """
        return self.vjp_from([*self.correlate(z, dy)])

    def correlate(self, z: Array, dy: Array) -> Iterator[Array]:
        """What `vjp` needs of a batch, sums over its samples: products of dy and z of one tier and of neighbours."""
        z, dy = pair_of(z, dy, self.state_shape)
        return cascade.correlate(self._coarse(), self.split(z), self.split(dy))

    def vjp_from(self, correlations: list[Array]) -> dict[str, list[Array]]:
        """`vjp` from the sums of what `correlate` gives for the parts of a batch."""
        supports = {name: [tuple(K.shape[2:]) for K in getattr(self, name)] for name in ("A", "B", "S")}
        return self._unscaled(cascade.vjp_from(self._coarse(), correlations, supports))

    def vjp_by_tiers(self, z: Array, dy: Array) -> dict[str, list[Array]]:
        """`vjp` kernel by kernel, the readable form."""
        # C(p, q) is the gradient of <p, K q> by the kernel of K. With u = dy and t_i = S_i z_i, what tier i passes on,
        #   <u, W z> = sum_i -<A_i u_i, A_i z_i> - <S_i u_i, S_i z_i> + <u_i, (B_i - B_i') z_i> - 2 <A_i u_i, t_{i-1}>
        z, dy = pair_of(z, dy, self.state_shape)
        W, z, u = self.by_tiers(), self.split(z), self.split(dy)
        grads: dict[str, list[Array]] = {"A": [], "B": [], "S": []}
        for i, (A, B) in enumerate(zip(self.A, self.B, strict=True)):
            C = _gradient_by_kernel(W.shapes[i][1:])
            Au, Az = W.A[i].matvec(u[i]), W.A[i].matvec(z[i])
            dA = -C(Au, z[i], A) - C(Az, u[i], A)
            grads["A"].append(dA - 2 * C(W.S[i - 1].matvec(z[i - 1]), u[i], A) if i else dA)
            grads["B"].append(C(u[i], z[i], B) - C(z[i], u[i], B))
        for i, S in enumerate(W.S):
            C_r, support = S.gradient, tuple(self.S[i].shape[2:])
            passed = S.matvec(u[i]) + 2 * W.A[i + 1].matvec(u[i + 1])
            grads["S"].append(-C_r(passed, z[i], support) - C_r(S.matvec(z[i]), u[i], support))
        return self._unscaled(grads)

    def _unscaled(self, grads: dict[str, list[Array]]) -> dict[str, list[Array]]:
        # from the gradients by the effective kernels to those by the parameters
        found = {}
        for name, scale in (("A", "g"), ("B", "h"), ("S", "gs")):
            pairs = [
                _scaled_vjp(dK, like(dK, K), None if c is None else like(dK, c))
                for dK, K, c in zip(grads[name], getattr(self, name), self._factors(scale, name), strict=True)
            ]
            found[name] = [dK for dK, _ in pairs]
            if getattr(self, scale) is not None:
                roots = self._factors(scale, name)  # d sqrt(g) = dg/(2 sqrt(g))
                found[scale] = [
                    dc / (2 * like(dc, root)) if scale in ROOTED else dc
                    for (_, dc), root in zip(pairs, roots, strict=True)
                ]
        return {name: found[name] for name in self.params}

    @property
    def memory(self) -> tuple[int, ...]:
        """Axes of states from the slowest to the fastest in the memory order that products like best."""
        return (1, 0)

    @property
    def spectral_shape(self) -> tuple[int, int]:
        """One block of size N: the strides couple frequencies, and no DFT makes W block diagonal."""
        return 1, self.size

    def spectral_blocks(self) -> Array:
        """W as one block (1, N, N)."""
        return self.to_dense()[None, ...]

    @memoised
    def lipschitz(self) -> float:
        """L = ||I - W||_2: exact up to N = 512, beyond by Lanczos to 1e-3, from below; steps need no more."""
        if self.size <= EXACT_UP_TO:
            return float(np.linalg.norm(np.eye(self.size) - to_numpy(self.to_dense()), 2))
        G = self._gap()
        return math.sqrt(_extreme_eigenvalue(lambda x: G(G(x, "matvec"), "rmatvec"), self.size, "LA"))

    @memoised
    def monotonicity(self) -> float:
        """The largest m for which ``I - W >= m I``: exact up to N = 512, beyond by Lanczos to 1e-3, from above."""
        if self.size <= EXACT_UP_TO:
            G = np.eye(self.size) - to_numpy(self.to_dense())
            return float(np.linalg.eigvalsh((G + G.T) / 2)[0])
        G = self._gap()
        return _extreme_eigenvalue(lambda x: (G(x, "matvec") + G(x, "rmatvec")) / 2, self.size, "SA")

    def _gap(self) -> Callable[[np.ndarray, str], np.ndarray]:
        # G x or G'x for a vector of NumPy, G = I - W
        def apply(x: np.ndarray, method: str) -> np.ndarray:
            x = np.asarray(x).reshape(1, -1)
            product: np.ndarray = to_numpy(getattr(self, method)(from_numpy(x, self.A[0])))
            return np.asarray((x - product)[0])

        return apply

    @memoised
    def magnitude(self) -> _Tiers:
        """At least three times |W|, entry by entry: ``(1 - m) I - A'A + B - B'`` as one kernel, |S|'|S|, 2 |A|'|S|."""
        xp, W, kernels = namespace(self.A[0]), self.by_tiers(), self._effective()
        inside = [blocks(3 * xp.abs(kernel_gradient(K.D, K.size, K.size)), K.size) for K in W.inside]
        A, S = (
            [blocks(xp.abs(K), size) for K, size in zip(kernels[name], self.sizes, strict=False)] for name in ("A", "S")
        )
        return self._tiers(inside, A, S, 3.0)

    @memoised
    def frobenius(self) -> float:
        """At least 3 ||W||_F, from the norms of the convolutions that `magnitude` is made of."""
        bound: float = self.magnitude().frobenius_bound()
        return bound


# ------------------------------------------------------------------------------------------------
# W and its resolvents as maps, tier by tier


@dataclasses.dataclass(frozen=True, eq=False)
class _Tiers:
    r"""W on flat states, block by block: ``W_ii = inside_i + sign S_i'S_i`` and ``W_{i+1,i} = 2 sign A_{i+1}' S_i``."""

    inside: list[FourierMap]
    A: list[FourierMap]
    S: list[StridedMap]
    sign: float
    shapes: list[Shape]

    def diagonal(self, i: int, x: Array) -> Array:
        """W_ii x."""
        y = self.inside[i].matvec(x)
        return y + self.sign * self.S[i].rmatvec(self.S[i].matvec(x)) if i < len(self.S) else y

    def diagonal_transposed(self, i: int, y: Array) -> Array:
        """W_ii' y."""
        x = self.inside[i].rmatvec(y)
        return x + self.sign * self.S[i].rmatvec(self.S[i].matvec(y)) if i < len(self.S) else x

    def below(self, i: int, x: Array) -> Array:
        """W_{i+1,i} x, from tier i to the next."""
        return 2 * self.sign * self.A[i + 1].rmatvec(self.S[i].matvec(x))

    def below_transposed(self, i: int, y: Array) -> Array:
        """W_{i+1,i}' y, back to tier i."""
        return 2 * self.sign * self.S[i].rmatvec(self.A[i + 1].matvec(y))

    def matvec(self, z: Array) -> Array:
        """W z."""
        tiers = _split(z, self.shapes)
        y = [self.diagonal(i, x) for i, x in enumerate(tiers)]
        passed = [self.below(i, x) for i, x in enumerate(tiers[:-1])]
        return _join([y[0]] + [own + received for own, received in zip(y[1:], passed, strict=True)])

    def rmatvec(self, y: Array) -> Array:
        """W' y."""
        tiers = _split(y, self.shapes)
        z = [self.diagonal_transposed(i, x) for i, x in enumerate(tiers)]
        passed = [self.below_transposed(i, x) for i, x in enumerate(tiers[1:])]
        return _join([own + received for own, received in zip(z[:-1], passed, strict=True)] + [z[-1]])

    def to_dense(self) -> Array:
        """The matrix (N, N)."""
        return _dense(self, self)

    def frobenius_bound(self) -> float:
        """At least the Frobenius norm, for kernels that are nowhere negative."""
        # ||X'Y||_F <= ||X||_2 ||Y||_F, and a convolution >= 0 attains its norm on constant images
        diagonal, below = [_frobenius(K.D, K.size) for K in self.inside], []
        for i, S in enumerate(self.S):
            kept = _frobenius(S.D, S.size) / math.prod(S.stride) ** 0.5
            diagonal[i] += self.sign * _largest(S.D) * kept
            below.append(2 * self.sign * _largest(self.A[i + 1].D) * kept)
        return math.hypot(*diagonal, *below)


@dataclasses.dataclass(frozen=True, eq=False)
class BackSubstitution:
    r"""V = (I + alpha (I - W))^-1 [MON-EqC7].

    Attributes
    ----------
    W : the blocks of W
    alpha : float
    inverses : list of linear maps, (I + alpha (I - W_ii))^-1
    """

    W: _Tiers
    alpha: float
    inverses: list[Any]

    def matvec(self, z: Array) -> Array:
        """V z: ``x_{i+1} = V_{i+1} (z_{i+1} + alpha W_{i+1,i} x_i)``, from the first tier to the last."""
        x: list[Array] = []
        for i, z_i in enumerate(_split(z, self.W.shapes)):
            x.append(self.inverses[i].matvec(z_i + self.alpha * self.W.below(i - 1, x[-1]) if i else z_i))
        return _join(x)

    def rmatvec(self, y: Array) -> Array:
        """V' y: ``x_i = V_i' (y_i + alpha W_{i+1,i}' x_{i+1})``, from the last tier to the first."""
        x: list[Array] = []
        for i, y_i in reversed(list(enumerate(_split(y, self.W.shapes)))):
            x.append(self.inverses[i].rmatvec(y_i + self.alpha * self.W.below_transposed(i, x[-1]) if x else y_i))
        return _join(x[::-1])

    def to_dense(self) -> Array:
        """V as a matrix (N, N)."""
        return _dense(self, self.W)


def _split(z: Array, shapes: Sequence[Shape]) -> list[Array]:
    xp, start, tiers = namespace(z), 0, []
    for shape in shapes:
        stop = start + math.prod(shape)
        tiers.append(xp.reshape(z[:, start:stop], (z.shape[0], *shape)))
        start = stop
    return tiers


def _join(tiers: Sequence[Array]) -> Array:
    xp = namespace(*tiers)
    return xp.concat([xp.reshape(x, (x.shape[0], math.prod(x.shape[1:]))) for x in tiers], axis=1)


def _dense(map_: Any, tiers: _Tiers) -> Array:
    first = tiers.inside[0].D
    identity = eye(sum(math.prod(shape) for shape in tiers.shapes), namespace(first).real(first))
    return namespace(first).matrix_transpose(map_.matvec(identity))


def _frobenius(D: Array, size: tuple[int, int]) -> float:
    # of the matrix F* D F: every pixel of the result has the whole kernel in its row
    return math.sqrt(math.prod(size) * float(square(kernel_gradient(D, size, size))))


def _largest(D: Array) -> float:
    # at least the norm of a convolution that is nowhere negative: D(0) holds the sums of its kernels
    return math.sqrt(float(square(namespace(D).real(D[0, 0, ...]))))


def _extreme_eigenvalue(H: Callable[[np.ndarray], np.ndarray], n: int, which: Any) -> float:
    # of a symmetric map; scipy.sparse is slow to import
    from scipy.sparse.linalg import LinearOperator, eigsh

    start = np.random.default_rng(0).normal(size=n)
    map_: Any = LinearOperator((n, n), H, dtype=np.float64)
    return float(eigsh(map_, 1, which=which, v0=start, tol=1e-3)[0][0])


# ------------------------------------------------------------------------------------------------
# Kernels and their scales


def _gradient_by_kernel(size: Any) -> Callable[[Array, Array, Array], Array]:
    # C(p, q) on the support of a kernel
    return lambda p, q, kernel: kernel_gradient(cross_spectrum(p, q), size, tuple(kernel.shape[2:]))


def _scaled(K: Array, c: Array | None) -> Array:
    return K if c is None else c * K / square(K) ** 0.5


def _scaled_vjp(dK: Array, K: Array, c: Array | None) -> tuple[Array, Array | None]:
    # with s = ||K||_F, <dK, d(c K/s)> = <(c/s) (dK - <dK, K> K/s^2), .> + <dK, K>/s dc
    if c is None:
        return dK, None
    s, along = square(K) ** 0.5, namespace(K).sum(dK * K)
    return (c / s) * (dK - (along / s**2) * K), along / s


def _listed(name: str, value: Any, count: int | None, what: str) -> tuple[Any, ...]:
    # a list of the right length, refused by name otherwise
    if is_array(value) and value.ndim == 1:
        value = [value[i] for i in range(value.shape[0])]
    if not isinstance(value, list | tuple):
        raise TypeError(f"{name} must be a list, {what}; got {type(value).__name__}.")
    if not (len(value) if count is None else len(value) == count):
        wanted = "at least one entry" if count is None else f"{count} entries"
        raise ShapeError(f"{name} must have {wanted}, {what} [MON-Sec4.3-tiers]; got {len(value)}.")
    return tuple(value)


def _kernels(A: Any, B: Any, S: Any) -> dict[str, tuple[Array, ...]]:
    A = _listed("A", A, None, "a kernel for each tier")
    B = _listed("B", B, len(A), "a kernel for each tier of A")
    S = _listed("S", S, len(A) - 1, "a kernel between each two of the tiers of A")
    first = kernel_of("A[0]", A[0])
    A = [alongside(f"A[{i}]", kernel_of(f"A[{i}]", K), first) for i, K in enumerate(A)]
    n = [int(K.shape[0]) for K in A]
    B = [alongside(f"B[{i}]", kernel_of(f"B[{i}]", K), first) for i, K in enumerate(B)]
    S = [alongside(f"S[{i}]", kernel_of(f"S[{i}]", K, n[i]), first) for i, K in enumerate(S)]
    for name, kernels, out in (("B", B, n), ("S", S, n[1:])):
        for i, (K, channels) in enumerate(zip(kernels, out, strict=True)):
            if K.shape[0] != channels:
                raise ShapeError(
                    f"{name}[{i}] must have {channels} output channels, those of A[{i + (name == 'S')}] "
                    f"[MON-Sec4.3-tiers]; got shape {tuple(K.shape)}."
                )
    return {name: tuple(owned(K) for K in kernels) for name, kernels in (("A", A), ("B", B), ("S", S))}


def _sizes(sizes: Any, stride: tuple[int, int], count: int) -> tuple[tuple[int, int], ...]:
    listed = _listed("sizes", sizes, count, "(height, width) of each tier of A")
    found = tuple(size_of(f"sizes[{i}]", size) for i, size in enumerate(listed))
    for i, size in enumerate(found[:-1]):
        least, following = divided(f"sizes[{i}]", size, stride), found[i + 1]
        if following[0] < least[0] or following[1] < least[1]:
            raise ShapeError(
                f"sizes[{i + 1}] must be at least sizes[{i}]/stride = {least} [MON-Sec4.3-tiers]; got {following}."
            )
    return found


def _scales(scale: str, values: Any, name: str, kernels: tuple[Array, ...]) -> tuple[Array, ...] | None:
    if values is None:
        return None
    values = _listed(scale, values, len(kernels), f"a number for each kernel of {name}")
    found = []
    for i, (value, K) in enumerate(zip(values, kernels, strict=True)):
        number: Any = scale_of(f"{scale}[{i}]", value, like_=K)
        if scale in ROOTED and not float(number) > 0:
            raise HypothesisError(
                f"{scale}[{i}] must be > 0 [MON-AppD.2-weightnorm]; got {float(number):g}. sqrt({scale}) has no "
                "derivative at 0, and below 0 monotonicity is lost."
            )
        if float(square(K)) == 0:
            raise HypothesisError(f"{name}[{i}] must not be zero where its norm divides [MON-AppD.2-weightnorm].")
        found.append(number)
    return tuple(found)
