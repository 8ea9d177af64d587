"""The theory of FPN and JFB: constants that hold, and are attained; thresholds that random draws and searches meet."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings, target
from hypothesis import strategies as st
from oracles import assert_close, size
from strategies import orthogonal

import implicitref as ir

fp = ir.fixed_point
theory = fp.theory
GAMMAS = pytest.mark.parametrize("gamma", [0.1, 0.5, 0.8, 0.95])


def matrices(rng, count, n, gamma):
    """Random K with ||K||_2 = gamma exactly, half of them multiples of orthogonal matrices."""
    U, _, V = np.linalg.svd(rng.normal(size=(count, n, n)))
    s = rng.uniform(size=(count, n)) ** rng.choice([0.0, 1.0], size=(count, 1))
    s[:, 0] = 1
    return gamma * (U * s[:, None, :]) @ V


# ------------------------------------------------------------------------------------------------
# Lipschitz constants


@pytest.mark.claim("JFB-Asm2.1")
@pytest.mark.claim("FPN-Eq5")
@pytest.mark.claim("FPN-Eq6")
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 8), columns=st.integers(1, 8), k=st.integers(0, 8))
def test_proven_bounds_of_a_matrix(seed, rows, columns, k):
    W = np.random.default_rng(seed).normal(size=(rows, columns)) * 10.0 ** (seed % 7 - 3)
    exact = np.linalg.norm(W, 2)
    bound = theory.gram_bound(W, k)
    assert exact * (1 - 1e-12) <= bound <= exact * min(rows, columns) ** (1 / 2 ** (k + 2)) * (1 + 1e-12)
    assert exact <= theory.spectral_norm(W) <= exact * (1 + 1e-14)


def test_bounds_of_zero_and_of_extreme_matrices():
    assert theory.gram_bound(np.zeros((3, 2))) == 0
    assert_close(theory.gram_bound(np.diag([1e-150, 1e-151]), 8), 1e-150, scale=1e-150, tol=1e-2)
    assert_close(theory.gram_bound(np.eye(4, dtype=np.float32), 10), 1.0, scale=1.0, tol=1e-3)


@pytest.mark.claim("JFB-Asm2.1")
@given(seed=st.integers(0, 10**6), n=st.integers(1, 30))
def test_power_iteration_encloses_the_norm(seed, n):
    rng = np.random.default_rng(seed)
    K = rng.normal(size=(n, n))
    low, high = theory.norm_bounds(fp.linearise(fp.LinearMap(K, K, K[0]), K, K), np.zeros((2, n)), rng, steps=200)
    exact = np.linalg.norm(K, 2)
    assert (low <= exact * (1 + 1e-12)).all()
    assert (high >= exact * (1 - 1e-12)).all()
    assert (high / low <= 1.3).all()


def test_power_iteration_of_the_zero_map():
    K = np.zeros((3, 3))
    low, high = theory.norm_bounds(
        fp.linearise(fp.LinearMap(K, K, K[0]), K, K), np.zeros((2, 3)), np.random.default_rng(0)
    )
    assert (low == 0).all()
    assert ((high >= 0) & (high < 1e-100)).all()


def test_power_iteration_through_a_chain_and_the_product_bound():
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(2, 6, 6)) / 3
    chain = fp.Map(
        lambda z, x: np.tanh(np.tanh(z @ A.T) @ B.T) + x,
        lambda z, x, g: (((1 - np.tanh(np.tanh(z @ A.T) @ B.T) ** 2) * g) @ B * (1 - np.tanh(z @ A.T) ** 2)) @ A,
        lambda z, x, g: {},
        lambda z, x, v: (1 - np.tanh(np.tanh(z @ A.T) @ B.T) ** 2) * (((1 - np.tanh(z @ A.T) ** 2) * (v @ A.T)) @ B.T),
    )
    z, x, w = rng.normal(size=(3, 20, 6))
    proven = theory.product_bound(theory.spectral_norm(A), theory.spectral_norm(B))
    assert (theory.measured_ratio(chain, x, z, w) <= proven).all()
    low, high = theory.norm_bounds(fp.linearise(chain, z, x), z, rng, steps=200)
    exact = np.linalg.norm(fp.maps.dense_jacobian(chain, z, x), 2, axis=(1, 2))
    assert_close(low, exact, scale=1.0, tol=1e-3)
    assert (exact <= high).all()
    assert (exact <= proven).all()
    assert theory.product_bound(2.0, 0.0) == 0


@pytest.mark.claim("JFB-Asm2.1")
def test_rescaling_makes_a_contraction_from_a_proven_norm_but_not_from_a_measured_ratio():
    rng = np.random.default_rng(0)
    W = rng.normal(size=(8, 8))
    U, b, x = rng.normal(size=(8, 2)), rng.normal(size=8), rng.normal(size=(500, 2))
    assert fp.OneLayer(W, U, b).gamma is None
    sound = fp.OneLayer(theory.rescaled(W, theory.spectral_norm(W), 0.9), U, b)
    assert_close(sound.gamma, 0.9, scale=1.0, tol=1e-12)
    z, w = rng.normal(size=(2, 500, 8))
    measured = float(theory.measured_ratio(fp.OneLayer(W, U, b), x, z, w).mean())
    hopeful = fp.OneLayer(theory.rescaled(W, measured, 0.9), U, b)
    assert hopeful.gamma is None  # the random directions saw too little
    np.testing.assert_array_equal(theory.rescaled(W, 0.5, 0.9), W)  # never scaled up


# ------------------------------------------------------------------------------------------------
# Coercivity


@pytest.mark.claim("FPN-Eq12")
@pytest.mark.claim("FPN-Eq20")
@pytest.mark.claim("JFB-Eq15")
@pytest.mark.claim("FPN-Eq19")
@pytest.mark.claim("FPN-LemmaA.1")
@GAMMAS
def test_coercivity_holds_and_is_attained(gamma):
    rng = np.random.default_rng(0)
    for n in (1, 2, 5):
        identity, K = np.eye(n), matrices(rng, 2000, n, gamma)
        forward = np.linalg.eigvalsh(identity - (K + K.transpose(0, 2, 1)) / 2)[:, 0]
        inverse = np.linalg.inv(identity - K)
        backward = np.linalg.eigvalsh((inverse + inverse.transpose(0, 2, 1)) / 2)[:, 0]
        assert (forward >= theory.coercivity(gamma) - 1e-13).all()
        assert (backward >= theory.inverse_coercivity(gamma) - 1e-13).all()
    assert theory.coercivity(gamma) == 1 - gamma  # K = gamma I
    assert_close(theory.inverse_coercivity(gamma), 1 / (1 - -gamma), scale=1.0, tol=1e-15)  # K = -gamma I
    assert theory.inverse_coercivity_printed(gamma) < theory.inverse_coercivity(gamma)


def test_the_printed_coercivity_is_loose_by_the_registered_amount():
    assert round(theory.inverse_coercivity_printed(0.9), 4) == 0.0277
    assert round(theory.inverse_coercivity(0.9), 3) == 0.526


# ------------------------------------------------------------------------------------------------
# Descent


def slopes(K, M_gram, v):
    """<gradient, p> = -<M'M (I - K')^-1 v, v> and ||w||^2 with w = M'M (I - K')^-1 v, for stacks."""
    q = np.linalg.solve(np.eye(K.shape[-1]) - K.swapaxes(-1, -2), v[..., None])
    w = (M_gram @ q)[..., 0]
    return -(w * v).sum(-1), (w * w).sum(-1)


def grams(rng, count, n, kappa):
    """Random M'M with condition number kappa, its inverse's extreme eigenvalues kept: low = 1/kappa', high = ..."""
    Q = np.linalg.qr(rng.normal(size=(count, n, n)))[0]
    s = rng.uniform(size=(count, n)) * (kappa - 1)[:, None] + 1
    s[:, 0], s[:, -1] = 1, kappa
    scale = np.exp(rng.normal(size=count))
    return scale[:, None, None] * (Q * s[:, None, :]) @ Q.transpose(0, 2, 1), 1 / (scale * kappa), 1 / scale


