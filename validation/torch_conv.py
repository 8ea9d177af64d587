r"""Convolutional and multi-tier equilibrium layers in PyTorch, written from the paper: what `bench_conv` compares with.

`Published` is the method of appendices B and C (corrected): full-spectrum transforms, complex numbers as real 2 x 2
blocks, one batched product a factor, Proposition C1 for the tiers with a strided convolution above them, back
substitution over the tiers, Algorithms 2 and 4 as separate tensor operations with the relative-change rule over the
whole batch. `Reflected` is the best that we could write in PyTorch: u+ = C_A C_B u, half spectra, complex batched
products, and strided tiers by their r^2 phases, so that one dense block a low frequency replaces Proposition C1.
`RealProducts` is the same without any FFT: at these sizes the transforms are real matrix products, faster still.

One convolution is one tier. Everything else about the layers, and the PyTorch gradients of the parameters, is shared.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Tiers = tuple[Tensor, ...]  # (batch, channels, height, width) of every tier
Step = Callable[[Tiers, Tiers], tuple[Tiers, Tiers]]  # z, u to the next z, u


class Weights(NamedTuple):
    """Kernels (out, in, 3, 3) of every tier and between the tiers, their scales, and the sizes (height, width)."""

    A: list[Tensor]
    B: list[Tensor]
    S: list[Tensor]
    g: list[Tensor]
    gs: list[Tensor]
    h: list[Tensor]
    sizes: list[tuple[int, int]]
    m: float
    stride: int = 2

    @property
    def parameters(self) -> list[Tensor]:
        """Everything that is trained."""
        return [*self.A, *self.B, *self.S, *self.g, *self.gs, *self.h]

    def coarse(self, i: int) -> tuple[int, int]:
        """Size of what tier i passes on."""
        return self.sizes[i][0] // self.stride, self.sizes[i][1] // self.stride

    def scaled(self) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """sqrt(g) A/||A||_F, h B/||B||_F, sqrt(gs) S/||S||_F."""
        A = [g.sqrt() * k / k.norm() for k, g in zip(self.A, self.g, strict=True)]
        B = [h * k / k.norm() for k, h in zip(self.B, self.h, strict=True)]
        return A, B, [g.sqrt() * k / k.norm() for k, g in zip(self.S, self.gs, strict=True)]


def circular(z: Tensor, kernel: Tensor, stride: int = 1) -> Tensor:
    """Circular correlation with a centred 3 x 3 kernel, subsampled at 0, stride, 2 stride, ..."""
    return F.conv2d(F.pad(z, (1, 1, 1, 1), mode="circular"), kernel, stride=stride)


def fit(x: Tensor, size: torch.Size | tuple[int, ...]) -> Tensor:
    """Cropped or filled with zeros at the bottom and at the right to another size, as tiers larger than half are."""
    return F.pad(x, (0, size[1] - x.shape[3], 0, size[0] - x.shape[2]))


def circular_transpose(y: Tensor, kernel: Tensor, stride: int = 1) -> Tensor:
    """The transpose of `circular`."""
    if stride > 1:
        up = y.new_zeros(*y.shape[:2], y.shape[2] * stride, y.shape[3] * stride)
        up[..., ::stride, ::stride] = y
        y = up
    return circular(y, kernel.transpose(0, 1).flip(2, 3))


def diagonal(w: Weights, z: Tensor, i: int, sign: int = 1) -> Tensor:
    """W_ii z, W_ii = (1 - m) I - A'A - S'S + B - B'; of the transpose with sign -1."""
    A, B, S = w.scaled()
    skew = circular(z, B[i]) - circular_transpose(z, B[i])
    y = (1 - w.m) * z - circular_transpose(circular(z, A[i]), A[i]) + sign * skew
    return y - circular_transpose(circular(z, S[i], w.stride), S[i], w.stride) if i < len(S) else y


def matvec(w: Weights, z: Tiers) -> Tiers:
    """W z, W_{i+1,i} = -2 A_{i+1}' S_i."""
    A, _, S = w.scaled()
    passed = [fit(circular(z[i], S[i], w.stride), w.sizes[i + 1]) for i in range(len(S))]
    above = [0, *(-2 * circular_transpose(x, A[i + 1]) for i, x in enumerate(passed))]
    return tuple(diagonal(w, x, i) + above[i] for i, x in enumerate(z))


