"""Well-posedness: CONE maps, Perron eigenvalues, P-matrices, the certificate, Picard's iteration, the projection."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import hypothesis
import mpmath
import numpy as np
import oracles
import pytest
import scipy.linalg
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st
from laws import ACTIVATIONS
from oracles import assert_close, size

import implicitref as ir

wp, relu = ir.well_posed, ir.activations.relu
identity = ir.activations.leaky_relu(1.0)
seeds = st.integers(0, 2**32 - 1)


def scaled(rng, n, rho):
    """A random matrix with Perron eigenvalue rho, of either sign, with zeros."""
    A = rng.normal(size=(n, n)) * (rng.uniform(size=(n, n)) < 0.8)
    return A * (rho / max(np.abs(np.linalg.eigvals(np.abs(A))).max(), 0.1))


def equation(seed, activation, n=4, rho=0.9, batch=5):
    """A, b and the solution x, which was chosen first."""
    rng = np.random.default_rng(seed)
    A, pre = scaled(rng, n, rho), 2 * rng.normal(size=(batch, n))
    x = oracles.DEFINITIONS[repr(activation)]["sigma"](pre)
    return A, pre - x @ A.T, x


# ------------------------------------------------------------------------------------------------
# CONE maps


@pytest.mark.claim("GREEDY-Def2")
@pytest.mark.claim("GREEDY-Asm1")
@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=repr)
def test_every_activation_is_a_cone_map(activation):
    rng = np.random.default_rng(0)
    x = 3 * rng.normal(size=(400, 5))
    y = x + 10 ** rng.uniform(-15, 1, (400, 1)) * rng.normal(size=x.shape)
    y[::3, 0] = x[::3, 0]
    assert wp.is_cone(activation)
    assert wp.cone_ratio(activation, x, y) <= 1
    assert wp.cone_ratio(activation, x, x + 1e-3 * rng.normal(size=x.shape)) > 0.2


@pytest.mark.claim("GREEDY-Def2")
@pytest.mark.parametrize(
    "phi",
    [
        lambda x: np.maximum(x, 1.01 * x),
        lambda x: np.exp(x) / np.exp(x).sum(axis=1, keepdims=True),  # looks at its neighbours
        lambda x: np.roll(np.tanh(x), 1, axis=1),
        lambda x: (x > 0).astype(float),
    ],
    ids=["leaky 1.01", "softmax", "shift", "step"],
)
def test_what_is_no_cone_map_is_refuted(phi):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 200, 3))
    y[::2, 0] = x[::2, 0]
    assert not wp.is_cone(phi)
    assert wp.cone_ratio(phi, x, y) > 1


# ------------------------------------------------------------------------------------------------
# the Perron eigenvalue


def test_perron_of_every_kind_of_matrix():
    n = 7
    cycle = np.roll(np.eye(n), 1, axis=0)
    weights = 10.0 ** np.linspace(-150, 150, n)[:, None]
    for A, value in [
        (np.zeros((3, 3)), 0.0),
        (np.array([[-0.75]]), 0.75),
        (np.triu(np.ones((n, n)), 1), 0.0),  # nilpotent
        (np.triu(np.full((n, n), 1e6)) * (1 - np.eye(n)) + np.diag([-0.5, *[0.25] * (n - 1)]), 0.5),
        (cycle, 1.0),
        (cycle * weights, 1.0),  # the geometric mean
        (np.array([[0.0, 1e-300], [1e300, 0.0]]), 1.0),
        (np.full((n, n), -1 / n), 1.0),
        (np.kron(np.eye(2), np.array([[1.0, -1.0], [1.0, 0.0]])), (1 + 5**0.5) / 2),
        (np.array([[1e-310, 0.0], [1.0, 0.0]]), 1e-310),
    ]:
        low, high = wp.perron_interval(A)
        assert low - 4e-16 * value <= value <= high + 4e-16 * value  # the value itself is rounded
        assert high - low <= 1e-12 * value
        assert wp.perron(A) == high


@pytest.mark.claim("GREEDY-SecI-perron")
@given(seed=seeds, n=st.integers(2, 5))
def test_perron_interval_holds_the_largest_eigenvalue_in_fifty_digits(seed, n):
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(n, n)) * (rng.uniform(size=(n, n)) < 0.6) * 10.0 ** rng.integers(-4, 5)
    with mpmath.workdps(50):
        # all cyclic classes: of |A| + shift the Perron eigenvalue is simple and the only one of its modulus
        shift = float(np.abs(A).max()) + 1
        M = mpmath.matrix(np.abs(A).tolist()) + shift * mpmath.eye(n)
        exact = max(mpmath.re(v) for v in mpmath.eig(M, left=False, right=False)) - shift
        low, high = wp.perron_interval(A)
        # a defective eigenvalue of order k is found to 50/k digits
        assert low - 1e-9 * shift <= exact <= high + 1e-9 * shift
        assert high - low <= 1e-13 * n * high


@pytest.mark.claim("GREEDY-SecI-perron")
@given(seed=seeds, n=st.integers(1, 8))
def test_quotients_of_any_positive_vector_enclose(seed, n):
    rng = np.random.default_rng(seed)
    M, v = np.abs(scaled(rng, n, 1.0)), rng.uniform(0.1, 10, n)
    low, high = wp.collatz_wielandt(M, v)
    assert low <= wp.perron(M) <= high
    assert_close(high, max((M @ v) / v), scale=1 + high, tol=1e-13)


@pytest.mark.claim("GREEDY-SecI-perron")
def test_perron_eigenvalue_need_not_be_larger_than_the_others():
    A = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert_close(np.sort(np.linalg.eigvals(A)), [-1, 1], scale=1.0, tol=1e-15)
    assert_close(wp.perron(A), 1.0, scale=1.0, tol=1e-14)


@pytest.mark.claim("GREEDY-SecII-norm")
@given(seed=seeds, n=st.integers(1, 8))
def test_perron_is_at_most_the_norm_and_invariant(seed, n):
    rng = np.random.default_rng(seed)
    A, p, d = rng.normal(size=(n, n)), rng.permutation(n), 2.0 ** rng.integers(-5, 6, n)
    low, high = wp.perron_interval(A)
    assert low <= wp.norm_inf(A) * (1 + 1e-15)
    for other in (A[np.ix_(p, p)], A.T, -A, A * d[:, None] / d):
        assert_close(wp.perron(other), high, scale=high, tol=1e-13)
    assert wp.perron(A * rng.uniform(0, 1, (n, n))) <= high


@pytest.mark.claim("GREEDY-SecII-norm")
def test_equality_and_nonconvexity():
    for A in (np.array([[0.5]]), np.zeros((2, 2)), np.full((3, 3), -0.2)):
        assert_close(wp.perron(A), wp.norm_inf(A), scale=1.0, tol=1e-14)
    one = np.array([[0.0, 4.0], [0.0, 0.0]])
    assert wp.perron(one) == wp.perron(one.T) == 0
    assert_close(wp.perron((one + one.T) / 2), 2.0, scale=1.0, tol=1e-14)


def test_a_large_matrix_and_float32():
    A = np.random.default_rng(0).normal(size=(100, 100)).astype(np.float32)
    exact = np.abs(np.linalg.eigvals(np.abs(A).astype(float))).max()
    assert_close(wp.perron(A), exact, scale=exact, tol=1e-12)


# ------------------------------------------------------------------------------------------------
# relu


def minors(M):
    """The signs of all principal minors, by Laplace's formula on fractions."""

    def det(rows):
        if not rows:
            return Fraction(1)
        tails = [row[1:] for row in rows]
        return sum((-1) ** i * row[0] * det(tails[:i] + tails[i + 1 :]) for i, row in enumerate(rows))

    n = len(M)
    for k in range(1, n + 1):
        for S in itertools.combinations(range(n), k):
            yield det([[M[i][j] for j in S] for i in S])


