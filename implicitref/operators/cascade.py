r"""Block lower bidiagonal maps on tiers of images, by one block product a tier: the fast form of `multitier`.

W, its resolvents, their reflections and transposes are all of one kind. Every tier takes its own state and what the
tier before has passed on, both as coarse spectra, multiplies with one block a frequency, and gives its part of the
result and what it passes on in turn. For the resolvent this is the back substitution of (C6), (C7).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, complex_like, eye, memoised, namespace, zeros
from .dft import Grid, Pair, blocks, coarse, convolve, from_pairs, kernel_gradient, multiply, pairs
from .fourier import FourierMap, adjoint, identity_like, outer, real_blocks, skew_part
from .linear import about, inverse
from .strided import fold, whole

__all__ = ["Cascade", "Grid", "Stage", "Tier", "correlate", "resolvent", "tiers", "vjp_from", "weight"]


@dataclasses.dataclass(frozen=True, eq=False)
class Stage:
    r"""One tier: ``(z, passed) = D (x + before w) + (after w, 0)`` with ``w = R c`` for what was received, c.

    D (K, w, state + passed, state) acts between channels of the coarse grid, R on the tier's own images. So
    -2 A' c goes into V (before), past it into W z (after), and both ways into 2 V - I.

    The transpose has x = D* (z, passed) and passes on ``R* (before x + after z)``.
    """

    D: Array
    state: Grid
    R: FourierMap | None = None
    before: bool = False
    after: bool = False
    passed: Grid | None = None

    @memoised
    def reflected(self) -> Stage:
        """Twice the result minus the state; what is passed on stays."""
        n, xp = self.state.phases, namespace(self.D)
        upper = 2 * self.D[..., :n, :] - identity_like(self.D[..., :n, :])
        D = xp.concat([upper, self.D[..., n:, :]], axis=-2) if self.D.shape[-2] > n else upper
        return dataclasses.replace(self, D=D, after=True)

    @memoised
    def pairs(self) -> Array:
        """D with complex numbers as 2 x 2 blocks."""
        return real_blocks(self.D)

    def adjoint_pairs(self) -> Array:
        """The same of D*: the transpose."""
        return namespace(self.D).matrix_transpose(self.pairs())

    def apply(self, x: Array, received: Array | None, out: Array | None) -> tuple[Array, Array | None]:
        """(batch, c, h, w) and what was received to the result, also in `out`, and what is passed on."""
        w = None if self.R is None or received is None else self.R.matvec(fit(received, self.state.size))
        x = x if w is None or not self.before else x + w
        z, *passed = convolve(self.pairs(), [(x, self.state.stride)], self._results(), out)
        if w is not None and self.after:
            z = _add(z, w)
        return z, passed[0] if passed else None

    def apply_transposed(self, z: Array, received: Array | None, out: Array | None) -> tuple[Array, Array | None]:
        """The same for the transpose."""
        inputs = [(z, self.state.stride)]
        if self.passed is not None and received is not None:
            inputs.append((fit(received, self.passed.size), self.passed.stride))
        (x,) = convolve(self.adjoint_pairs(), inputs, [self.state], out)
        if self.R is None:
            return x, None
        w = x + z if self.before and self.after else x if self.before else z
        return x, self.R.rmatvec(w)

    def _results(self) -> list[Grid]:
        return [self.state] if self.passed is None else [self.state, self.passed]


def _add(z: Array, w: Array) -> Array:
    # z is a fresh array, or the one that the result is written to
    z += w
    return z


def fit(x: Array, size: Pair) -> Array:
    """Images (batch, c, h, w) cropped or filled with zeros at the end to another size."""
    xp, x = namespace(x), x[:, :, : min(size[0], x.shape[2]), : min(size[1], x.shape[3])]
    for axis in (2, 3):
        missing = size[axis - 2] - x.shape[axis]
        if missing:
            shape = [missing if i == axis else side for i, side in enumerate(x.shape)]
            x = xp.concat([x, zeros(tuple(shape), x)], axis=axis)
    return x


@dataclasses.dataclass(frozen=True, eq=False)
class Cascade:
    """The stages one after another, on flat states (batch, N); every stage receives from the one before."""

    stages: tuple[Stage, ...]

    def matvec(self, z: Array) -> Array:
        """(batch, N) to (batch, N)."""
        return self._run(z, [(i, stage.apply) for i, stage in enumerate(self.stages)])

    def rmatvec(self, y: Array) -> Array:
        """The transpose: the transposed stages, from the last tier to the first."""
        return self._run(y, [(i, self.stages[i].apply_transposed) for i in reversed(range(len(self.stages)))])

    def about(self, shift: Array) -> Callable[[Array], Array]:
        """u -> M (u + shift) + shift."""
        return about(self, shift)

    @memoised
    def cayley(self) -> Cascade:
        """2 V - I, for the V that this cascade is."""
        return Cascade(tuple(stage.reflected() for stage in self.stages))

    def to_dense(self) -> Array:
        """The matrix (N, N)."""
        xp = namespace(self.stages[0].D)
        identity = eye(sum(self._lengths()), xp.real(self.stages[0].D))
        return xp.matrix_transpose(self.matvec(identity))

    def _lengths(self) -> list[int]:
        return [math.prod((stage.state.channels, *stage.state.size)) for stage in self.stages]

    def _run(self, z: Array, order: list[tuple[int, Callable[..., Any]]]) -> Array:
        xp, b, lengths = namespace(z), z.shape[0], self._lengths()
        columns, starts = xp.permute_dims(z, (1, 0)), [sum(lengths[:i]) for i in range(len(lengths))]
        result: Any = np.empty((sum(lengths), b), z.dtype) if type(z) is np.ndarray else [None] * len(lengths)
        carry = None
        for i, apply in order:
            part, grid = slice(starts[i], starts[i] + lengths[i]), self.stages[i].state
            x = xp.reshape(columns[part, :], (grid.channels, *grid.size, b))
            out = result[part].reshape(x.shape) if type(z) is np.ndarray else None
            y, carry = apply(xp.permute_dims(x, (3, 0, 1, 2)), carry, out)
            if out is None:
                result[i] = xp.reshape(xp.permute_dims(y, (1, 2, 3, 0)), (lengths[i], b))
        joined = result if type(z) is np.ndarray else xp.concat(result, axis=0)
        return xp.permute_dims(joined, (1, 0))


# ------------------------------------------------------------------------------------------------
# The cascades of a multi-tier W


class Tier(NamedTuple):
    """One tier: the blocks of A, B - B' and the strided S to the next tier (or None), and the grid they live on."""

    A: Array
    skew: Array
    S: Array | None
    grid: Grid
    kernels: tuple[Array, Array, Array | None]


