"""MON section 4.2 and appendix B: one convolution, its Fourier blocks, its receptive field, its cost, zero padding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple
from unittest import mock

import numpy as np
import scipy.ndimage

from .. import activations, mon
from ..operators import FourierMap, MonotoneConv, zero_padded
from ..operators.fourier import blocks, spectrum
from . import circulant, printed, problems
from .circulant import relative
from .verdict import DROPPED, PRINTED, Extreme, Verdict, columns, compare, largest


class Convolutions(NamedTuple):
    """Kernels A, B (n, n, k, k), images s x s, and both kernels as dense matrices."""

    A: np.ndarray
    B: np.ndarray
    m: float
    alpha: float
    s: int
    where: str

    @property
    def n(self) -> int:
        """Channels."""
        return len(self.A)

    @property
    def matrices(self) -> tuple[np.ndarray, np.ndarray]:
        """A and B, dense."""
        return circulant.convolution(self.A, self.s), circulant.convolution(self.B, self.s)

    @property
    def dense(self) -> np.ndarray:
        """W."""
        return circulant.weight(*self.matrices, self.m)

    @property
    def shifted(self) -> np.ndarray:
        """I + alpha (I - W)."""
        identity = np.eye(self.n * self.s**2)
        return identity + self.alpha * (identity - self.dense)

    @property
    def operator(self) -> MonotoneConv:
        """The package's W."""
        return MonotoneConv(self.A, self.B, self.m, size=(self.s, self.s))


def draw(seed: int, n: int, s: int, k: int) -> Convolutions:
    """Normal kernels, m from 0.05 to 2, alpha from 0.1 to 10."""
    rng = np.random.default_rng(seed)
    A, B = rng.normal(size=(2, n, n, k, k))
    m, alpha = rng.uniform(0.05, 2), 10 ** rng.uniform(-1, 1)
    return Convolutions(A, B, m, alpha, s, f"n = {n}, s = {s}, k = {k}, seed {seed}")


def ensemble(seed: int, trials: int) -> Iterator[Convolutions]:
    """Images of side 1 to 6, kernels of side 1 to 5 (some larger than their image), 1 to 3 channels."""
    for j in range(trials):
        yield draw(seed + j, 1 + j % 3, 1 + j % 6, 1 + j % 5)


# ------------------------------------------------------------------------------------------------
# (27), (28), appendix B


def equation_27(seed: int, size: float) -> list[Verdict]:
    """(27): A = F D F* beside D = F A F* of (B1) would need a symmetric kernel; with the latter, A = F* D F."""
    claim = "MON-Eq27"
    shift = circulant.convolution(np.eye(3)[None, None, 2:].repeat(3, 2) * np.array([0, 1, 0])[:, None], 3)
    F = circulant.fourier(3)
    package, back, third = columns(_convolutions(seed, problems.count(60, size)))
    return [
        compare(
            claim,
            "s = 3, a shift by one pixel: ||A - F D F*||/||A|| with D = F A F*",
            relative(F @ (F @ shift @ F.conj().T) @ F.conj().T, shift),
            "<=",
            1e-12,
            form=PRINTED,
        ),
        compare(claim, "F* D F by the package against the dense convolution", largest(package), "<=", 1e-13),
        compare(claim, "F* D F, a complex matrix, against the dense convolution", largest(back), "<=", 1e-13),
        compare(claim, "the dense convolution against scipy.ndimage, mode wrap", largest(third), "<=", 1e-13),
    ]