@pytest.mark.claim("GREEDY-Def1", "NEW-relu-wellposed")
@given(seed=seeds, n=st.integers(1, 4), integers=st.booleans())
def test_p_matrix_test_against_all_minors(seed, n, integers):
    rng = np.random.default_rng(seed)
    A = rng.integers(-2, 3, size=(n, n)).astype(float) if integers else rng.normal(size=(n, n)) / n**0.5
    G = [[(i == j) - Fraction(A[i, j]) for j in range(n)] for i in range(n)]
    assert wp.relu_well_posed(A) == all(value > 0 for value in minors(G))
    M = np.eye(n) * rng.integers(0, 4) + A
    assert wp.is_p_matrix(M) == all(value > 0 for value in minors([[Fraction(x) for x in row] for row in M]))


@pytest.mark.claim("GREEDY-Def1", "NEW-relu-wellposed")
@pytest.mark.claim("GREEDY-Eq1")
@given(seed=seeds, n=st.integers(1, 4))
def test_relu_has_one_solution_for_every_b_or_two_for_some(seed, n):
    rng = np.random.default_rng(seed)
    A = 1.5 * rng.normal(size=(n, n))
    G = np.eye(n) - A
    if wp.relu_well_posed(A):
        assert [solutions(G, b) for b in rng.normal(size=(20, n))] == [1] * 20
    else:
        # det G[S] < 0 has a real eigenvalue < 0: z_i (G z)_i <= 0 for its vector, 0 outside S, so that the parts
        # z+ and z- both solve the equation with b = G z+ - (G z)+ = G z- - (G z)-
        subsets = (list(S) for k in range(1, n + 1) for S in itertools.combinations(range(n), k))
        S = next(S for S in subsets if np.linalg.det(G[np.ix_(S, S)]) <= 0)
        values, vectors = np.linalg.eig(G[np.ix_(S, S)])
        z = np.zeros(n)
        z[S] = vectors[:, np.argmin(np.where(np.abs(values.imag) < 1e-12, values.real, np.inf))].real
        up, down = np.maximum(z, 0), np.maximum(-z, 0)
        b = G @ up - np.maximum(G @ z, 0)
        for x in (up, down):
            assert_close(np.maximum(A @ x + b, 0), x, scale=size(A), tol=1e-12)
        assert np.abs(up - down).max() > 0.1