def tiers(A: list[Array], B: list[Array], S: list[Array], sizes: Sequence[Pair], stride: Pair) -> list[Tier]:
    """The tiers of these kernels; a strided convolution keeps phase 0 of its results [MON-EqC13]."""
    found = []
    for i, (k_A, k_B, size) in enumerate(zip(A, B, sizes, strict=True)):
        k_skew, k_S, r = skew_part(k_B, size), S[i] if i < len(S) else None, stride if i < len(S) else (1, 1)
        D_S = None if k_S is None else blocks(k_S, size, r)[..., : k_S.shape[0], :]
        grid = Grid(k_A.shape[0], size, r)
        found.append(Tier(blocks(k_A, size, r), blocks(k_skew, size, r), D_S, grid, (k_A, k_skew, k_S)))
    return found


def _diagonal(tier: Tier, m: float) -> Array:
    # W_ii = (1 - m) I - A_ii' A_ii - A_{i+1,i}' A_{i+1,i} + B_ii - B_ii' [MON-EqC3]
    D = (1 - m) * identity_like(tier.A) - adjoint(tier.A) @ tier.A + tier.skew
    return D if tier.S is None else D - adjoint(tier.S) @ tier.S


def weight(all_tiers: list[Tier], m: float) -> Cascade:
    """W: passes on S z, and W_{i+1,i} z = -2 A_{i+1,i+1}' S z [MON-EqC4]."""
    return Cascade(tuple(_stage(tier, i, _diagonal(tier, m), tier.S, -2.0) for i, tier in enumerate(all_tiers)))


def resolvent(all_tiers: list[Tier], m: float, alpha: float) -> Cascade:
    r"""V: ``z_i = V_ii (x_i - 2 alpha A_ii' S z_{i-1})``, by back substitution [MON-EqC6, MON-EqC7]."""
    stages = []
    for i, tier in enumerate(all_tiers):
        V = _inverse(tier, m, alpha)
        stages.append(_stage(tier, i, V, None if tier.S is None else tier.S @ V, -2.0 * alpha, before=True))
    return Cascade(tuple(stages))