@pytest.mark.claim("JFB-Thm3.1")
@pytest.mark.claim("FPN-Thm3.1")
@pytest.mark.claim("NEW-jfb-threshold")
@pytest.mark.claim("NEW-neumann-descent")
@pytest.mark.claim("NEW-descent-constant")
def test_no_ascent_below_the_threshold_in_20000_draws_and_the_constant_holds():
    rng, ascents, draws = np.random.default_rng(0), 0, 0
    for n in (2, 3, 5, 8):
        for gamma in (0.3, 0.5, 0.8, 0.9, 0.95):
            kappa = 1 + rng.uniform(size=1000) ** 0.2 * (theory.descent_threshold(gamma) * (1 - 1e-9) - 1)
            K = matrices(rng, 1000, n, gamma)
            G, low, high = grams(rng, 1000, n, kappa)
            slope, w2 = slopes(K, G, rng.normal(size=(1000, n)))
            ascents, draws = ascents + int((slope >= 0).sum()), draws + 1000
            c = np.array([theory.descent_constant(gamma, *pair) for pair in zip(low, high, strict=True)])
            assert (c > 0).all()
            assert (slope <= -c * w2 * (1 - 1e-9)).all()
    assert (ascents, draws) == (0, 20000)


@pytest.mark.claim("JFB-Eq18")
@pytest.mark.claim("FPN-Eq15")
@GAMMAS
def test_the_printed_condition_is_sufficient_and_far_from_necessary(gamma):
    assert theory.meets_condition(1 / gamma, gamma) == (1 / gamma * gamma <= 1)
    assert not theory.meets_condition(1.001 / gamma, gamma)
    assert theory.descent_threshold(gamma) > 1 / gamma
    # equal where 2 sqrt(kappa)/(1 + kappa) = gamma
    kappa = theory.descent_threshold(gamma)
    assert_close(2 * math.sqrt(kappa) / (1 + kappa), gamma, scale=1.0, tol=1e-14)


