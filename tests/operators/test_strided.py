"""Strided convolutions and Proposition C1 against matrices built pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, target
from hypothesis import strategies as st
from oracles import assert_close, correlation

from implicitref.errors import HypothesisError, ShapeError
from implicitref.operators import strided as module
from implicitref.operators.fourier import blocks
from implicitref.operators.strided import StridedMap, alias_inverse, proposition_c1, strided_convolution

EPS = float(np.finfo(np.float64).eps)


def dense_selection(size, stride, out, channels):
    """The 0-1 matrix of every r-th pixel, placed in the top left corner of `out`."""
    source = np.arange(math.prod(size)).reshape(size)[:: stride[0], :: stride[1]]
    place = np.arange(math.prod(out)).reshape(out)[: source.shape[0], : source.shape[1]]
    U = np.zeros((math.prod(out), math.prod(size)))
    U[place.ravel(), source.ravel()] = 1
    return np.kron(np.eye(channels), U)


def dense_strided(kernel, size, stride, out):
    return dense_selection(size, stride, out, kernel.shape[0]) @ correlation(kernel, size)


def flat(x):
    return np.reshape(x, (x.shape[0], -1))


def divisors(n):
    return [d for d in range(1, n + 1) if n % d == 0]


@st.composite
def cases(draw, largest=7):
    """A kernel, a size, a stride for each axis, the output size, and a generator."""
    size = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    stride = tuple(draw(st.sampled_from(divisors(side))) for side in size)
    out = tuple(side // r + draw(st.integers(0, 2)) for side, r in zip(size, stride, strict=True))
    shape = [draw(st.integers(1, 3)) for _ in range(2)] + [draw(st.integers(1, 7)) for _ in range(2)]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.normal(size=shape), size, stride, out, rng


@pytest.mark.claim("MON-EqC13")
@given(case=cases())
def test_strided_convolution_is_its_dense_matrix(case):
    kernel, size, stride, out, rng = case
    S, M = strided_convolution(kernel, size, stride, out), dense_strided(kernel, size, stride, out)
    x, y = rng.normal(size=(2, kernel.shape[1], *size)), rng.normal(size=(2, kernel.shape[0], *out))
    scale = 1 + float(np.abs(M).sum(axis=1).max() + np.abs(M).sum(axis=0).max()) * 5
    assert_close(flat(S.matvec(x)), flat(x) @ M.T, scale=scale, tol=1e-14)
    assert_close(flat(S.rmatvec(y)), flat(y) @ M, scale=scale, tol=1e-14)
    dot = float((S.matvec(x) * y).sum()), float((x * S.rmatvec(y)).sum())
    assert_close(*dot, scale=np.linalg.norm(x) * np.linalg.norm(y) * (1 + np.linalg.norm(M, 2)), tol=1e-14)


@given(case=cases())
def test_kernel_gradient_is_the_coefficient_of_every_tap(case):
    kernel, size, stride, out, rng = case
    p, q = rng.normal(size=(2, kernel.shape[0], *out)), rng.normal(size=(2, kernel.shape[1], *size))
    actual = strided_convolution(kernel, size, stride, out).gradient(p, q, kernel.shape[2:])
    desired = np.empty(kernel.shape)
    for tap in np.ndindex(*kernel.shape):  # <p, S q> is linear in the kernel
        one = np.zeros(kernel.shape)
        one[tap] = 1
        desired[tap] = ((flat(q) @ dense_strided(one, size, stride, out).T) * flat(p)).sum()
    assert_close(actual, desired, scale=1 + np.linalg.norm(p) * np.linalg.norm(q), tol=1e-14)


@given(case=cases())
def test_shift_equivariance_by_the_stride(case):
    kernel, size, stride, _, rng = case
    S, x = strided_convolution(kernel, size, stride), rng.normal(size=(1, kernel.shape[1], *size))
    moved = np.roll(x, stride, axis=(2, 3))
    desired = np.roll(S.matvec(x), (1, 1), axis=(2, 3))
    assert_close(S.matvec(moved), desired, scale=1 + float(np.abs(kernel).sum()) * 5, tol=1e-14)


@given(case=cases())
def test_folding_is_selecting_and_spreading_is_inserting_zeros(case):
    kernel, size, stride, _, rng = case
    x = rng.normal(size=(2, kernel.shape[1], *size))
    X, r2 = module.spectrum(x), math.prod(stride)
    scale = 10 * math.prod(size)
    folded, selected = module.fold(X, size, stride), r2 * module.spectrum(module.subsample(x, stride))
    y = module.subsample(x, stride)
    spreaded, inserted = (
        module.spread(module.spectrum(y), size, stride),
        module.spectrum(module.insert_zeros(y, stride)),
    )
    for actual, desired in ((folded, selected), (spreaded, inserted)):
        for part in (np.real, np.imag):
            assert_close(part(actual), part(desired), scale=scale, tol=1e-14)


# ------------------------------------------------------------------------------------------------
# Proposition C1


def summands(rng, n1, n2, size, stride, kernel_size=3):
    """A = 2 I - K + K' + K'K in kernels of its parts, as blocks and as a matrix; B likewise."""
    K = rng.normal(size=(n1, n1, kernel_size, kernel_size)) / (kernel_size * n1**0.5)
    k = rng.normal(size=(n2, n1, kernel_size, kernel_size)) / n1**0.5
    D, M = blocks(K, size), correlation(K, size)
    H = np.conj(np.swapaxes(D, -1, -2))
    D_A = 2 * np.eye(n1) - D + H + H @ D
    A = 2 * np.eye(len(M)) - M + M.T + M.T @ M
    return (
        D_A,
        A,
        blocks(k, size),
        correlation(k, size),
        dense_strided(k, size, stride, module.coarse(size, stride)),
    )


@st.composite
def sums(draw):
    size = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    stride = tuple(draw(st.sampled_from(divisors(side))) for side in size)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n1, n2, k = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    return rng, n1, n2, size, stride, summands(rng, n1, n2, size, stride, k)


@pytest.mark.claim("MON-PropC1", "MON-EqC9", "MON-EqC10")
@given(drawn=sums())
def test_alias_form_is_the_dense_inverse(drawn):
    rng, n1, _, size, stride, (D_A, A, D_B, _, B) = drawn
    V, M = alias_inverse(D_A, D_B, size, stride), np.linalg.inv(A + B.T @ B)
    z = rng.normal(size=(3, n1, *size))
    target(float(np.abs(flat(V.matvec(z)) - flat(z) @ M.T).max()))
    assert_close(flat(V.matvec(z)), flat(z) @ M.T, scale=1 + np.abs(z).max(), tol=1e-11)
    assert_close(flat(V.rmatvec(z)), flat(z) @ M, scale=1 + np.abs(z).max(), tol=1e-11)


MATRICES = [(1, 1, 2, 2), (2, 1, 4, 2), (1, 2, 4, 2), (2, 3, 4, 4), (2, 2, 4, 1), (2, 2, 6, 3), (1, 3, 6, 2)]


@pytest.mark.claim("MON-PropC1", "MON-EqC9", "MON-EqC10", "MON-EqC12", "MON-EqC15")
@pytest.mark.parametrize(("n1", "n2", "s", "r"), MATRICES)
def test_proposition_c1_in_matrices(n1, n2, s, r):
    D_A, A, D_B, B_full, B = summands(np.random.default_rng(s), n1, n2, (s, s), (r, r))
    truth = np.linalg.inv(A + B.T @ B)
    corrected = proposition_c1(A, B_full, s, r)
    assert_close(corrected.real, truth, scale=1, tol=1e-13)
    assert_close(corrected.imag, np.zeros_like(truth), scale=1, tol=1e-13)
    columns = alias_inverse(D_A, D_B, (s, s), (r, r)).matvec(np.eye(len(A)).reshape(-1, n1, s, s))
    assert_close(flat(columns).T, corrected.real, scale=1, tol=1e-13)
    F1, P = module.dft2(s, n1), np.kron(np.eye(n2), module.gather(s, r))  # (C12) with 1/r^2
    D = module.dft2(s, n2) @ B_full @ F1.conj().T
    summed = F1.conj().T @ (F1 @ A @ F1.conj().T + D.conj().T @ (P @ P.T / r**2) @ D) @ F1
    assert_close(summed.real, A + B.T @ B, scale=1 + float(np.abs(summed).max()), tol=1e-13)


def printed_c1(A, B, s, r, factor, n_coupled):
    """(C9) with another factor, and with I (x) K of one output channel where n_coupled is False."""
    n1, n2 = A.shape[0] // s**2, B.shape[0] // s**2
    F1, F2, P1 = module.dft2(s, n1), module.dft2(s, n2), module.gather(s, r)
    X, D = np.linalg.inv(F1 @ A @ F1.conj().T), F2 @ B @ F1.conj().T
    middle = D @ X @ D.conj().T
    P = np.kron(np.eye(n2), P1)
    inner = P.T @ middle @ P
    if not n_coupled:  # the blocks of one channel with itself
        inner = inner * np.kron(np.eye(n2), np.ones((P1.shape[1], P1.shape[1])))
    K = P @ np.linalg.inv(factor * np.eye(len(inner)) + inner) @ P.T
    return (F1.conj().T @ (X - X @ D.conj().T @ K @ D @ X) @ F1).real


@pytest.mark.claim("MON-PropC1", "MON-EqC9", "MON-EqC10")
def test_the_smallest_example_of_the_printed_factor():
    identity = np.eye(4)  # s = r = 2, A = I, B keeps the first of four pixels: A + B'B = diag(2, 1, 1, 1)
    truth = np.diag([0.5, 1, 1, 1])
    assert_close(proposition_c1(identity, identity, 2, 2).real, truth, scale=1, tol=1e-15)
    assert_close(printed_c1(identity, identity, 2, 2, 16, True), np.diag([0.8, 1, 1, 1]), scale=1, tol=1e-14)


@pytest.mark.claim("MON-PropC1", "MON-EqC9", "MON-EqC10")
@pytest.mark.parametrize(("n1", "n2", "s", "r"), MATRICES)
def test_the_printed_forms_are_wrong(n1, n2, s, r):
    _, A, _, B_full, B = summands(np.random.default_rng(s), n1, n2, (s, s), (r, r))
    truth = np.linalg.inv(A + B.T @ B)
    assert np.abs(printed_c1(A, B_full, s, r, s * s * r * r, True) - truth).max() > 1e-2
    uncoupled = np.abs(printed_c1(A, B_full, s, r, r * r, False) - truth).max()
    assert uncoupled < 1e-13 if n2 == 1 else uncoupled > 1e-3


@pytest.mark.claim("MON-EqC11", "MON-EqC23")
@pytest.mark.parametrize(("a", "b"), [(1, 4), (2, 3), (3, 2), (4, 4)])
def test_perfect_shuffles(a, b):
    S = module.shuffle(a, b)
    np.testing.assert_array_equal(S.T, module.shuffle(b, a))
    np.testing.assert_array_equal(S @ np.arange(a * b), np.arange(a * b).reshape(a, b).T.ravel())
    X, Y = np.random.default_rng(a).normal(size=(a, a)), np.random.default_rng(b).normal(size=(b, b))
    np.testing.assert_array_equal(np.kron(X, Y), S.T @ np.kron(Y, X) @ S)


@pytest.mark.claim(
    "MON-EqC14", "MON-EqC16", "MON-EqC17", "MON-EqC18", "MON-EqC19", "MON-EqC20", "MON-EqC21", "MON-EqC22"
)
@pytest.mark.parametrize(("s", "r"), [(2, 2), (4, 2), (6, 3), (6, 2), (6, 6), (5, 1), (8, 4)])
def test_the_matrices_of_the_proof(s, r):
    U, T, L, P, F = (
        module.selection(s, r),
        module.kept(s, r),
        module.congruent(s, r),
        module.gather(s, r),
        module.dft(s),
    )
    np.testing.assert_array_equal(U.T @ U, np.kron(T, T))
    np.testing.assert_array_equal(U @ U.T, np.eye((s // r) ** 2))
    FTF = F @ T @ F.conj().T
    assert_close(FTF.real, L, scale=1, tol=1e-14)
    assert_close(FTF.imag, np.zeros_like(L), scale=1, tol=1e-14)
    printed = F / math.sqrt(s)  # with 1/s for the normalisation, L has the printed 1/(s r)
    assert_close((printed @ T @ printed.conj().T).real, L / s, scale=1, tol=1e-14)
    FUUF = np.kron(F, F) @ U.T @ U @ np.kron(F, F).conj().T
    assert_close(FUUF.real, P @ P.T / r**2, scale=1, tol=1e-14)
    x = np.random.default_rng(s).normal(size=(1, 1, s, s))
    np.testing.assert_array_equal(U @ x.ravel(), module.subsample(x, (r, r)).ravel())


@pytest.mark.claim("MON-EqC24")
@pytest.mark.parametrize(("s", "r", "by"), [(4, 2, 8.0), (6, 3, 20.8), (4, 4, 0.0)])
def test_the_last_page_swaps_the_shuffle_for_its_transpose(s, r, by):
    S, J = np.kron(np.eye(r), module.shuffle(s // r, s)), np.tile(np.eye((s // r) ** 2), (r * r, 1))
    L = r * module.congruent(s, r)
    np.testing.assert_array_equal(S.T @ J @ J.T @ S, np.kron(L, L))
    assert round(float(np.linalg.norm(S @ J @ J.T @ S.T - np.kron(L, L))), 1) == by


def test_unitary_dft_and_the_printed_one():
    F = module.dft(2)
    assert_close(np.linalg.norm(F @ F.conj().T - np.eye(2)), 0, scale=1, tol=1e-15)
    printed = F / math.sqrt(2)
    assert_close(np.linalg.norm(printed @ printed.conj().T - np.eye(2)), 0.5**0.5, scale=1, tol=1e-15)


# ------------------------------------------------------------------------------------------------
# Backends and bad input


def test_backends(backend):
    rng = np.random.default_rng(3)
    D_A, A, D_B, _, B = summands(rng, 2, 3, (4, 6), (2, 3))
    k = rng.normal(size=(3, 2, 3, 3))
    S, M = strided_convolution(backend(k), (4, 6), (2, 3), (3, 2)), dense_strided(k, (4, 6), (2, 3), (3, 2))
    x, y = rng.normal(size=(2, 2, 4, 6)), rng.normal(size=(2, 3, 3, 2))
    assert_close(flat(backend.numpy(S.matvec(backend(x)))), flat(x) @ M.T, scale=100, tol=8 * backend.eps)
    assert_close(flat(backend.numpy(S.rmatvec(backend(y)))), flat(y) @ M, scale=100, tol=8 * backend.eps)
    gradient = S.gradient(backend(y), backend(x), (3, 3))
    assert_close(
        backend.numpy(gradient),
        strided_convolution(k, (4, 6), (2, 3), (3, 2)).gradient(y, x, (3, 3)),
        scale=100,
        tol=backend.eps,
    )
    V = alias_inverse(*(_complex(backend, D) for D in (D_A, D_B)), (4, 6), (2, 3))
    desired = np.linalg.inv(A + B.T @ B)
    assert_close(flat(backend.numpy(V.matvec(backend(x)))), flat(x) @ desired.T, scale=10, tol=32 * backend.eps)
    assert V.matvec(backend(x)).dtype == backend(x).dtype


def _complex(backend, D):
    real, imaginary = (backend(part) for part in (D.real, D.imag))
    kernel = real + 0 * imaginary
    xp = module.namespace(kernel)
    dtype = xp.complex64 if kernel.dtype == xp.float32 else xp.complex128
    return xp.astype(real, dtype) + 1j * xp.astype(imaginary, dtype)


@pytest.mark.claim("MON-PropC1")
def test_refused_by_name():
    kernel = np.ones((1, 1, 3, 3))
    with pytest.raises(HypothesisError, match=r"stride must divide size \[MON-PropC1\].*side of 9.*8 or 10.*1, 3, 9"):
        strided_convolution(kernel, (8, 9), 2)
    with pytest.raises(HypothesisError, match=r"A side of 5 would do, or a stride among 1, 3"):
        strided_convolution(kernel, (3, 3), 5)
    for bad in (0, -1, 1.5, "2", (2,), (2, 2, 2), None):
        with pytest.raises(HypothesisError, match="stride must be an integer >= 1"):
            strided_convolution(kernel, (4, 4), bad)
    with pytest.raises(ShapeError, match=r"out must be at least size/stride = \(2, 2\)"):
        strided_convolution(kernel, (4, 4), 2, (2, 1))
    with pytest.raises(ShapeError, match="kernel must"):
        strided_convolution(np.ones((3, 3)), (4, 4))
    with pytest.raises(TypeError, match="kernel must be an array"):
        strided_convolution([[1.0]], (4, 4))
    with pytest.raises(HypothesisError, match="float16"):
        strided_convolution(kernel.astype(np.float16), (4, 4))


def test_a_map_is_data():
    S = strided_convolution(np.ones((2, 1, 3, 3)), (4, 4))
    assert isinstance(S, StridedMap)
    assert (S.size, S.stride, S.out) == ((4, 4), (2, 2), (2, 2))