def _inverse(tier: Tier, m: float, alpha: float) -> Array:
    """(I + alpha (I - W_ii))^-1 on the coarse grid.

    For a strided tier by Proposition C1, whose solves have the size of one phase: alias by alias, and from the aliases
    p of a frequency q to the phases t by the unitary ``exp(-2 pi i <p, t>/size)/r`` [MON-PropC1].
    """
    size, stride, (k_A, k_skew, k_S) = tier.grid.size, tier.grid.stride, tier.kernels
    A, skew = blocks(k_A, size), blocks(k_skew, size)
    X = inverse((1 + alpha * m) * identity_like(A) + alpha * (adjoint(A) @ A - skew), f"I + {alpha:g} (I - W)")
    if k_S is None:
        return X
    B = alpha**0.5 * blocks(k_S, size)
    left, right = X @ adjoint(B), B @ X
    M = fold(B @ left, size, stride)
    M_inv = inverse(M + math.prod(stride) * identity_like(M), f"I + {alpha:g} (I - W)")
    t = complex_like(X, _twiddles(size, stride))  # (q1, q2, alias, phase)
    L, R = _phases(_aliases(left, size, stride), adjoint(t)), _phases(_aliases(right, size, stride), _transpose(t))
    return _circulant(_aliases(X, size, stride), t) - _columns(L) @ M_inv @ _rows(R) / math.prod(stride)