def rmatvec(w: Weights, y: Tiers) -> Tiers:
    """W' y."""
    A, _, S = w.scaled()
    passed = [fit(circular(y[i + 1], A[i + 1]), w.coarse(i)) for i in range(len(S))]
    below = [*(-2 * circular_transpose(x, S[i], w.stride) for i, x in enumerate(passed)), 0]
    return tuple(diagonal(w, x, i, -1) + below[i] for i, x in enumerate(y))


# ---- blocks ----


def waves(taps: int, size: int) -> Tensor:
    """exp(2 pi i p t/size) for frequencies p and centred taps t: (size, taps)."""
    t = torch.arange(taps) - (taps - 1) // 2
    phase = 2 * math.pi / size * (torch.outer(torch.arange(size), t) % size).double()
    return torch.polar(torch.ones_like(phase), phase)


def blocks(kernel: Tensor, size: tuple[int, int], dtype: torch.dtype = torch.complex128) -> Tensor:
    """DFT blocks of a circular correlation: (height, width, out, in)."""
    k = kernel.detach().to(dtype)
    first, second = (waves(k.shape[axis], size[axis - 2]).to(dtype) for axis in (2, 3))
    return torch.einsum("oikl,pk,ql->pqoi", k, first, second)


def unstrided(A: Tensor, B: Tensor, m: float, alpha: float) -> Tensor:
    """(1 + alpha m) I + alpha (A'A - B + B'), block by block."""
    return (1 + alpha * m) * torch.eye(A.shape[-1], dtype=A.dtype) + alpha * (A.mH @ A - B + B.mH)


def real_blocks(D: Tensor) -> Tensor:
    """Transposes of complex blocks as real ones, (frequencies, 2 in, 2 out), for vectors re, im, re, im, ..."""
    D = D.flatten(0, -3)
    pairs = torch.stack((torch.stack((D.real, -D.imag), -1), torch.stack((D.imag, D.real), -1)), -2)
    f, o, i = D.shape
    return pairs.permute(0, 1, 3, 2, 4).reshape(f, 2 * o, 2 * i).mT.float().contiguous()


# ---- the published method ----