def solutions(G, b):
    """How many z solve z >= 0, G z - b >= 0, z (G z - b) = 0: one linear system for each set of active entries."""
    found = 0
    for active in itertools.product([False, True], repeat=len(b)):
        on, z = np.array(active), np.zeros(len(b))
        if on.any():
            z[on] = np.linalg.solve(G[np.ix_(on, on)], b[on])
        found += bool((z[on] > 0).all() and (G @ z - b)[~on].min(initial=1) >= 0)
    return found


@pytest.mark.claim("GREEDY-Def1", "NEW-relu-wellposed")
def test_p_matrix_test_is_exact_where_floating_point_is_not():
    tiny = 2.0**-52
    assert wp.is_p_matrix(np.array([[1.0, 1.0], [1.0, 1.0 + tiny]]))
    assert not wp.is_p_matrix(np.array([[1.0, 1.0], [1.0, 1.0]]))
    assert not wp.is_p_matrix(np.array([[1.0, 1.0 + tiny], [1.0, 1.0]]))
    # I - A has the minor 1e-20, which no floating-point I - A shows
    assert wp.relu_well_posed(np.array([[0.0, -1.0], [-1.0, -1e-20]]))
    assert not wp.relu_well_posed(np.array([[0.0, -1.0], [-1.0, 1e-20]]))
    assert wp.relu_well_posed(np.array([[1.0 - tiny / 2]]))
    assert not wp.relu_well_posed(np.array([[1.0]]))
    assert wp.is_p_matrix(np.diag([1.0, 1e-310]))  # a pivot below the smallest normal number
    assert wp.is_p_matrix(scipy.linalg.hilbert(9))  # the minors fall to 1e-42
    third = np.full((3, 3), 1.0) + np.diag([0.0, 1e-16, 1e-16])  # 1 + 1e-16 is 1: rank one
    assert not wp.is_p_matrix(third)


@pytest.mark.claim("NEW-relu-wellposed")
@pytest.mark.parametrize("size_of_errors", [0.0, 1e-15, 1e-8, 0.1, 0.4])
def test_doubts_of_a_schur_complement_cover_errors_and_rounding(size_of_errors):
    """Matrices anywhere within the errors, also in the corners, where they add up; complements near 0 and far from."""
    rng = np.random.default_rng(0)
    attained = []
    for trial in range(300):
        node = rng.normal(size=(2, 2)) * 10.0 ** rng.integers(-2, 3, size=(2, 2))
        if trial % 3 == 0:
            node[1, 1] = node[1, 0] / node[0, 0] * node[0, 1]  # cancels: the complement is rounding
        errors = np.abs(node) * size_of_errors * rng.uniform(0.5, 1, size=(2, 2))
        found, doubt = (part[0, 0, 0] for part in wp._schur(node[None], errors[None]))
        for corner in itertools.product((-1, 1), repeat=4):
            near = [
                [Fraction(v) + s * Fraction(e) for v, e, s in zip(*row, strict=True)]
                for row in zip(node.tolist(), errors.tolist(), np.reshape(corner, (2, 2)).tolist(), strict=True)
            ]
            exact = near[1][1] - near[1][0] * near[0][1] / near[0][0]
            off = abs(exact - Fraction(float(found)))
            assert off <= Fraction(float(doubt))
            attained.append(float(off / Fraction(float(doubt))))
    assert max(attained) > (0.2 if size_of_errors < 1e-14 else 0.99)  # and no larger than it must be


