"""Statements of MON on images (sections 4.2, 4.3, appendices B to D), each on a case small enough to redo by hand."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from oracles import assert_close, conv_weight, correlation, size

import implicitref as ir
from implicitref import activations, networks
from implicitref.errors import HypothesisError
from implicitref.operators import FourierMap, MonotoneConv, MonotoneMultiTier, strided, zero_padded
from implicitref.operators.fourier import blocks

SIDE, R = 4, 2
IMAGES = Path(os.environ.get("IMPLICITREF_DATA", "")) / "mnist.npz"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def W(rng: np.random.Generator) -> MonotoneConv:
    A, B = rng.normal(size=(2, 2, 2, 3, 3))
    return MonotoneConv(A, B, 0.5, size=(SIDE, SIDE))


@pytest.fixture
def tiers(rng: np.random.Generator) -> MonotoneMultiTier:
    """Tiers 4 x 4 with 2 channels and 3 x 3 with 1: the strided 2 x 2 images and a border of zeros."""
    A, B = ([rng.normal(size=(n, n, 3, 3)) for n in (2, 1)] for _ in "AB")
    return MonotoneMultiTier(A, B, [rng.normal(size=(1, 2, 3, 3))], 0.5, [(4, 4), (3, 3)])


def whole(tiers: MonotoneMultiTier) -> tuple[np.ndarray, np.ndarray]:
    """The block bidiagonal A and B of `tiers`, dense."""
    A, B = np.zeros((2, 41, 41))
    keep = np.zeros((9, 16))
    keep[[0, 1, 3, 4], [0, 2, 8, 10]] = 1  # pixels (0, 0), (0, 2), (2, 0), (2, 2) to the corner of the 3 x 3 image
    A[:32, :32], A[32:, 32:] = (correlation(k, s) for k, s in zip(tiers.A, tiers.sizes, strict=True))
    B[:32, :32], B[32:, 32:] = (correlation(k, s) for k, s in zip(tiers.B, tiers.sizes, strict=True))
    A[32:, :32] = keep @ correlation(tiers.S[0], (4, 4))
    B[32:, :32] = -A[32:, 32:].T @ A[32:, :32]
    return A, B


def off_diagonals(D: np.ndarray, n: int) -> np.ndarray:
    """The entries of an n x n block matrix that are on the diagonal of no block."""
    pixels = len(D) // n
    return D[np.kron(np.ones((n, n)), np.eye(pixels)) == 0]


# ------------------------------------------------------------------------------------------------
# Section 4.2


@pytest.mark.claim("MON-Sec4.2-kernel")
@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_an_impulse_spreads_by_k_minus_1_pixels(k, rng):
    A, B = rng.normal(size=(2, 1, 1, k, k))
    impulse = np.zeros((1, 1, 9, 9))
    impulse[0, 0, 4, 4] = 1
    answer = MonotoneConv(A, B, 1.0, size=(9, 9)).matvec(impulse)[0, 0]
    touched = np.argwhere(np.abs(answer) > 1e-12)
    assert np.abs(touched - 4).max() == k - 1  # 3 x 3 kernels: 5 x 5


@pytest.mark.claim("MON-Eq27")
def test_a_shift_is_not_diagonal_in_the_printed_convention():
    kernel = np.array([[[[0.0, 0.0, 1.0]]]])
    F = np.kron(np.eye(1), strided.dft(3))
    A = correlation(kernel, (1, 3))
    D = F @ A @ F.conj().T
    assert_close(off_diagonals(np.abs(D), 1), np.zeros(6), scale=1, tol=1e-14)
    assert_close((F.conj().T @ D @ F).real, A, scale=1, tol=1e-14)
    assert_close((F @ D @ F.conj().T).real, A.T, scale=1, tol=1e-14)  # as printed, the reversed shift
    assert_close(FourierMap(blocks(kernel, (1, 3)), (1, 3)).to_dense(), A, scale=1, tol=1e-14)


@pytest.mark.claim("MON-EqB1", "MON-EqB2")
def test_every_pair_of_channels_is_diagonal_in_the_frequencies(W):
    F = strided.dft2(SIDE, 2)
    assert_close(np.abs(F @ F.conj().T), np.eye(32), scale=1, tol=1e-14)
    D = F @ conv_weight(W.A, W.B, W.m, W.size) @ F.conj().T
    assert_close(np.abs(off_diagonals(D, 2)), np.zeros(32 * 30), scale=size(D), tol=1e-14)


@pytest.mark.claim("MON-EqB3")
def test_the_blocks_of_the_permuted_form_are_those_of_the_operator(W):
    F = strided.dft2(SIDE, 2).conj()  # NumPy's sign
    D = F @ conv_weight(W.A, W.B, W.m, W.size) @ F.conj().T
    permuted = np.einsum("ikjk->kij", D.reshape(2, 16, 2, 16))[: (SIDE // 2 + 1) * SIDE]
    found = W.spectral_blocks()
    assert_close(np.real(found), permuted.real, scale=size(D), tol=1e-13)
    assert_close(np.imag(found), permuted.imag, scale=size(D), tol=1e-13)


@pytest.mark.claim("MON-EqB4", "MON-Eq28", "MON-EqB5")
@pytest.mark.parametrize("alpha", [0.1, 0.5, 3.0])
def test_the_blocks_of_the_resolvent_invert_the_operator(alpha, W):
    A, B = (correlation(k, W.size) for k in (W.A, W.B))
    shifted = (1 + alpha * W.m) * np.eye(32) + alpha * (A.T @ A - B + B.T)
    V = W.resolvent(alpha)
    assert_close(np.asarray(V.to_dense()) @ shifted, np.eye(32), scale=np.linalg.cond(shifted), tol=1e-14)
    hermitian = np.linalg.inv(np.asarray(V.D))
    hermitian = (hermitian + hermitian.conj().swapaxes(-1, -2)) / 2
    assert np.linalg.eigvalsh(hermitian).min() >= (1 + alpha * W.m) * (1 - 1e-12)


@pytest.mark.claim("MON-Eq28", "MON-EqB5")
def test_the_skew_part_of_equation_28_needs_its_alpha():
    # s = 1, two channels, A = 0, B = [[0, 1], [0, 0]], m = 1, alpha = 1/2
    B = np.array([[0.0, 1.0], [0.0, 0.0]])[:, :, None, None]
    V = MonotoneConv(np.zeros_like(B), B, 1.0, size=(1, 1)).resolvent(0.5)
    assert_close(np.linalg.inv(V.to_dense()), [[1.5, -0.5], [0.5, 1.5]], scale=1, tol=1e-14)  # printed: -1, 1


@pytest.mark.claim("MON-Sec4.2-cost")
def test_one_block_for_each_frequency_of_the_half_spectrum_serves_the_whole_batch(W, rng):
    V = W.resolvent(1.0)
    assert V.D.shape == (SIDE // 2 + 1, SIDE, 2, 2)
    assert W.resolvent(1.0) is V
    z = rng.normal(size=(7, 2, SIDE, SIDE))
    one_by_one = np.concatenate([V.matvec(z[i : i + 1]) for i in range(7)])
    assert_close(V.matvec(z), one_by_one, scale=size(z), tol=1e-14)


@pytest.mark.claim("MON-Sec4.2-padding")
def test_one_pixel_of_zeros_is_enough_for_3_by_3_and_not_for_5_by_5(rng):
    # A adds the outermost pixels of its reach, so A'A joins pixels k - 1 apart, around the edge too: row 0 of the
    # interior meets its last columns where 2p < k - 1
    for k, p, wraps in ((3, 1, False), (5, 1, True), (5, 2, False), (3, 0, True)):
        A = np.zeros((1, 1, 1, k))
        A[..., 0], A[..., -1] = 1, 1
        W = MonotoneConv(A, np.zeros_like(A), 1.0, size=(1, 13)).to_dense()
        inside = np.asarray(W)[p : 13 - p, p : 13 - p]
        assert (abs(inside[0, -(k - 1) :]).max() > 0.5) == wraps, (k, p)


@pytest.mark.claim("MON-Sec4.2-padding")
def test_the_narrowest_border_is_chosen_and_a_narrower_one_refused():
    kernel = np.ones((1, 1, 5, 5))
    W = MonotoneConv(kernel, kernel, 1.0, size=(9, 9))
    assert repr(zero_padded(W, activations.relu)) == "zero_border(relu, 2)"
    with pytest.raises(HypothesisError, match=r"2 width >= 4.*MON-Sec4.2-padding"):
        zero_padded(W, activations.relu, 1)


# ------------------------------------------------------------------------------------------------
# Section 4.3, appendix C


@pytest.mark.claim("MON-Sec4.3-tiers", "MON-EqC1", "MON-EqC2", "MON-EqC3", "MON-EqC4", "MON-EqC5")
def test_the_blocks_of_a_multi_tier_operator(tiers):
    A, B = whole(tiers)
    expected = 0.5 * np.eye(41) - A.T @ A + B - B.T
    W = np.asarray(tiers.to_dense())
    assert_close(W, expected, scale=size(expected), tol=1e-14)
    assert_close(W[:32, 32:], np.zeros((32, 9)), scale=1, tol=1e-14)  # no tier acts on the one above
    assert_close(W[32:, :32], -2 * A[32:, 32:].T @ A[32:, :32], scale=size(W), tol=1e-14)
    assert_close(W[32:, 32:], conv_weight(tiers.A[1], tiers.B[1], 0.5, (3, 3)), scale=size(W), tol=1e-14)
    assert np.linalg.eigvalsh(np.eye(41) - (W + W.T) / 2)[0] >= 0.5 - 1e-12


@pytest.mark.claim("MON-EqC6", "MON-EqC7")
def test_back_substitution_goes_down_the_tiers_and_transposed_up(tiers, rng):
    alpha, z = 0.7, rng.normal(size=(3, 41))
    A, B = whole(tiers)
    M = (1 + 0.5 * alpha) * np.eye(41) + alpha * (A.T @ A - B + B.T)
    x1 = np.linalg.solve(M[:32, :32], z[:, :32].T)
    x2 = np.linalg.solve(M[32:, 32:], z[:, 32:].T - M[32:, :32] @ x1)
    V, scale = tiers.resolvent(alpha), np.linalg.cond(M)
    assert_close(V.matvec(z), np.concatenate([x1, x2]).T, scale=scale, tol=1e-14)
    y2 = np.linalg.solve(M[32:, 32:].T, z[:, 32:].T)
    y1 = np.linalg.solve(M[:32, :32].T, z[:, :32].T - M[32:, :32].T @ y2)
    assert_close(V.rmatvec(z), np.concatenate([y1, y2]).T, scale=scale, tol=1e-14)


@pytest.mark.claim("MON-EqC8")
def test_the_skew_part_of_the_first_tier_enters_with_a_minus_sign():
    # two channels of one pixel each: A = 0, S = 0, B = [[0, 1], [0, 0]], alpha = 1, m = 1
    B = np.array([[0.0, 1.0], [0.0, 0.0]])[:, :, None, None]
    W = MonotoneMultiTier([0 * B, 0 * B], [B, B], [0 * B], 1.0, [(1, 1), (1, 1)], stride=1)
    inverse = np.linalg.inv(np.asarray(W.resolvent(1.0).to_dense()))
    assert_close(inverse[:2, :2], [[2.0, -1.0], [1.0, 2.0]], scale=1, tol=1e-14)  # printed: 1, -1


@pytest.mark.claim("MON-PropC1", "MON-EqC9", "MON-EqC10")
@pytest.mark.parametrize(("n1", "n2"), [(1, 1), (2, 1), (1, 2), (2, 3)])
def test_proposition_c1_couples_the_output_channels(n1, n2, rng):
    a, b = rng.normal(size=(n1, n1, 3, 3)) / 9, rng.normal(size=(n2, n1, 3, 3))
    identity = np.eye(n1)[:, :, None, None] * 3
    A, B = correlation(a, (4, 4)) + 3 * np.eye(16 * n1), correlation(b, (4, 4))
    every = np.kron(np.eye(n2), np.eye(16)[[0, 2, 8, 10]])
    truth = np.linalg.inv(A + B.T @ every.T @ every @ B)
    literal = strided.proposition_c1(A, B, 4, 2)
    assert_close(literal.real, truth, scale=size(truth), tol=1e-13)
    assert_close(literal.imag, 0 * truth, scale=size(truth), tol=1e-13)
    D_A = blocks(a, (4, 4)) + blocks(identity, (4, 4))
    V = strided.alias_inverse(D_A, blocks(b, (4, 4)), (4, 4), (2, 2))
    assert V.M_inv.shape == (2, 2, n2, n2)
    columns = V.matvec(np.eye(16 * n1).reshape(-1, n1, 4, 4)).reshape(16 * n1, -1).T
    assert_close(columns, truth, scale=size(truth), tol=1e-13)


@pytest.mark.claim("MON-PropC1")
def test_the_smallest_inverse_and_a_stride_that_does_not_divide():
    found = strided.proposition_c1(np.eye(4), np.eye(4), s=2, r=2)
    assert_close(found.real, np.diag([0.5, 1, 1, 1]), scale=1, tol=1e-14)  # printed: .8
    with pytest.raises(HypothesisError, match=r"must divide .*MON-PropC1"):
        strided.strided_convolution(np.ones((1, 1, 3, 3)), (5, 5), 2)


@pytest.mark.claim("MON-EqC11", "MON-EqC23")
def test_the_perfect_shuffle_reads_by_columns_and_swaps_kronecker_factors(rng):
    assert strided.shuffle(2, 3) @ np.arange(6) == pytest.approx([0, 3, 1, 4, 2, 5], abs=0)
    A, B, S = rng.normal(size=(3, 3)), rng.normal(size=(2, 2)), strided.shuffle(3, 2)
    assert np.array_equal(np.kron(B, A), S @ np.kron(A, B) @ S.T)


@pytest.mark.claim("MON-EqC12", "MON-EqC13", "MON-EqC15")
def test_striding_adds_up_the_aliases_of_a_frequency(rng):
    kernel, F = rng.normal(size=(1, 1, 3, 3)), strided.dft2(SIDE, 1)
    B, U = correlation(kernel, (SIDE, SIDE)), strided.selection(SIDE, R)
    D = F @ B @ F.conj().T
    gram = F.conj().T @ D.conj().T @ (F @ U.T @ U @ F.conj().T) @ D @ F
    assert_close(gram.real, (U @ B).T @ U @ B, scale=size(B) ** 2, tol=1e-13)
    folded = strided.gather(SIDE, R) @ strided.gather(SIDE, R).T / R**2  # printed: / (s^2 r^2)
    assert_close((F @ U.T @ U @ F.conj().T).real, folded, scale=1, tol=1e-14)
    image = rng.normal(size=(1, 1, SIDE, SIDE))
    found = strided.strided_convolution(kernel, (SIDE, SIDE), R).matvec(image)
    assert_close(found.ravel(), U @ B @ image.ravel(), scale=size(B), tol=1e-13)


@pytest.mark.claim("MON-EqC14", "MON-EqC16", "MON-EqC17", "MON-EqC18")
def test_the_pixels_that_are_kept():
    assert np.array_equal(np.argmax(strided.selection(SIDE, R), axis=1), [0, 2, 8, 10])
    for r in (1, 2, 4):
        U, T, F = strided.selection(SIDE, r), strided.kept(SIDE, r), strided.dft(SIDE)
        assert np.trace(T) == SIDE // r  # as printed, i mod r = 1, nothing would be kept for r = 1
        assert np.array_equal(U.T @ U, np.kron(T, T))
        once, FF = F @ T @ F.conj().T, np.kron(F, F)
        assert_close(
            np.abs(FF @ np.kron(T, T) @ FF.conj().T - np.kron(once, once)), np.zeros((16, 16)), scale=1, tol=1e-14
        )


@pytest.mark.claim("MON-EqC19", "MON-EqC20", "MON-EqC21", "MON-EqC22")
@pytest.mark.parametrize(("s", "r"), [(4, 1), (4, 2), (6, 2), (6, 3), (5, 5), (9, 3)])
def test_the_geometric_sums_are_1_over_r_or_zero(s, r):
    for i, j in itertools.product(range(s), repeat=2):
        total = sum(np.exp(2j * np.pi * p * (i - j) / s) for p in range(0, s, r)) / s
        assert_close([total.real, total.imag], [strided.congruent(s, r)[i, j], 0.0], scale=1, tol=1e-14)
        assert strided.congruent(s, r)[i, j] == (1 / r if (i - j) % (s // r) == 0 else 0)


@pytest.mark.claim("MON-EqC24")
@pytest.mark.parametrize(("s", "r", "distance"), [(4, 2, 8.0), (6, 3, 432**0.5), (4, 4, 0.0)])
def test_the_last_lines_of_the_proof_need_the_transposed_permutation(s, r, distance):
    L = strided.congruent(s, r)
    SJ = strided.gather(s, r)
    assert_close(SJ @ SJ.T / r**2, np.kron(L, L), scale=1, tol=1e-14)
    S, J = np.kron(np.eye(r), strided.shuffle(s // r, s)), np.tile(np.eye((s // r) ** 2), (r * r, 1))
    printed = S @ J @ J.T @ S.T
    assert_close(np.linalg.norm(printed - r**2 * np.kron(L, L)), distance, scale=1, tol=1e-12)


# ------------------------------------------------------------------------------------------------
# Appendix D


@pytest.mark.claim("MON-TabD1")
@pytest.mark.parametrize(
    ("build", "channels", "image", "count"),
    [
        (networks.mon_fc, 87, 784, 84_313),
        (networks.mon_conv, 54, (1, 28, 28), 79_500),  # printed: 84,460
        (networks.mon_conv, 56, (1, 28, 28), 84_460),
        (networks.mon_conv, 81, (3, 32, 32), 172_218),
        (networks.mon_conv, 200, (3, 32, 32), 853_612),
        (networks.mon_multitier, (16, 32, 32), (1, 28, 28), 81_394),
        (networks.mon_multitier, (16, 32, 60), (3, 32, 32), 170_194),
        (networks.mon_multitier, (64, 128, 128), (3, 32, 32), 1_014_546),
    ],
)
def test_the_parameter_counts_of_table_d1(build, channels, image, count):
    network = build(np.random.default_rng(0), image, channels)
    arrays = [p for value in network.params.values() for p in (value if isinstance(value, list) else [value])]
    assert sum(np.size(p) for p in arrays) == count


@pytest.mark.claim("MON-AppD.1-readout")
def test_a_single_convolution_is_read_out_by_averages_of_4_by_4(rng):
    network = networks.mon_conv(
        rng, (1, 7, 7), 1, classes=2, dtype=np.float64
    )  # 9 x 9 with its border: one is left out
    z = rng.normal(size=(1, 1, 9, 9))
    means = [z[0, 0, :4, :4].mean(), z[0, 0, :4, 4:8].mean(), z[0, 0, 4:8, :4].mean(), z[0, 0, 4:8, 4:8].mean()]
    expected = network.readout_weight @ means + network.readout_bias
    assert_close(network.readout(z)[0], expected, scale=1, tol=1e-14)


@pytest.mark.claim("MON-AppD.2-weightnorm")
def test_convolutions_are_normalised_by_the_norms_of_their_kernels(rng):
    A, B = rng.normal(size=(2, 1, 1, 3, 3))
    plain = conv_weight(np.sqrt(2) * A / np.linalg.norm(A), -3 * B / np.linalg.norm(B), 1.0, (4, 4))
    assert_close(MonotoneConv(A, B, 1.0, size=(4, 4), g=2.0, h=-3.0).to_dense(), plain, scale=1, tol=1e-13)
    tier = MonotoneMultiTier([A], [B], [], 1.0, [(4, 4)], g=[2.0], gs=[], h=[-3.0])
    assert_close(tier.to_dense(), plain, scale=1, tol=1e-13)


@pytest.mark.data
@pytest.mark.claim("MON-TabD2")
@pytest.mark.skipif(
    not (os.environ.get("IMPLICITREF_DATA") and IMAGES.exists()),
    reason="IMPLICITREF_DATA names no folder with mnist.npz",
)
def test_mnist_has_the_sizes_of_table_d2():
    data = ir.datasets.load(IMAGES)
    assert (len(data.x_train), len(data.x_test), data.shape, data.classes) == (60_000, 10_000, (1, 28, 28), 10)