@functools.lru_cache(maxsize=64)
def _twiddles(size: Pair, stride: Pair) -> np.ndarray:
    # exp(-2 pi i <p, t>/size) for p = q + alias size/r, the angles reduced in integers
    grid, waves = coarse(size, stride), []
    for n, side, r, count in zip(size, grid, stride, (grid[0] // 2 + 1, grid[1]), strict=True):
        q, alias, t = np.ogrid[:count, :r, :r]
        waves.append(np.exp(-2j * math.pi * (((q + side * alias) * t) % n) / n))
    whole_ = waves[0][:, None, :, None, :, None] * waves[1][None, :, None, :, None, :]
    return np.asarray(whole_.reshape(*whole_.shape[:2], stride[0] * stride[1], -1))


def _aliases(D: Array, size: Pair, stride: Pair) -> Array:
    # blocks (h//2 + 1, w, a, b) at the aliases of every coarse frequency, (K, w, alias, a, b)
    xp, (r1, r2), (h, w) = namespace(D), stride, coarse(size, stride)
    split = xp.reshape(whole(D, size), (r1, h, r2, w, *D.shape[2:]))[:, : h // 2 + 1, ...]
    return xp.reshape(xp.permute_dims(split, (1, 3, 0, 2, 4, 5)), (h // 2 + 1, w, r1 * r2, *D.shape[2:]))


def _phases(D: Array, t: Array) -> Array:
    # sum over aliases: (K, w, phase, alias) with (K, w, alias, a, b) to (K, w, phase, a, b)
    xp, (K, w, r, a, b) = namespace(D), D.shape
    return xp.reshape(t @ xp.reshape(D, (K, w, r, a * b)), (K, w, t.shape[2], a, b))


def _circulant(D: Array, t: Array) -> Array:
    # T* D T/r^2 for D diagonal in the aliases: (K, w, phases a, phases b)
    xp, (K, w, r, a, b) = namespace(D), D.shape
    both = xp.reshape(xp.conj(t)[..., None] * t[..., None, :], (K, w, r, r * r))
    mixed = xp.reshape(_phases(D, _transpose(both)) / r, (K, w, r, r, a, b))
    return xp.reshape(xp.permute_dims(mixed, (0, 1, 2, 4, 3, 5)), (K, w, r * a, r * b))


def _columns(D: Array) -> Array:
    # (K, w, phase, a, b) to (K, w, phase a, b)
    return namespace(D).reshape(D, (*D.shape[:2], D.shape[2] * D.shape[3], D.shape[4]))


def _rows(D: Array) -> Array:
    # (K, w, phase, a, b) to (K, w, a, phase b)
    return _transpose(_columns(namespace(D).permute_dims(D, (0, 1, 2, 4, 3))))


def _transpose(D: Array) -> Array:
    return namespace(D).matrix_transpose(D)


def _stage(tier: Tier, i: int, P: Array, Q: Array | None, scale: float, before: bool = False) -> Stage:
    # the state's part P, what is passed on Q (S x, or S times the result), and R = scale A' for what is received
    grid = tier.grid
    D = P if Q is None else namespace(P).concat([P, Q], axis=-2)
    passed = None if Q is None else Grid(Q.shape[-2], grid.coarse, (1, 1))
    if i == 0:
        return Stage(D, grid, passed=passed)
    R = FourierMap(scale * adjoint(blocks(tier.kernels[0], grid.size)), grid.size)
    return Stage(D, grid, R, before, not before, passed)


def correlate(all_tiers: list[Tier], z: list[Array], dy: list[Array]) -> Iterator[Array]:
    r"""The sums over the batch that `vjp_from` needs, from images of every tier.

    ``H_ii = dy_i z_i*``, then, of every tier but the first, ``(S z_{i-1}) dy_i*`` and ``(A_ii dy_i) z_{i-1}*``; each as
    a kernel on the coarse grid, at the few lags that gradients of small kernels depend on.
    """
    Z, Y = ([pairs(x, tier.grid.stride) for x, tier in zip(batch, all_tiers, strict=True)] for batch in (z, dy))
    for tier, dy_i, z_i in zip(all_tiers, Y, Z, strict=True):
        yield _at_lags(outer(dy_i, z_i), tier.grid, _reach(tier))
    for i, tier in enumerate(all_tiers[1:], start=1):
        above, grid = all_tiers[i - 1], tier.grid
        received = _image(above.S, Z[i - 1], Grid(grid.channels, above.grid.coarse, (1, 1)))
        down = outer(pairs(fit(received, grid.size), grid.stride), Y[i])
        yield _at_lags(down, grid, _reach(tier))
        up = outer(pairs(fit(_image(tier.A, Y[i], grid), above.grid.coarse)), Z[i - 1])
        yield _at_lags(up, above.grid, _reach(above))


def _reach(tier: Tier) -> Pair:
    # pixels between what one entry of a gradient multiplies: k - 1 through A'A and S'S, k // 2 through B - B', which is
    # an odd kernel by now
    k_A, skew, k_S = tier.kernels
    sides = zip(k_A.shape[2:], skew.shape[2:], (k_A if k_S is None else k_S).shape[2:], strict=True)
    first, second = (max(a - 1, b // 2, s - 1) for a, b, s in sides)
    return first, second


def _at_lags(H: Array, grid: Grid, reach: Pair) -> Array:
    # the correlation at the coarse lags that this many pixels span, all of them on a grid of no more
    lags = [min(n, 1 + 2 * -(-d // r)) for n, d, r in zip(grid.coarse, reach, grid.stride, strict=True)]
    return kernel_gradient(H, grid.coarse, (lags[0], lags[1]))


def vjp_from(
    all_tiers: list[Tier], correlations: list[Array], supports: dict[str, list[Pair]]
) -> dict[str, list[Array]]:
    r"""Gradients of ``<dy, W z>`` by the kernels, from the sums of `correlate`.

    With ``H_ij = dy_i z_j*``: dB_ii = H_ii - H_ii*, ``dA_ii = -A_ii (H_ii + H_ii*) - 2 (S z_{i-1}) dy_i*`` and
    ``dS_i = -S_i (H_ii + H_ii*) - 2 (A_{i+1,i+1} dy_{i+1}) z_i*``.
    """
    grads: dict[str, list[Array]] = {"A": [], "B": [], "S": []}
    count = len(all_tiers)
    down, up = correlations[count::2], correlations[count + 1 :: 2]
    for i, (tier, kernel) in enumerate(zip(all_tiers, correlations, strict=False)):
        S, grid, H = tier.S, tier.grid, blocks(kernel, tier.grid.coarse)
        twice = H + adjoint(H)
        dA = -(tier.A @ twice)
        if i:
            dA = dA - 2 * blocks(down[i - 1], grid.coarse)
        grads["A"].append(kernel_gradient(dA, grid.size, supports["A"][i], grid.stride))
        grads["B"].append(kernel_gradient(H - adjoint(H), grid.size, supports["B"][i], grid.stride))
        if S is not None:
            dS = -(S @ twice) - 2 * blocks(up[i], grid.coarse)
            grads["S"].append(_strided_gradient(dS, grid, supports["S"][i]))
    return grads


def _image(D: Array, X: Array, grid: Grid) -> Array:
    # D applied to spectra as pairs, as images of the grid
    return from_pairs(multiply(real_blocks(D), X), grid.size, grid.stride)


def _strided_gradient(dS: Array, grid: Grid, support: Pair) -> Array:
    # only phase 0 of the results is kept: the others have gradient 0
    xp, (K, w, o, i) = namespace(dS), dS.shape
    others = zeros((K, w, (math.prod(grid.stride) - 1) * o, i), dS)
    return kernel_gradient(xp.concat([dS, others], axis=-2), grid.size, support, grid.stride)