@pytest.mark.claim("NEW-relu-wellposed")
def test_the_sign_of_a_pivot_in_doubt_leaves_everything_in_doubt():
    _, doubt = wp._schur(np.ones((1, 2, 2)), np.full((1, 2, 2), 1.0))
    assert doubt[0, 0, 0] == math.inf


@pytest.mark.claim("GREEDY-Thm1", "NEW-relu-wellposed")
@given(seed=seeds, n=st.integers(1, 7))
def test_a_perron_eigenvalue_below_one_and_monotonicity_are_sufficient_for_relu(seed, n):
    rng = np.random.default_rng(seed)
    assert wp.relu_well_posed(scaled(rng, n, 0.99))
    K, R = rng.normal(size=(2, n, n))
    assert wp.relu_well_posed(np.eye(n) - (0.1 * np.eye(n) + R @ R.T + K - K.T))


# ------------------------------------------------------------------------------------------------
# the certificate


@pytest.mark.claim("NEW-cert-G1")
@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=repr)
def test_bound_holds_for_any_state(activation):
    rng = np.random.default_rng(1)
    for seed, rho in enumerate([0.0, 0.3, 0.9, 0.99]):
        A, b, exact = equation(seed, activation, rho=rho)
        for length in (0.0, 1e-9, 1e-3, 1.0, 30.0):
            x = exact + length * rng.normal(size=exact.shape)
            # b was rounded when it was made: the exact solution is off by that much
            assert (np.abs(x - exact) <= wp.bound(A, x, b, activation) + 1e-14 / (1 - rho)).all()


@pytest.mark.claim("NEW-cert-G1")
def test_the_margin_of_the_comparison_is_below_its_exact_value():
    # w - |A| w > 0 is what every bound divides by: in fractions it is no smaller than the number that is used
    for seed in range(40):
        A = scaled(np.random.default_rng(seed), 1 + seed % 4, 0.99)
        M, _, w, gap = wp._comparison(A)
        products = [[Fraction(a) * Fraction(x) for a, x in zip(row, w.tolist(), strict=True)] for row in M.tolist()]
        exact = [Fraction(x) - sum(row) for x, row in zip(w.tolist(), products, strict=True)]
        assert all(Fraction(g) <= e for g, e in zip(gap.tolist(), exact, strict=True))


def solved_in_fractions(M, r):
    """(I - M)^-1 r by elimination; M is an M-matrix's complement, so that no pivot is 0."""
    n = len(r)
    rows = [[Fraction(i == j) - Fraction(M[i][j]) for j in range(n)] + [Fraction(r[i])] for i in range(n)]
    for i in range(n):
        rows[i] = [v / rows[i][i] for v in rows[i]]
        for k in range(n):
            if k != i:
                rows[k] = [a - rows[k][i] * b for a, b in zip(rows[k], rows[i], strict=True)]
    return [row[-1] for row in rows]


@pytest.mark.claim("NEW-cert-G1")
@pytest.mark.parametrize("gap", [1.0, 0.95, 0.7, 1e-2, 1e-6, 1e-10])
def test_amplified_residuals_are_no_smaller_than_in_fractions(gap):
    """Also where 1 - rho is a few thousand units of rounding, which a bound without its rounding terms falls below."""
    for seed in range(150):
        rng = np.random.default_rng(seed)
        n = 1 + seed % 3
        M = scaled(rng, n, 1 - gap) if gap < 1 else np.zeros((n, n))
        comparison, r = wp._comparison(np.abs(M)), rng.uniform(size=(2, n)) * 10.0 ** rng.integers(-3, 3)
        found = wp._amplified(comparison, r)
        for k in range(2):
            exact = solved_in_fractions(comparison.magnitude.tolist(), r[k].tolist())
            assert all(Fraction(f) >= e for f, e in zip(found[k].tolist(), exact, strict=True))
            assert found[k].max() <= float(max(exact)) * (1 + 1e-13 / gap)


@pytest.mark.claim("NEW-cert-G1")
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_bound_of_one_unit_covers_the_rounding_of_its_residual(dtype):
    """At least |x - relu(a x + b)|/(1 - |a|), in fractions; with cancellation, and with x far away."""
    rng = np.random.default_rng(0)
    for trial in range(300):
        a = float(dtype(rng.uniform(-0.9, 0.9))) if trial % 2 else 0.0
        x = dtype(rng.normal() * 10.0 ** rng.integers(0, 7))
        b = dtype(-a * x + (rng.uniform(0, 1e-6) if trial % 3 else rng.uniform(0, 1)))
        found = wp.bound(np.array([[a]], dtype), np.array([[x]]), np.array([[b]]), relu)
        exact = abs(Fraction(float(x)) - max(Fraction(a) * Fraction(float(x)) + Fraction(float(b)), 0)) / (
            1 - abs(Fraction(a))
        )
        assert Fraction(float(found[0, 0])) >= exact