class Tier(NamedTuple):
    """One tier's inverse: D^-1, and with a strided convolution above it D_B D^-1, K and D^-1 D_B*, as real blocks."""

    size: tuple[int, int]
    inverse: Tensor
    into: Tensor | None = None
    inner: Tensor | None = None
    out: Tensor | None = None

    @classmethod
    def of(cls, D: Tensor, strided: Tensor | None, stride: int) -> Tier:
        """From the blocks of the unstrided part and of sqrt(alpha) S."""
        height, width = D.shape[:2]
        inverse = torch.linalg.inv(D)
        if strided is None:
            return cls((height, width), real_blocks(inverse))
        into, out = strided @ inverse, inverse @ strided.mH
        low = alias(into @ strided.mH, stride) + stride**2 * torch.eye(strided.shape[-2], dtype=D.dtype)
        return cls((height, width), *(real_blocks(x) for x in (inverse, into, torch.linalg.inv(low), out)))

    def adjoint(self) -> Tier:
        """The inverse of D*, from the same factors."""
        factors = (self.inverse, self.out, self.inner, self.into)
        return Tier(self.size, *(x if x is None else x.mT.contiguous() for x in factors))  # type: ignore[arg-type]

    def solve(self, x: Tensor, stride: int) -> Tensor:
        """One full spectrum forth, the factors, one back."""
        (height, width), (batch, n) = self.size, x.shape[:2]
        spectrum = torch.view_as_real(torch.fft.fft2(x)).permute(2, 3, 0, 1, 4).reshape(height * width, batch, 2 * n)
        y = torch.bmm(spectrum, self.inverse)
        if self.into is not None and self.inner is not None and self.out is not None:
            low = alias(torch.bmm(spectrum, self.into).unflatten(0, self.size), stride)
            low = torch.bmm(low.flatten(0, 1), self.inner).unflatten(0, (height // stride, width // stride))
            y = y - torch.bmm(low.repeat(stride, stride, 1, 1).flatten(0, 1), self.out)
        y = y.reshape(height, width, batch, n, 2).permute(2, 3, 0, 1, 4).contiguous()
        return torch.fft.ifft2(torch.view_as_complex(y)).real


def alias(x: Tensor, r: int) -> Tensor:
    """Sum over the frequencies that are equal modulo size/r, on the two leading axes."""
    return x.reshape(r, x.shape[0] // r, r, x.shape[1] // r, *x.shape[2:]).sum((0, 2))


class Result(NamedTuple):
    """The equilibrium, the last u of both loops, the gradients of the parameters, the two counts, and dpre."""

    z: Tiers
    u: tuple[Tiers, Tiers]
    grads: tuple[Tensor, ...]
    iterations: tuple[int, int]
    dpre: Tiers


class Backward(NamedTuple):
    """The gradients by the injection and by the parameters, the last u of the loop, the count."""

    dpre: Tiers
    u: Tiers
    grads: tuple[Tensor, ...]
    iterations: int


class Published:
    """The layer ``z = relu(W z + injection)`` with a zero border, by the published method."""

    def __init__(self, w: Weights, alpha: float, border: int, dtype: torch.dtype = torch.complex128) -> None:
        self.w, self.alpha = w, alpha
        A, B, S = ([k.detach() for k in kernels] for kernels in w.scaled())
        self.couplings = list(zip(A[1:], S, strict=True))
        self.masks = [mask(size, border) for size in w.sizes]
        self.tiers = []
        for i, size in enumerate(w.sizes):
            D = unstrided(blocks(A[i], size, dtype), blocks(B[i], size, dtype), w.m, alpha)
            strided = math.sqrt(alpha) * blocks(S[i], size, dtype) if i < len(S) else None
            self.tiers.append(Tier.of(D, strided, w.stride))
        self.transposed = [tier.adjoint() for tier in self.tiers]

    def resolvent(self, u: Tiers) -> Tiers:
        """(I + alpha (I - W))^-1 u by back substitution (C7)."""
        x: list[Tensor] = []
        for i, tier in enumerate(self.tiers):
            right = u[i]
            if i:
                A, S = self.couplings[i - 1]
                passed = fit(circular(x[-1], S, self.w.stride), self.w.sizes[i])
                right = right - 2 * self.alpha * circular_transpose(passed, A)
            x.append(tier.solve(right, self.w.stride))
        return tuple(x)

    def resolvent_transpose(self, u: Tiers) -> Tiers:
        """The same for W', from the last tier to the first."""
        x: list[Tensor] = []
        for i in reversed(range(len(u))):
            right = u[i]
            if i + 1 < len(u):
                A, S = self.couplings[i]
                passed = fit(circular(x[0], A), self.w.coarse(i))
                right = right - 2 * self.alpha * circular_transpose(passed, S, self.w.stride)
            x.insert(0, self.transposed[i].solve(right, self.w.stride))
        return tuple(x)

    def step(self, z: Tiers, u: Tiers, injection: Tiers) -> tuple[Tiers, Tiers]:
        """One iteration of Algorithm 2."""
        u_half = tuple(2 * a - b for a, b in zip(z, u, strict=True))
        z_half = self.resolvent(tuple(a + self.alpha * b for a, b in zip(u_half, injection, strict=True)))
        u = tuple(2 * a - b for a, b in zip(z_half, u_half, strict=True))
        return tuple(torch.relu(a) * inside for a, inside in zip(u, self.masks, strict=True)), u

    def adjoint_step(self, z: Tiers, u: Tiers, jac: Tiers, dz: Tiers) -> tuple[Tiers, Tiers]:
        """One iteration of Algorithm 4: relu has D = 0 where J = 1, and J = 0 sets the entry to zero."""
        u_half = tuple(2 * a - b for a, b in zip(z, u, strict=True))
        z_half = self.resolvent_transpose(u_half)
        u = tuple(2 * a - b for a, b in zip(z_half, u_half, strict=True))
        return tuple((a + self.alpha * v) * j for a, v, j in zip(u, dz, jac, strict=True)), u

    def forward(self, injection: Tiers, tol: float) -> tuple[Tiers, Tiers, int]:
        """z, u and the number of iterations, by the relative-change rule."""
        with torch.inference_mode():
            (z, u), count = iterate(lambda z, u: self.step(z, u, injection), injection, tol)
        return tuple(x.clone() for x in z), u, count

    def backward(self, z: Tiers, injection: Tiers, dz: Tiers, tol: float) -> Backward:
        """By the same rule; gradients of the parameters by autograd of one application."""
        pre = tuple(a + b for a, b in zip(matvec(self.w, z), injection, strict=True))
        jac = tuple((p.detach() > 0).float() * inside for p, inside in zip(pre, self.masks, strict=True))
        with torch.inference_mode():
            (solved, u), count = iterate(lambda z, u: self.adjoint_step(z, u, jac, dz), dz, tol)
            dpre = tuple((v + y) * j for v, y, j in zip(dz, rmatvec(self.w, solved), jac, strict=True))
        dpre = tuple(x.clone() for x in dpre)
        return Backward(dpre, u, torch.autograd.grad(pre, self.w.parameters, dpre), count)

    def forward_backward(self, injection: Tiers, dz: Tiers, tol: float, backward_tol: float | None = None) -> Result:
        """Both loops."""
        z, u, forward = self.forward(injection, tol)
        found = self.backward(z, injection, dz, backward_tol or tol)
        return Result(z, (u, found.u), found.grads, (forward, found.iterations), found.dpre)


def iterate(
    step: Callable[[Tiers, Tiers], tuple[Tiers, Tiers]], like: Tiers, tol: float
) -> tuple[tuple[Tiers, Tiers], int]:
    """z, u = step(z, u) from 0 until ||z+ - z||/||z+|| <= tol over the whole batch."""
    z = u = tuple(torch.zeros_like(x) for x in like)
    for count in itertools.count(1):
        previous, (z, u) = z, step(z, u)
        change = sum(((a - b) ** 2).sum() for a, b in zip(z, previous, strict=True))
        if math.sqrt(change) <= tol * math.sqrt(sum((a**2).sum() for a in z)):
            return (z, u), count
    raise AssertionError


def mask(size: tuple[int, int], border: int) -> Tensor:
    """1 inside, 0 on the border."""
    inside = torch.zeros(size)
    inside[border : size[0] - border, border : size[1] - border] = 1
    return inside


# ---- the best form ----


def phases(D: Tensor, r: int) -> tuple[Tensor, Tensor]:
    r"""Fine frequencies from the phases' low ones, ``X(j s/r + q) = sum_a T[q, j, a] X_a(q)``, and D grouped alike.

    Phase a of an image is its subsample at a, a + r, ...; T'T = r^2 I. Returns T, (low, low, r^2, r^2), and
    (low, low, r^2, out, in).
    """
    height, width = D.shape[:2]
    rows, columns = (
        torch.polar(
            torch.ones(s, r).double(), -2 * math.pi / s * torch.outer(torch.arange(s), torch.arange(r)).double()
        )
        for s in (height, width)
    )
    T = torch.einsum("jqa,kpb->qpjkab", rows.reshape(r, height // r, r), columns.reshape(r, width // r, r))
    grouped = D.reshape(r, height // r, r, width // r, *D.shape[2:]).permute(1, 3, 0, 2, 4, 5)
    return T.flatten(4, 5).flatten(2, 3), grouped.flatten(2, 3)


def by_phase(D: Tensor, r: int) -> Tensor:
    """Blocks (low, low, r^2 out, r^2 in) of a circular convolution between images cut into r^2 phases."""
    T, grouped = phases(D, r)
    dense = torch.einsum("qpja,qpjoi,qpjb->qpaobi", T.conj(), grouped, T) / r**2
    return dense.flatten(4, 5).flatten(2, 3)


class Stage(NamedTuple):
    """One tier of the fast form: the Cayley blocks 2V - I, and what the next tier's right-hand side gains from it."""

    phases: int  # along each axis: the stride, 1 for the last tier
    shape: tuple[int, int]  # of one phase
    channels: int  # of all phases
    cayley: Tensor  # (half spectrum, in, out), the coupling's columns after its own


def stages(w: Weights, alpha: float) -> list[Stage]:
    r"""The forward solve: x_i = V_i r_i, and r_{i+1} = u_{i+1} - 2 alpha A_{i+1}' S_i x_i."""
    A, B, S = ([k.detach() for k in kernels] for kernels in w.scaled())
    found = []
    for i, size in enumerate(w.sizes):
        r = w.stride if i < len(S) else 1
        M = by_phase(unstrided(blocks(A[i], size), blocks(B[i], size), w.m, alpha), r)
        strided = by_phase(blocks(S[i], size), r)[..., : S[i].shape[0], :] if i < len(S) else None
        if strided is not None:  # subsampling keeps the first phase
            M = M + alpha * strided.mH @ strided
        V = torch.linalg.inv(M)
        columns = 2 * V - torch.eye(V.shape[-1], dtype=V.dtype)
        if strided is not None:
            low = (size[0] // r, size[1] // r)
            columns = torch.cat((columns, -2 * alpha * blocks(A[i + 1], low).mH @ strided @ V), -2)
        half = columns[:, : size[1] // r // 2 + 1].flatten(0, 1).mT
        found.append(Stage(r, (size[0] // r, size[1] // r), V.shape[-1], half.to(torch.complex64).contiguous()))
    return found


def cut(x: Tensor, r: int) -> Tensor:
    """Every image into r^2 phases: (batch, n, h, w) to (batch, r^2 n, h/r, w/r)."""
    if r == 1:
        return x
    b, n, h, w = x.shape
    return x.reshape(b, n, h // r, r, w // r, r).permute(0, 3, 5, 1, 2, 4).reshape(b, r * r * n, h // r, w // r)


def joined(x: Tensor, r: int) -> Tensor:
    """The inverse of `cut`."""
    if r == 1:
        return x
    b, n, h, w = x.shape
    return x.reshape(b, r, r, n // r**2, h, w).permute(0, 3, 4, 1, 5, 2).reshape(b, n // r**2, h * r, w * r)


class Reflected:
    """u+ = C_A C_B u with rfft2, one complex batched product a tier, irfft2. States in the usual layout."""

    def __init__(self, w: Weights, alpha: float, border: int) -> None:
        self.stages, self.border = stages(w, alpha), border

    def cayley(self, u: Tiers) -> Tiers:
        """(2V - I) u: with r = u + c and x = V r, 2x - u = (2V - I) r + c."""
        result: list[Tensor] = []
        coupled: Tensor | None = None
        for stage, x in zip(self.stages, u, strict=True):
            right = x if coupled is None else x + coupled
            batch, (height, width) = len(x), stage.shape
            spectrum = torch.fft.rfft2(cut(right, stage.phases)).reshape(batch * stage.channels, -1).T
            y = torch.bmm(spectrum.contiguous().reshape(-1, batch, stage.channels), stage.cayley)
            both = y.flatten(1, 2).T.contiguous().reshape(batch, -1, height, width // 2 + 1)
            both = torch.fft.irfft2(both, s=stage.shape)
            own = joined(both[:, : stage.channels], stage.phases)
            result.append(own if coupled is None else own.add_(coupled))
            coupled = both[:, stage.channels :]
        return tuple(result)

    def reflect(self, u: Tensor) -> Tensor:
        """2 relu(u) - u = |u| inside, -u on the border."""
        result = u.abs()
        if self.border:
            k = self.border
            for part in (np.s_[..., :k, :], np.s_[..., -k:, :], np.s_[..., :k], np.s_[..., -k:]):
                torch.neg(u[part], out=result[part])
        return result

    def constant(self, injection: Tiers, alpha: float) -> Tiers:
        """2 V alpha b = (2V - I) alpha b + alpha b."""
        shift = tuple(alpha * b for b in injection)
        return tuple(a + b for a, b in zip(self.cayley(shift), shift, strict=True))

    def step(self, u: Tiers, constant: Tiers) -> Tiers:
        """One iteration of Algorithm 2."""
        return tuple(x.add_(c) for x, c in zip(self.cayley(tuple(map(self.reflect, u))), constant, strict=True))


def transforms(shape: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The half-spectrum DFT as two real products, (re, im) <- w and (re, im), p <- h, (re, im); and its inverse."""
    (height, width), half = shape, shape[1] // 2 + 1
    along = -2 * math.pi / width * torch.outer(torch.arange(half), torch.arange(width)).double()
    down = -2 * math.pi / height * torch.outer(torch.arange(height), torch.arange(height)).double()
    rows = torch.cat((along.cos(), along.sin()))
    turn = torch.stack((torch.stack((down.cos(), -down.sin()), -1), torch.stack((down.sin(), down.cos()), -1)))
    twice = torch.full((half,), 2.0).double()
    twice[0] = 1
    if width % 2 == 0:
        twice[-1] = 1
    back_rows = rows.T * twice.repeat(2) / width
    # out index (re or im, p), in index (h, re or im): orthogonal up to height
    turn = turn.reshape(2 * height, 2 * height)
    return rows.float(), turn.float(), (turn.T / height).float(), back_rows.float()


class RealProducts:
    """u+ = C_A C_B u by matrix products alone. States as (h/r, w/r, batch, r^2 n), where no transposition is needed."""

    def __init__(self, w: Weights, alpha: float, border: int) -> None:
        self.stages = stages(w, alpha)
        self.blocks = [(s.cayley.real.contiguous(), s.cayley.imag.contiguous()) for s in self.stages]
        self.transforms = [transforms(s.shape) for s in self.stages]
        inside = [
            mask(size, border).expand(1, s.channels // s.phases**2, *size)
            for size, s in zip(w.sizes, self.stages, strict=True)
        ]
        self.signs = tuple(2 * x - 1 for x in self.enter(tuple(inside)))
        self.border = border

    def enter(self, tiers: Tiers) -> Tiers:
        """From the usual layout."""
        return tuple(cut(x, s.phases).permute(2, 3, 0, 1).contiguous() for x, s in zip(tiers, self.stages, strict=True))

    def leave(self, tiers: Tiers) -> Tiers:
        """To the usual layout."""
        return tuple(joined(x.permute(2, 3, 0, 1), s.phases) for x, s in zip(tiers, self.stages, strict=True))

    def multiply(self, i: int, x: Tensor) -> Tensor:
        """Transform, blocks, back."""
        (height, width, batch, _), half = x.shape, x.shape[1] // 2 + 1
        rows, turn, back_turn, back_rows = self.transforms[i]
        re, im = self.blocks[i]
        along = torch.matmul(rows, x.reshape(height, width, -1)).reshape(2 * height, -1)
        spectrum = torch.mm(turn, along).reshape(2, height * half, batch, -1)
        y = torch.empty(2, height * half, batch, re.shape[2])
        torch.bmm(spectrum[0], re, out=y[0]).baddbmm_(spectrum[1], im, alpha=-1)
        torch.bmm(spectrum[0], im, out=y[1]).baddbmm_(spectrum[1], re)
        back = torch.mm(back_turn, y.reshape(2 * height, -1)).reshape(height, 2 * half, -1)
        return torch.matmul(back_rows, back).reshape(height, width, batch, -1)

    def cayley(self, u: Tiers) -> Tiers:
        """(2V - I) u."""
        result: list[Tensor] = []
        coupled: Tensor | None = None
        for i, (stage, x) in enumerate(zip(self.stages, u, strict=True)):
            both = self.multiply(i, x if coupled is None else x + coupled)
            own = both[..., : stage.channels]
            result.append(own if coupled is None else own.add_(coupled))
            if i + 1 < len(u):
                below = cut(both[..., stage.channels :].permute(2, 3, 0, 1), self.stages[i + 1].phases)
                coupled = below.permute(2, 3, 0, 1).contiguous()
        return tuple(result)

    def step(self, u: Tiers, constant: Tiers) -> Tiers:
        """One iteration of Algorithm 2; C_B is |u| inside and -u on the border, max(s u, -u) with s = 1, -1."""
        reflected = tuple(
            torch.maximum(x * sign, -x) if self.border else x.abs() for x, sign in zip(u, self.signs, strict=True)
        )
        return tuple(x + c for x, c in zip(self.cayley(reflected), constant, strict=True))