@pytest.mark.claim("NEW-jfb-threshold")
def test_the_registered_thresholds():
    for gamma, expected in {0.3: 42.42, 0.5: 13.93, 0.8: 4.0, 0.95: 1.908}.items():
        assert_close(theory.descent_threshold(gamma), expected, scale=expected, tol=3e-4)
    assert theory.descent_threshold(0.0) == math.inf


def least_ascending_kappa(gamma, turn, angle):
    """For P = diag(1, kappa): the kappa at which <w, (I - K') P w> turns negative; inf where it never does."""
    K = gamma * np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    w = np.array([math.cos(angle), math.sin(angle)])
    y = w - K @ w
    return -y[0] * w[0] / (y[1] * w[1]) if y[1] * w[1] < -1e-12 and y[0] * w[0] > 1e-12 else math.inf


@pytest.mark.claim("NEW-jfb-threshold")
@GAMMAS
def test_a_search_meets_the_threshold(gamma):
    def objective(at):
        kappa = least_ascending_kappa(gamma, *at)
        return math.log(kappa) if 0 < kappa < math.inf else 50.0

    found = scipy.optimize.differential_evolution(
        objective, [(-math.pi, math.pi), (0, math.pi)], rng=np.random.default_rng(0), popsize=30, maxiter=300, tol=1e-10
    )
    kappa = math.exp(found.fun)
    assert theory.descent_threshold(gamma) * (1 - 1e-9) <= kappa <= 1.02 * theory.descent_threshold(gamma)


@pytest.mark.claim("NEW-jfb-threshold")
@settings(max_examples=200)
@given(turn=st.floats(-3.2, 3.2), angle=st.floats(0, 3.2), gamma=st.sampled_from([0.5, 0.9]))
def test_no_search_gets_below_the_threshold(turn, angle, gamma):
    kappa = least_ascending_kappa(gamma, turn, angle)
    if 0 < kappa < math.inf:
        target(-math.log(kappa), label=f"gamma = {gamma}")
    assert not 0 < kappa < theory.descent_threshold(gamma) * (1 - 1e-9)


@pytest.mark.claim("NEW-jfb-threshold")
@pytest.mark.claim("NEW-neumann-descent")
@pytest.mark.parametrize("k", [0, 1, 3])
@pytest.mark.parametrize("gamma", [0.5, 0.8, 0.95])
def test_the_worst_case_turns_at_the_threshold(gamma, k):
    star = theory.descent_threshold(gamma, k)
    for factor, sign in ((1 + 1e-6, 1), (1 - 1e-6, -1), (3.0, 1), (1 / 1.01, -1)):
        example = fp.examples.ascent(gamma, factor * star, k)
        assert_close(example.T.gamma, gamma, scale=1.0, tol=1e-14)
        M = theory.parameter_jacobian(example.T, example.z, example.x)
        assert_close(theory.conditioning(M), factor * star, scale=star * factor, tol=1e-9)
        assert np.sign(fp.examples.slope(example, fp.neumann(k))) == sign
        assert example.shows == f"the worst case {'above' if sign > 0 else 'below'} kappa*"