@pytest.mark.claim("NEW-cert-G1")
@pytest.mark.parametrize("n", [1, 3, 5])
@pytest.mark.parametrize("activation", [relu, ir.activations.soft_threshold(1.0)], ids=str)
def test_bound_covers_sums_that_cancel(n, activation):
    """The rounding of a pre-activation that is large beside the state: in fractions no more than the bound."""
    rng, shrink = np.random.default_rng(n), activation is not relu
    for _ in range(200):
        A, b, x = np.zeros((n, n)), np.abs(rng.normal(size=n)), np.zeros((1, n))
        A[0, 1:], x[0, 1:] = rng.normal(size=n - 1) / (1e9 if shrink else 1e-6), b[1:]
        b[1:] += shrink
        b[0] = rng.uniform(0, 1e-6) - A[0] @ x[0] + shrink
        pre = x @ A.T + b
        x[0] = activation(pre)[0]
        terms = zip(A.tolist()[0], x[0].tolist(), strict=True)
        exact = max(sum(Fraction(a) * Fraction(v) for a, v in terms) + Fraction(b[0]) - shrink, 0)
        assert Fraction(wp.bound(A, x, b[None], activation)[0, 0]) >= abs(Fraction(x[0, 0]) - exact)


@pytest.mark.claim("NEW-cert-G1")
@given(seed=seeds, n=st.integers(1, 6), rho=st.sampled_from([0.5, 0.9, 0.999]))
def test_bound_covers_rounding(seed, n, rho):
    A, b, x = equation(seed, relu, n, rho)
    long, start = np.longdouble, x.astype(np.longdouble)
    on = (start > 0)[:, :, None] * np.ones(n)
    for _ in range(3):  # the active set is known: Newton steps in extended precision, inverses in double
        residual = start - np.maximum(start @ A.T.astype(long) + b.astype(long), 0)
        jacobians = np.eye(n) - on * A
        start = start - np.linalg.solve(jacobians, residual.astype(float)[:, :, None])[:, :, 0]
    z = start.astype(float)
    error, found = np.abs(z - start), wp.bound(A, z, b, relu)
    assert (error <= found).all()
    assert found.max() <= 1e-13 * size(b, x) / (1 - rho)


@pytest.mark.claim("NEW-cert-G1")
@given(seed=seeds, n=st.integers(1, 6))
def test_bound_is_attained(seed, n):
    rng = np.random.default_rng(seed)
    A, x = np.abs(scaled(rng, n, 0.9)), rng.normal(size=(2, n))
    b = x @ (np.eye(n) - A).T
    away = x + np.linalg.solve(np.eye(n) - A, rng.uniform(size=(n, 2))).T  # the residual is >= 0
    error = away - x
    assert_close(wp.bound(A, away, b, identity), error, scale=size(error), tol=1e-12)


@pytest.mark.claim("NEW-cert-G1")
@given(seed=seeds, n=st.integers(1, 6))
def test_adjoint_bound_holds_and_is_attained(seed, n):
    rng = np.random.default_rng(seed)
    A, jac, dx = scaled(rng, n, 0.9), rng.uniform(size=(3, n)), rng.normal(size=(3, n))
    exact = oracles.implicit_dpre(A, jac, dx)
    q = exact + 10 ** rng.uniform(-6, 1) * rng.normal(size=exact.shape)
    assert (np.abs(q - exact) <= wp.adjoint_bound(A, q, jac, dx) + 1e-13).all()
    A, ones = np.abs(A), np.ones_like(jac)
    exact = oracles.implicit_dpre(A, ones, dx)
    q = exact + oracles.implicit_dpre(A, ones, rng.uniform(size=dx.shape))
    assert_close(wp.adjoint_bound(A, q, ones, dx), q - exact, scale=size(q, exact), tol=1e-12)


def test_a_bound_without_the_inverse_would_be_noticed():
    A, b, exact = equation(0, relu, rho=0.9)
    x = np.zeros_like(b)
    residual = np.abs(x - np.maximum(x @ A.T + b, 0))
    assert (np.abs(x - exact) > residual + 1e-3).any()


# ------------------------------------------------------------------------------------------------
# Picard's iteration