def _convolutions(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for j in range(trials):
        rng = np.random.default_rng(seed + j)
        o, i, s, k = 1 + j % 2, 1 + j % 3, 1 + j % 7, 1 + j % 5
        kernel, z = rng.normal(size=(o, i, k, k)), rng.normal(size=(i, s, s))
        truth, F_o, F_i = circulant.convolution(kernel, s), circulant.fourier(s, o), circulant.fourier(s, i)
        found = FourierMap(blocks(kernel, (s, s)), (s, s)).to_dense()
        back = F_o.conj().T @ (F_o @ truth @ F_i.conj().T) @ F_i
        correlated = [sum(_correlate(z[b], kernel[a, b]) for b in range(i)) for a in range(o)]
        distance = relative(truth @ z.ravel(), np.ravel(correlated))
        yield (
            (relative(found, truth), relative(back, truth), distance),
            f"{o} x {i} channels, s = {s}, k = {k}, seed {seed + j}",
        )


def _correlate(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    # an even kernel is centred at k/2 by SciPy, at (k - 1)//2 here: origin -1 moves it
    return scipy.ndimage.correlate(image, kernel, mode="wrap", origin=-1 + len(kernel) % 2)


def equation_b1(seed: int, size: float) -> list[Verdict]:
    """(B1) to (B3): every channel pair is diagonal in the DFT; the permuted form has one n x n block a frequency."""
    claim, p = "MON-EqB1", printed.fourier_basis(2)
    one, scaled, inverse, package = columns(_diagonals(seed, problems.count(40, size)))
    return [
        compare(
            claim,
            "s = 2, F with 1/s, called unitary: ||F F* - I||_F",
            np.linalg.norm(p @ p.conj().T - np.eye(2)),
            "<=",
            1e-12,
            form=PRINTED,
        ),
        compare(
            claim,
            "s = 2, F with 1/s: ||A - F* D F||/||A|| for A = I",
            relative(_round_trip(np.kron(p, p), np.eye(4)), np.eye(4)),
            "<=",
            1e-12,
            form=PRINTED,
        ),
        compare(
            claim, "(B1), (B2): entries of F W F* off the diagonals of D_ij, over ||W||", largest(one), "<=", 1e-13
        ),
        compare(claim, "...which is so for any scale of F: the same with 1/s", largest(scaled), "<=", 1e-13),
        compare(claim, "(B3): D^-1 by its blocks against W^-1, times the condition", largest(inverse), "<=", 1e-12),
        compare(claim, "(B3): the blocks of the package against those of F W F*", largest(package), "<=", 1e-13),
    ]


def _round_trip(F: np.ndarray, A: np.ndarray) -> np.ndarray:
    return F.conj().T @ (F @ A @ F.conj().T) @ F


def _diagonals(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for c in ensemble(seed, trials):
        W, F, n, s = c.dense, circulant.fourier(c.s, c.n), c.n, c.s
        scaled = np.kron(np.eye(n), np.kron(*2 * [printed.fourier_basis(s)]))
        D = F @ W @ F.conj().T
        Dk = circulant.permuted(D, n, n)
        # the package's F is NumPy's, omega = exp(-2 pi i/s), the conjugate one; it keeps one of each two frequencies
        half = Dk.conj().reshape(s, s, n, n)[: s // 2 + 1]
        shifted = circulant.permuted(F @ c.shifted @ F.conj().T, n, n)
        inverse = F.conj().T @ _assembled(np.linalg.inv(shifted)) @ F
        yield (
            (
                _off_diagonal(D, n) / np.linalg.norm(W),
                _off_diagonal(scaled @ W @ scaled.conj().T, n) / np.linalg.norm(W),
                relative(inverse, np.linalg.inv(c.shifted)) / np.linalg.cond(c.shifted),
                relative(c.operator.spectral_blocks(), half.reshape(-1, n, n)),
            ),
            c.where,
        )


def _off_diagonal(D: np.ndarray, n: int) -> float:
    return float(np.linalg.norm(D - _assembled(circulant.permuted(D, n, n))))


def _assembled(Dk: np.ndarray) -> np.ndarray:
    """(B3) to (B2)."""
    count, n, _ = Dk.shape
    return np.einsum("kij,kl->ikjl", Dk, np.eye(count)).reshape(n * count, n * count)


def equation_b4(seed: int, size: float) -> list[Verdict]:
    """(B4): the operator that Peaceman-Rachford inverts."""
    claim = "MON-EqB4"
    formula, package, inverse = columns(_shifted(seed, problems.count(40, size)))
    return [
        compare(
            claim, "(1 + alpha m)I + alpha (A'A - B + B') against I + alpha (I - W)", largest(formula), "<=", 1e-13
        ),
        compare(claim, "W of the package against the dense (1 - m)I - A'A + B - B'", largest(package), "<=", 1e-13),
        compare(
            claim, "resolvent of the package times (B4), minus I, over the condition", largest(inverse), "<=", 1e-13
        ),
    ]


def _shifted(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for c in ensemble(seed, trials):
        A, B = c.matrices
        identity = np.eye(len(A))
        formula = (1 + c.alpha * c.m) * identity + c.alpha * (A.T @ A - B + B.T)
        left = c.operator.resolvent(c.alpha).to_dense() @ formula
        error = np.linalg.norm(left - identity, 2) / np.linalg.cond(formula)
        yield (relative(c.shifted, formula), relative(c.operator.to_dense(), c.dense), error), c.where


def equation_28(seed: int, size: float) -> list[Verdict]:
    """(28), (B5): D_B needs its alpha; every block has Hermitian part >= 1 + alpha m."""
    claim, example = "MON-Eq28", draw(0, 2, 4, 3)._replace(alpha=0.5, m=1.0)
    formula, inverse, hermitian, norm, modulus, cayley = columns(_blockwise(seed, problems.count(40, size)))
    skew = Convolutions(np.zeros((2, 2, 1, 1)), np.eye(2, k=1)[..., None, None], 1.0, 0.5, 1, "")
    return [
        compare(
            claim,
            "s = 1, n = 2, A = 0, B = [[0, 1], [0, 0]], m = 1, alpha = 1/2: relative error",
            relative(printed_28(skew), skew.shifted),
            "<=",
            1e-12,
            form=PRINTED,
        ),
        compare(
            claim,
            "s = 4, n = 2, k = 3, alpha = 1/2: relative error",
            relative(printed_28(example), example.shifted),
            "<=",
            1e-12,
            form=PRINTED,
            worst=example.where,
        ),
        compare(
            claim,
            "the same with alpha at D_B, but F with 1/s",
            relative(corrected_28(example, np.kron(*2 * [printed.fourier_basis(4)])), example.shifted),
            "<=",
            1e-12,
            form=PRINTED,
            worst=example.where,
        ),
        compare(claim, "with alpha at D_B and F unitary: relative error", largest(formula), "<=", 1e-13),
        compare(
            claim,
            "resolvent of the package against the dense inverse, over the condition",
            largest(inverse),
            "<=",
            1e-13,
        ),
        compare(
            claim,
            "(1 + alpha m - lambda_min of the Hermitian part of a block)/||block||",
            largest(hermitian),
            "<=",
            0,
            slack=1e-13,
        ),
        compare(claim, "||I - W|| from the blocks against the dense norm", largest(norm), "<=", 1e-13),
        compare(
            claim,
            "the largest m with I - W >= mI from the blocks against the dense one, over ||W||",
            largest(modulus),
            "<=",
            1e-13,
        ),
        compare(claim, "2V - I in one pass against two, over the condition", largest(cayley), "<=", 1e-13),
    ]


def printed_28(c: Convolutions) -> np.ndarray:
    """I + alpha (I - W) by (28) as printed, in the convention D = F A F*."""
    F, (A, B) = circulant.fourier(c.s, c.n), c.matrices
    return printed.equation_28(F, F @ A @ F.conj().T, F @ B @ F.conj().T, c.m, c.alpha)


def corrected_28(c: Convolutions, F: np.ndarray) -> np.ndarray:
    """F* ((1 + alpha m)I + alpha D_A* D_A - alpha D_B + alpha D_B*) F for the F of one channel."""
    F = np.kron(np.eye(c.n), F)
    DA, DB = (F @ M @ F.conj().T for M in c.matrices)
    skew = DB - DB.conj().T
    return F.conj().T @ ((1 + c.alpha * c.m) * np.eye(len(F)) + c.alpha * (DA.conj().T @ DA - skew)) @ F


def _blockwise(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for c in ensemble(seed, trials):
        W, V, F = c.operator, c.operator.resolvent(c.alpha), circulant.fourier(c.s)
        G = np.eye(len(c.dense)) - c.dense
        inverse = np.linalg.inv(c.shifted)
        condition = np.linalg.cond(c.shifted)
        block = np.eye(c.n) * (1 + c.alpha) - c.alpha * np.asarray(W.spectral_blocks())
        lowest = np.linalg.eigvalsh((block + block.conj().transpose(0, 2, 1)) / 2)[:, 0]
        z = np.random.default_rng(0).normal(size=(1, c.n, c.s, c.s))
        twice = 2 * V.matvec(z) - z
        yield (
            (
                relative(corrected_28(c, F), c.shifted),
                relative(V.to_dense(), inverse) / condition,
                np.max((1 + c.alpha * c.m - lowest) / np.linalg.norm(block, 2, axis=(1, 2))),
                abs(W.lipschitz() / np.linalg.norm(G, 2) - 1),
                abs(W.monotonicity() - np.linalg.eigvalsh((G + G.T) / 2)[0]) / np.linalg.norm(G, 2),
                relative(V.cayley().matvec(z), twice) / condition,
            ),
            c.where,
        )


# ------------------------------------------------------------------------------------------------
# section 4.2: receptive field, cost, zero padding


def predict_reach(k: int) -> int:
    """Pixels on each side that W = (1 - m)I - A'A + B - B' sees, for kernels k x k."""
    return k - 1


def measure_reach(W: MonotoneConv) -> int:
    """The farthest row or column on which W turns an impulse into something else than zero."""
    n, (s, _) = W.channels, W.size
    impulses = np.eye(n)[:, :, None, None] * (np.arange(s * s).reshape(s, s) == (s // 2) * (s + 1))
    answer = np.abs(W.matvec(impulses)).max(axis=(0, 1))
    return int(np.max(np.abs(np.argwhere(answer > 1e-10 * answer.max()) - s // 2)))


def effective_kernel(seed: int, size: float) -> list[Verdict]:
    """Two 3 x 3 factors give W an effective kernel of size 5, k x k factors one of size 2k - 1."""
    claim = "MON-Sec4.2-kernel"
    three = draw(seed, 2, 9, 3)
    misfits = [
        (abs(measure_reach(c.operator) - predict_reach(k)), c.where)
        for k in range(1, 6)
        for c in (draw(seed + k, 1 + k % 3, 2 * k + 3, k),)
    ]
    # the kernel of W, written out: the impulse answers of the dense matrix around the centre pixel
    kernel = _kernel_of(three)
    rebuilt = circulant.convolution(kernel, 9)
    return [
        compare(
            claim,
            "s = 9, kernels 3 x 3: side of the kernel of W",
            2 * measure_reach(three.operator) + 1,
            "==",
            5,
            worst=three.where,
        ),
        compare(
            claim,
            "W against the circular convolution with that 5 x 5 kernel",
            relative(three.operator.to_dense(), rebuilt),
            "<=",
            1e-13,
            worst=three.where,
        ),
        compare(claim, "kernels k x k, k = 1 to 5: measured reach minus (k - 1)", largest(misfits), "<=", 0),
    ]


def _kernel_of(c: Convolutions) -> np.ndarray:
    """The kernel (n, n, 2k - 1, 2k - 1) of the dense W, read from the rows of a pixel away from the border."""
    n, s, reach = c.n, c.s, predict_reach(c.A.shape[2])
    rows = c.dense.reshape(n, s, s, n, s, s)[:, s // 2, s // 2]
    around = slice(s // 2 - reach, s // 2 + reach + 1)
    return rows[:, :, around, around]


def predict_cost(n: int, s: int, b: int) -> dict[str, float]:
    """Complex multiplications with n channels, s x s images, batch b: what O(.) stands for, half spectrum, s even.

    A real FFT of an image counts s^2 log2 s. blocks: the DFT of both kernels; inverses: n^3 a block; transforms: there
    and back for a batch; products: the blocks times the batch.
    """
    frequencies = (s // 2 + 1) * s
    return {
        "blocks": 2 * n**2 * s**2 * np.log2(s),
        "inverses": frequencies * n**3,
        "transforms": 2 * b * n * s**2 * np.log2(s),
        "products": frequencies * n**2 * b,
    }


def measure_cost(n: int, s: int, b: int) -> dict[str, float]:
    """The same from the shapes of what the package transforms, inverts and multiplies."""
    kernel = np.random.default_rng(0).normal(size=(n, n, 3, 3))
    W = MonotoneConv(kernel, kernel, 1.0, size=(s, s))
    V, X = W.resolvent(1.0).D, spectrum(np.zeros((b, n, s, s)))
    pixels = s**2 * np.log2(s)
    *frequencies, rows, columns_ = V.shape
    return {
        "blocks": 2 * pixels * np.prod(blocks(kernel, (s, s)).shape[2:]),
        "inverses": float(np.prod(frequencies)) * rows * columns_**2,
        "transforms": 2 * pixels * np.prod(X.shape[2:]),
        "products": float(np.prod(X.shape[:2])) * rows * columns_ * X.shape[3],
    }


SIZES = [(2, 4, 3), (4, 4, 3), (8, 4, 3), (4, 8, 3), (4, 16, 3), (4, 8, 12), (3, 10, 5)]


def cost(seed: int, size: float) -> list[Verdict]:
    """Set-up O(n^2 s^2 log s + n^3 s^2), application O(b n s^2 log s + b n^2 s^2), by counting."""
    claim = "MON-Sec4.2-cost"
    counted = [(measure_cost(*each), predict_cost(*each), each) for each in SIZES]
    misfits = [([abs(m[key] / p[key] - 1) for key in p], f"n, s, b = {each}, not random") for m, p, each in counted]
    n, s, b = 4, 16, 3
    base, wide, fine, big = (measure_cost(*each) for each in ((n, s, b), (2 * n, s, b), (n, 2 * s, b), (n, s, 2 * b)))
    return [
        compare(
            claim, "counts from the shapes of the package's arrays against the formulas", largest(misfits), "<=", 1e-12
        ),
        compare(claim, "resolvents built in a forward and a backward solve of 5 images", _resolvents(seed), "==", 1),
        compare(claim, "twice the channels: inverses times", wide["inverses"] / base["inverses"], "==", 8),
        compare(claim, "twice the channels: products times", wide["products"] / base["products"], "==", 4),
        compare(
            claim,
            "twice the side: inverses times (4 and the row of the half spectrum)",
            fine["inverses"] / base["inverses"],
            "<=",
            4,
        ),
        compare(
            claim, "twice the batch: inverses times (one set for all)", big["inverses"] / base["inverses"], "==", 1
        ),
    ]


def _resolvents(seed: int) -> int:
    """How many different maps the solvers get when they ask for the resolvent."""
    c, made, right = draw(seed, 2, 4, 3), [], MonotoneConv.resolvent

    def recorded(self: MonotoneConv, alpha: float) -> FourierMap:
        made.append(right(self, alpha))
        return made[-1]

    W, b = c.operator, np.random.default_rng(seed).normal(size=(5, 2, 4, 4))
    with mock.patch.object(MonotoneConv, "resolvent", recorded):
        z = mon.equilibrium(W, b, activations.relu, alpha=0.2).z
        mon.equilibrium_vjp(W, b, activations.relu, z, np.ones_like(b), alpha=0.2)
    return len({id(V) for V in made})


def padding(seed: int, size: float) -> list[Verdict]:
    """A border of p zero pixels keeps W from wrapping around if and only if 2p >= k - 1, k the side of A and B."""
    claim = "MON-Sec4.2-padding"
    exact = [interior_error(draw(seed + k, 2, 9, k), -(-(k - 1) // 2)) for k in range(1, 6)]
    modulus = [_interior_modulus(draw(seed + j, 2, 7, 3), 1) for j in range(problems.count(20, size))]
    solved = [_padded_equilibrium(draw(seed + j, 2, 7, 3)) for j in range(problems.count(10, size))]
    narrow, none = interior_error(draw(seed, 2, 9, 5), 1), interior_error(draw(seed, 2, 9, 3), 0)
    refused = _refused(draw(seed, 2, 9, 5).operator, 1)
    return [
        compare(
            claim,
            "p = (k - 1)/2 rounded up, k = 1 to 5: the interior of W against its kernel, zero-padded",
            largest(exact),
            "<=",
            1e-13,
        ),
        compare(claim, "m - lambda_min of the interior of I - W", largest(modulus), "<=", 0, slack=1e-12),
        compare(claim, "equilibrium with a border against z = relu(zero-padded W z + b)", largest(solved), "<=", 1e-9),
        compare(
            claim, "k = 5, p = 1: relative error of the interior", narrow[0], "<=", 1e-12, form=DROPPED, worst=narrow[1]
        ),
        compare(
            claim, "k = 3, p = 0: relative error of the interior", none[0], "<=", 1e-12, form=DROPPED, worst=none[1]
        ),
        compare(claim, "k = 5, p = 1 is refused (1 = yes)", refused, "==", 1),
    ]


def _inside(c: Convolutions, p: int) -> np.ndarray:
    """The pixels p away from the border, as a mask of the vectorised state."""
    image = np.zeros((c.n, c.s, c.s), dtype=bool)
    image[:, p : c.s - p, p : c.s - p] = True
    return image.ravel()


def interior_error(c: Convolutions, p: int) -> tuple[float, str]:
    """Relative error of the interior of W, p pixels away from the border, as the zero-padded kernel of W; and where."""
    inside = _inside(c, p)
    truth = circulant.padded_convolution(_kernel_of(c), c.s - 2 * p)
    return relative(c.operator.to_dense()[np.ix_(inside, inside)], truth), f"p = {p}, {c.where}"


def _interior_modulus(c: Convolutions, p: int) -> tuple[float, str]:
    inside = _inside(c, p)
    W = c.operator.to_dense()[np.ix_(inside, inside)]
    return c.m - np.linalg.eigvalsh(np.eye(len(W)) - (W + W.T) / 2)[0], c.where


def _padded_equilibrium(c: Convolutions) -> tuple[float, str]:
    b = np.random.default_rng(1).normal(size=(1, c.n, c.s, c.s))
    z = mon.equilibrium(c.operator, b, zero_padded(c.operator, activations.relu), tol=1e-11, max_iter=20000).z
    inside = _inside(c, 1)
    W = circulant.padded_convolution(_kernel_of(c), c.s - 2)
    residual = np.maximum(W @ z.ravel()[inside] + b.ravel()[inside], 0) - z.ravel()[inside]
    outside = np.abs(z.ravel()[~inside]).max()
    return max(outside, np.abs(residual).max() / (1 + np.linalg.norm(W, 2))), c.where


def _refused(W: MonotoneConv, width: int) -> bool:
    try:
        zero_padded(W, activations.relu, width)
    except ValueError as error:
        return "MON-Sec4.2-padding" in str(error)
    return False


# ------------------------------------------------------------------------------------------------
# appendix D.2 for convolutions


def normalised(seed: int, trials: int) -> Extreme:
    """Operator with g, h against (1 - m)I - g A'A/||k_A||^2 + h (B - B')/||k_B||, the norms those of the kernels."""
    return largest(_normalised(seed, trials))


def _normalised(seed: int, trials: int) -> Iterator[tuple[float, str]]:
    for c in ensemble(seed, trials):
        g, h = np.random.default_rng(seed).uniform(0, 3), -1.5
        A, B = c.matrices
        scaled = np.sqrt(g) * A / np.linalg.norm(c.A), h * B / np.linalg.norm(c.B)
        W = MonotoneConv(c.A, c.B, c.m, size=(c.s, c.s), g=g, h=h)
        yield relative(W.to_dense(), circulant.weight(*scaled, c.m)), c.where


__all__ = ["cost", "effective_kernel", "equation_27", "equation_28", "equation_b1", "equation_b4", "padding"]