@pytest.mark.claim("NEW-descent-constant")
@pytest.mark.claim("FPN-Eq56")
@pytest.mark.parametrize(("gamma", "kappa"), [(0.5, 1.0), (0.5, 2.0), (0.8, 3.0), (0.8, 4.0), (0.95, 1.5), (0.5, 30.0)])
def test_the_descent_constant_is_the_least(gamma, kappa):
    # minimum of <w, (I - K') P w> over unit w and ||K|| <= gamma: <w, P w> - gamma ||P w|| in the plane of w and P w
    P = np.diag([1.0, kappa])

    def least(angle):
        w = np.array([math.cos(angle), math.sin(angle)])
        return w @ P @ w - gamma * np.linalg.norm(P @ w)

    grid = np.linspace(0, math.pi / 2, 200001)
    c = min(map(least, grid[:: 20 if kappa > 1 else 200000]))
    refined = scipy.optimize.minimize_scalar(least, bounds=(0, math.pi / 2), method="bounded", options={"xatol": 1e-12})
    assert_close(theory.descent_constant(gamma, 1.0, kappa), min(c, refined.fun), scale=kappa, tol=1e-9)


@pytest.mark.claim("FPN-Eq56")
def test_the_printed_bound_56_is_false_by_a_factor_of_two():
    example = fp.examples._linear([[0.5]], [[1.0]], [[1.0]], "n = 1, M = 1, K = 1/2")
    gradient = fp.gradients(example.T, example.z, example.x, example.g, "implicit:dense")["theta"]
    slope, w2 = fp.examples.slope(example), float(gradient @ gradient)
    assert slope == -w2 / 2 == -theory.descent_constant(0.5, 1.0, 1.0) * w2
    assert slope > -2 * (1 - 0.5) * w2  # as printed


@pytest.mark.claim("NEW-descent-constant")
def test_with_a_block_of_S_the_smaller_constant_rules():
    rng = np.random.default_rng(0)
    for _ in range(500):
        gamma, n = rng.uniform(0.1, 0.95), 3
        K = matrices(rng, 1, n, gamma)[0]
        G_T, low, high = (a[0] for a in grams(rng, 1, n, np.array([theory.descent_threshold(gamma) * 0.9])))
        G_S = np.diag(np.exp(rng.normal(size=2)))
        K_both, G_both = np.zeros((5, 5)), np.zeros((5, 5))
        K_both[2:, 2:], G_both[2:, 2:], G_both[:2, :2] = K, G_T, G_S
        slope, w2 = slopes(K_both, G_both, rng.normal(size=5))
        c = min(1 / G_S.max(), theory.descent_constant(gamma, low, high))
        assert slope <= -c * w2 * (1 - 1e-9)


@pytest.mark.claim("FPN-Eq16")
@pytest.mark.claim("JFB-Eq19")
@pytest.mark.claim("FPN-Eq45")
def test_the_preconditioner_needs_its_minus_and_its_transpose():
    rng = np.random.default_rng(3)
    K, M, v = matrices(rng, 1, 3, 0.9)[0], rng.normal(size=(7, 3)), rng.normal(size=(1, 3))
    T = fp.LinearMap(K, M, np.zeros(7))
    gradient = fp.gradients(T, v, v, v, "implicit:dense")["theta"]
    p = -fp.gradients(T, v, v, v, fp.jfb)["theta"]
    assert_close(theory.preconditioner(M, K) @ gradient, p, scale=size(p), tol=1e-12)
    printed = M @ (np.eye(3) - K.T) @ np.linalg.pinv(M) @ gradient
    assert_close(printed, -p, scale=size(p), tol=1e-12)
    untransposed = theory.preconditioner(M, K.T) @ gradient
    assert np.linalg.norm(untransposed - p) > 0.1 * np.linalg.norm(p)


@pytest.mark.claim("JFB-Eq17")
@pytest.mark.claim("FPN-Eq14")
@pytest.mark.claim("JFB-Asm3.3")
@pytest.mark.claim("FPN-Asm3.3")
def test_conditioning_of_a_layer():
    rng = np.random.default_rng(0)
    W = rng.normal(size=(4, 4)) / 4
    T = fp.OneLayer(W, rng.normal(size=(4, 2)), rng.normal(size=4), ir.activations.tanh)
    x = rng.normal(size=(1, 2))
    z = fp.iterate(T, x, np.zeros((1, 4)), tol=1e-12).z
    M = theory.parameter_jacobian(T, z, x)
    assert M.shape == (4 * 4 + 4 * 2 + 4, 4)
    jac = T.slope(z, x)[0]
    weight = 1 + (z * z).sum() + (x * x).sum()
    assert_close(M.T @ M, weight * np.diag(jac**2), scale=weight, tol=1e-13)
    assert_close(theory.conditioning(M), (jac.max() / jac.min()) ** 2, scale=theory.conditioning(M), tol=1e-9)
    dead = fp.OneLayer(W, T.U, np.array([9.0, 9.0, 9.0, -99.0]), ir.activations.relu)
    assert theory.conditioning(theory.parameter_jacobian(dead, z, x)) == math.inf
    assert theory.conditioning(np.ones((1, 2))) == math.inf
    with pytest.raises(ir.HypothesisError, match="one sample"):
        theory.parameter_jacobian(T, np.zeros((2, 4)), np.zeros((2, 2)))