@pytest.mark.claim("GREEDY-Thm1")
@pytest.mark.claim("GREEDY-Eq1")
@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=repr)
def test_picard_finds_the_solution_from_any_start(activation):
    for seed, rho in enumerate([0.0, 0.5, 0.95]):
        A, b, exact = equation(seed, activation, rho=rho)
        for start in (None, 100 * np.random.default_rng(seed).normal(size=b.shape)):
            found = wp.solve(A, b, activation, tol=1e-11, start=start)
            assert found.converged.all()
            assert found.bound.max() <= 1e-11
            assert (np.abs(found.z - exact) <= found.bound + 1e-13).all()


@pytest.mark.claim("GREEDY-Asm3")
@given(seed=seeds, n=st.integers(1, 8))
def test_strictly_triangular_matrices_are_solved_exactly_in_n_steps(seed, n):
    rng = np.random.default_rng(seed)
    A, b = 5 * np.triu(rng.normal(size=(n, n)), 1), rng.normal(size=(2, n))
    assert wp.perron(A) == 0
    states = list(itertools.islice(wp.picard(A, b, ir.activations.tanh, b), n + 1))
    assert np.array_equal(states[n - 1], states[n])


@pytest.mark.claim("GREEDY-Asm3")
@given(seed=seeds, n=st.integers(1, 8))
def test_the_diagonal_decides_where_loops_are_allowed(seed, n):
    A = np.triu(np.random.default_rng(seed).normal(size=(n, n)))
    assert wp.perron(A) == np.abs(np.diag(A)).max()


@pytest.mark.claim("GREEDY-Thm1")
def test_a_well_posed_equation_on_which_picard_cycles():
    A, b = np.array([[-2.0]]), np.array([[1.0]])
    assert wp.relu_well_posed(A)
    states = [float(x[0, 0]) for x in itertools.islice(wp.picard(A, b, relu, 0 * b), 6)]
    assert states == [1, 0, 1, 0, 1, 0]
    assert np.maximum(A * (b / 3) + b, 0) == pytest.approx(1 / 3)
    with pytest.raises(ir.HypothesisError, match=r"it is 2\b.*peaceman-rachford"):
        wp.solve(A, b, relu)


def test_picard_says_why_it_stopped():
    A, b, _ = equation(0, relu, rho=0.99)
    with pytest.raises(ir.ConvergenceError, match=r"after 3 iterations.*raise max_iter") as caught:
        wp.solve(A, b, relu, max_iter=3)
    assert not caught.value.solution.converged.all()
    assert caught.value.solution.bound.max() > 1e-6
    with pytest.raises(ir.ConvergenceError, match="larger tol"):
        wp.solve(A, b, relu, tol=1e-18)
    with pytest.raises(ir.ConvergenceError, match="pass float64"):
        wp.solve(A.astype(np.float32), b.astype(np.float32), relu, tol=1e-8)


def test_scales_of_the_entries_do_not_matter():
    # perron(A) = 0.5 with entries of 1e20: row and column scaling, which changes nothing but the units
    units = 10.0 ** np.array([20.0, 0.0, -20.0])
    A = np.triu(np.ones((3, 3)), 1) + 0.5 * np.eye(3)
    b = np.ones((1, 3))
    desired = wp.solve(A, b, relu, tol=1e-12).z
    bound = wp.bound(A * units[:, None] / units, desired * units, b * units, relu)
    assert (bound <= 1e-10 * desired * units).all()


def test_an_empty_batch_is_solved():
    assert wp.solve(np.zeros((2, 2)), np.zeros((0, 2)), relu).z.shape == (0, 2)


# ------------------------------------------------------------------------------------------------
# the projection


def nearest(a, radius):
    """The projection of one row by a general solver; it has the signs of a."""
    size = np.abs(a)
    found = scipy.optimize.minimize(
        lambda v: ((v - size) ** 2).sum() / 2,
        np.zeros(len(a)),
        jac=lambda v: v - size,
        bounds=[(0, None)] * len(a),
        constraints={"type": "ineq", "fun": lambda v: radius - v.sum(), "jac": lambda v: -np.ones(len(a))},
        method="SLSQP",
        options={"ftol": 1e-16, "maxiter": 300},
    )
    return np.sign(a) * found.x


@pytest.mark.claim("GREEDY-Rem4")
@given(seed=seeds, n=st.integers(1, 4), radius=st.sampled_from([0.1, 1.0, 3.0]))
@hypothesis.settings(max_examples=10)
def test_projection_against_a_quadratic_programme(seed, n, radius):
    A = np.random.default_rng(seed).normal(size=(n, n))
    desired = np.stack([nearest(a, radius) for a in A])
    assert_close(wp.project(A, radius), desired, scale=size(A), tol=1e-10)