@pytest.mark.claim("NEW-jfb-relu-descent")
@pytest.mark.parametrize(
    ("name", "monotone"), [("relu", True), ("hardtanh", True), ("tanh", False), ("softplus", False)]
)
def test_one_layer_descends_for_a_single_sample(name, monotone):
    activation, rng = ir.activations.get(name), np.random.default_rng(1)
    worst = -math.inf
    for _ in range(100):
        n = int(rng.integers(1, 6))
        if monotone:  # I - W > 0 suffices, however large W
            S, skew = rng.normal(size=(2, n, n))
            W = np.eye(n) - (S @ S.T / n + 0.1 * np.eye(n) + 2 * (skew - skew.T))
        else:
            W = orthogonal(rng, n) * rng.uniform(0, 0.99)
        T = fp.OneLayer(W, rng.normal(size=(n, 2)), rng.normal(size=n), activation)
        x, g = rng.normal(size=(1, 2)), rng.normal(size=(1, n))
        operator = ir.operators.MonotoneDense.from_weight(W, 0.05 if monotone else 0.009)
        z = ir.mon.equilibrium(operator, x @ T.U.T + T.b, activation, tol=1e-10, max_iter=10**4).z
        w = fp.implicit("dense")(T, z, x, g)
        slope = fp.examples.slope(fp.examples.Problem(T, x, z, g, ""))
        assert_close(theory.one_layer_slope(T, z, x, g, w), [slope], scale=size(slope), tol=1e-11)
        if np.abs(T.slope(z, x) * g).max() > 1e-9:
            worst = max(worst, slope)
    assert worst < 0


@pytest.mark.claim("NEW-jfb-relu-descent")
def test_a_smooth_layer_may_ascend_where_only_I_minus_W_is_positive():
    W, jac = fp.examples.smooth_layer()
    assert np.linalg.eigvalsh(np.eye(2) - (W + W.T) / 2)[0] > 0.04

    def least(J):  # of <J (I - W'J)^-1 g, J g> over unit g
        A = np.diag(J) @ np.linalg.inv(np.eye(2) - W.T @ np.diag(J))
        Q = np.diag(J) @ A
        return np.linalg.eigvalsh(Q + Q.T)[0]

    assert least(jac) < -1e-3
    for J in ([1.0, 1.0], [1.0, 0.0], [0.0, 1.0]):
        assert least(np.array(J)) >= -1e-15


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: theory.descent_threshold(1.0), r"gamma must lie in \[0, 1\)"),
        (lambda: theory.inverse_coercivity(-0.1), "got -0.1"),
        (lambda: theory.descent_constant(0.5, 0.0, 1.0), "low must be"),
        (lambda: theory.rescaled(np.eye(2), 0.0, 0.9), "measured must be"),
        (lambda: fp.examples.ascent(0.5, 0.9), "ascent needs kappa >= 1"),
        (lambda: fp.examples.toy_series(0.6), r"d must satisfy \|d\| <="),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ir.HypothesisError, match=words):
        call()


@pytest.mark.claim("FPN-Asm2.1")
@given(seed=st.integers(0, 10**6), shape=st.sampled_from([(4, 4), (3, 5), (5, 3)]))
def test_clipping_projects_on_the_ball_of_the_spectral_norm(seed, shape):
    rng = np.random.default_rng(seed)
    W, Q = rng.normal(size=(2, *shape))
    P = theory.clipped(W, 0.9)
    assert np.linalg.norm(P, 2) <= 0.9 * (1 + 1e-12)
    assert np.sum((W - P) * (0.9 * Q / np.linalg.norm(Q, 2) - P)) <= 1e-12  # the angle of a projection is obtuse
    assert_close(theory.clipped(P, 0.9), P, scale=1.0, tol=1e-12)