@pytest.mark.claim("GREEDY-Rem4")
@given(seed=seeds, n=st.integers(1, 30), radius=st.floats(1e-3, 20), spread=st.sampled_from([0, 3]))
def test_projection_is_the_nearest_matrix(seed, n, radius, spread):
    # p is nearest to a in the ball iff <a - p, y - p> <= 0 for its extreme points y: radius max|a - p| <= <a - p, p>
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(n, n)) * 10.0 ** rng.uniform(-spread, spread, (n, n))
    A[rng.uniform(size=(n, n)) < 0.2] = 1.0  # ties
    p = wp.project(A, radius)
    assert wp.norm_inf(p) <= radius * (1 + 1e-14) + 1e-15 * n * np.abs(A).max()
    gap = radius * np.abs(A - p).max(axis=1) - ((A - p) * p).sum(axis=1)
    assert_close(np.maximum(gap, 0), np.zeros(n), scale=size(A) ** 2 * n, tol=1e-13)
    assert_close(wp.project_by_bisection(A, radius), p, scale=size(A), tol=1e-13)
    inside = np.abs(A).sum(axis=1) <= radius * (1 - 1e-12)
    assert np.array_equal(p[inside], A[inside])


@pytest.mark.claim("GREEDY-Rem4")
@given(seed=seeds, n=st.integers(1, 10), radius=st.sampled_from([0.1, 0.95, 5.0]))
def test_projection_is_idempotent_firmly_nonexpansive_and_scales(seed, n, radius):
    A, E = np.random.default_rng(seed).normal(size=(2, n, n))
    p, q = wp.project(A, radius), wp.project(E, radius)
    assert_close(wp.project(p, radius), p, scale=size(p), tol=1e-13)
    assert ((p - q) ** 2).sum() <= ((p - q) * (A - E)).sum() + 1e-13 * size(A, E) ** 2 * n
    assert_close(wp.project(4 * A, 4 * radius), 4 * p, scale=4 * size(p), tol=1e-14)


def test_a_wrong_projection_is_noticed():
    # scaling the rows back is feasible, and no projection
    A = np.array([[2.0, 0.5], [0.0, 0.0]])
    scaled_back = A / np.maximum(1, np.abs(A).sum(axis=1, keepdims=True))
    assert np.linalg.norm(A - wp.project(A, 1.0)) < np.linalg.norm(A - scaled_back) - 0.1


@pytest.mark.claim("GREEDY-SecII-relaxation")
def test_the_ball_is_inside_what_is_well_posed_and_smaller():
    rng = np.random.default_rng(0)
    for _ in range(50):
        assert wp.perron(wp.project(3 * rng.normal(size=(5, 5)), 0.99)) < 1
    outside = np.array([[0.0, 5.0], [0.0, 0.0]])  # well-posed, and not in the ball
    assert wp.perron(outside) == 0
    assert wp.norm_inf(outside) == 5
    assert_close(wp.norm_inf(wp.project(outside, 0.99)), 0.99, scale=1.0, tol=1e-15)


# ------------------------------------------------------------------------------------------------
# every library, and bad input


def test_backends_agree(backend):
    # `solve` and the bound that it returns are in the gradients of test_implicit_model.py
    A, _, _ = equation(3, relu, rho=0.8)
    for project in (wp.project, wp.project_by_bisection):
        assert_close(backend.numpy(project(backend(A), 0.5)), project(A, 0.5), scale=size(A), tol=16 * backend.eps)
    assert_close(wp.perron(backend(A)), 0.8, scale=1.0, tol=1e-6 if not backend.double else 1e-12)
    assert wp.relu_well_posed(backend(A))


def test_picard_stops_as_soon_as_its_certificate_allows():
    """z = z/2 + 1: after k steps both the change and the distance to 2 are 2^(1-k), known beforehand."""
    for tol in (1e-3, 1e-6, 1e-9):
        solution = wp.solve(np.array([[0.5]]), np.array([[1.0]]), relu, tol=tol)
        assert solution.iterations == math.ceil(1 - math.log2(tol))
    # x_1 as before, x_2 = 10 x_1: what is left of x_1 counts twentyfold for x_2, and that of x_2 not at all for x_1
    solution = wp.solve(np.array([[0.5, 0.0], [10.0, 0.0]]), np.array([[1.0, 0.0]]), relu, tol=1e-6)
    assert solution.iterations == math.ceil(1 + math.log2(20 / 1e-6))


@pytest.mark.claim("NEW-cert-G1")
def test_bound_covers_cancellation_inside_the_activation():
    """Sums of a thousand that leave a thousandth: their rounding is in the bound of a state that is nearly exact."""
    rng, shrink = np.random.default_rng(0), ir.activations.soft_threshold(1000.0)
    for _ in range(200):
        a, x = -rng.uniform(0, 0.9), rng.uniform(0, 1e-3)
        b = 1000.0 + x * (1 - a)
        found = wp.bound(np.array([[a]]), np.array([[x]]), np.array([[b]]), shrink)
        image = Fraction(a) * Fraction(x) + Fraction(b) - 1000
        assert Fraction(float(found[0, 0])) >= abs(Fraction(x) - image) / (1 - abs(Fraction(a)))


def test_bound_of_single_precision_covers_it():
    A, b, _ = equation(3, ir.activations.tanh, rho=0.8)
    A, b = A.astype(np.float32), b.astype(np.float32)
    exact = wp.solve(A.astype(float), b.astype(float), ir.activations.tanh, tol=1e-12).z
    for x in (exact.astype(np.float32), np.zeros_like(b)):
        found = wp.bound(A, x, b, ir.activations.tanh)
        assert found.dtype == np.float32
        assert (np.abs(x - exact) <= found).all()
    assert wp.bound(A, exact.astype(np.float32), b, ir.activations.tanh).max() < 1e-5


@pytest.mark.parametrize("radius", [0, -1.0, math.nan, math.inf, "1", None])
@pytest.mark.parametrize("project", [wp.project, wp.project_by_bisection])
def test_a_radius_is_positive(project, radius):
    with pytest.raises(ir.HypothesisError, match=r"radius must be a .*number > 0"):
        project(np.eye(2), radius)


FUNCTIONS = [
    wp.perron,
    wp.perron_interval,
    wp.norm_inf,
    wp.relu_well_posed,
    wp.is_p_matrix,
    lambda A: wp.project(A, 1.0),
]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_matrices_are_square_and_finite(function):
    with pytest.raises(ir.ShapeError, match="must be square"):
        function(np.zeros((2, 3)))
    with pytest.raises(ir.ShapeError, match="must be square"):
        function(np.zeros((0, 0)))
    with pytest.raises(ir.ShapeError, match="2 axes"):
        function(np.zeros(3))
    with pytest.raises(ir.HypothesisError, match="1 NaN"):
        function(np.array([[math.nan]]))
    with pytest.raises(ir.HypothesisError, match="int64"):
        function(np.eye(2, dtype=np.int64))
    with pytest.raises(TypeError, match="list"):
        function([[1.0]])


def test_bound_refuses_what_violates_the_theorem():
    A, b = np.array([[0.0, 1.25], [1.0, 0.5]]), np.ones((1, 2))
    with pytest.raises(ir.HypothesisError, match=r"perron\(A\) must be < 1 .*GREEDY-Thm1.*it is 1.39564"):
        wp.bound(A, b, b, relu)
    with pytest.raises(ir.HypothesisError, match=r"it is 1\b"):
        wp.bound(np.eye(2), b, b, relu)
    A = A / 3
    with pytest.raises(ir.HypothesisError, match="CONE map"):
        wp.bound(A, b, b, np.square)
    with pytest.raises(ir.ShapeError, match=r"b must have shape \(batch, 2\)"):
        wp.bound(A, np.ones((1, 3)), np.ones((1, 3)), relu)
    with pytest.raises(ir.ShapeError, match=r"x must have shape \(1, 2\)"):
        wp.bound(A, np.ones((2, 2)), b, relu)
    with pytest.raises(ir.ShapeError, match=r"b\[None\]"):
        wp.solve(A, b[0], relu)
    with pytest.raises(ir.HypothesisError, match=r"\[-1, 1\]"):
        wp.adjoint_bound(A, b, 2 * b, b)
    with pytest.raises(ir.HypothesisError, match="tol"):
        wp.solve(A, b, relu, tol=0)
    with pytest.raises(ir.HypothesisError, match="max_iter"):
        wp.solve(A, b, relu, max_iter=0)


def test_p_matrix_test_refuses_what_would_take_for_ever():
    with pytest.raises(ir.HypothesisError, match="n <= 20; got n = 21"):
        wp.relu_well_posed(np.zeros((21, 21)))


def test_arguments_are_left_alone():
    A, b, _ = equation(0, relu)
    before = A.copy(), b.copy()
    wp.solve(A, b, relu), wp.project(A, 0.1), wp.perron(A), wp.relu_well_posed(A)
    assert np.array_equal(A, before[0])
    assert np.array_equal(b, before[1])
