"""Statements of MON that are lemmas or definitions, each checked as it should read (sections 3, 4.1, appendix A)."""

from __future__ import annotations

import laws
import numpy as np
import oracles
import pytest
import scipy.sparse.linalg
import strategies
from hypothesis import given
from hypothesis import strategies as st
from oracles import assert_close, size

import implicitref as ir


@st.composite
def jacobians(draw: st.DrawFn) -> tuple[np.ndarray, float, np.ndarray]:
    """W with I - W >= m I, m, and a diagonal J in [0, 1] with zeros and ones."""
    G, m = draw(strategies.gaps())
    jac = np.array(draw(st.lists(st.sampled_from([0.0, 0.2, 0.7, 1.0]), min_size=len(G), max_size=len(G))))
    return np.eye(len(G)) - G, m, jac


@pytest.mark.claim("MON-Eq12")
@pytest.mark.claim("MON-Eq16")
@given(drawn=jacobians())
def test_equation_16_the_spectrum_stays_to_the_right(drawn):
    W, m, jac = drawn
    spectrum = np.linalg.eigvals(np.eye(len(W)) - jac[:, None] * W)
    assert spectrum.real.min() >= (1 - (1 - m) * jac).min() - 1e-10 * size(W)
    assert spectrum.real.min() >= min(1, m) - 1e-10 * size(W)


@pytest.mark.claim("MON-Eq16")
def test_equation_16_needs_m_positive():
    assert 1 - 0.5 * 2.0 == 0.0  # n = 1, m = -1, W = 2, J = 1/2
    with pytest.raises(np.linalg.LinAlgError):
        ir.mon.implicit_matrix(np.array([[2.0]]), np.array([0.5]))


@pytest.mark.claim("MON-Eq15")
@given(drawn=jacobians())
def test_equation_15_holds_with_zeros_in_j(drawn):
    W, _, jac = drawn
    root = np.sqrt(jac)
    left, right = np.eye(len(W)) - jac[:, None] * W, np.eye(len(W)) - root[:, None] * W * root
    assert_close(np.poly(left), np.poly(right), scale=size(W) ** len(W), tol=1e-12)


@pytest.mark.claim("MON-Eq17")
@pytest.mark.claim("MON-Sec3.5-cg")
def test_equation_17_is_no_system_for_conjugate_gradients():
    # (I - J W)' u = g is not symmetric: CG fails on it, its normal equations and GMRES do not
    W = laws.dense(np.asarray, **laws.factors(30, 0.1, 1)).to_dense() * 1.0
    rng = np.random.default_rng(2)
    g, jac = rng.normal(size=30), rng.uniform(size=30)
    system = (np.eye(30) - jac[:, None] * W).T
    exact = np.linalg.solve(system, g)
    residual = lambda u: np.linalg.norm(system @ u - g) / np.linalg.norm(g)  # noqa: E731
    with np.errstate(all="ignore"):
        wrong, _ = scipy.sparse.linalg.cg(system, g, rtol=1e-12, maxiter=300)
    normal, _ = scipy.sparse.linalg.cg(system.T @ system, system.T @ g, rtol=1e-14, maxiter=2000)
    gmres, _ = scipy.sparse.linalg.gmres(system, g, rtol=1e-13, restart=30)
    assert residual(wrong) > 1e-3
    assert residual(normal) < 1e-8
    assert residual(gmres) < 1e-10
    u_star = ir.mon.adjoint_state(
        laws.dense(np.asarray, **laws.factors(30, 0.1, 1)), oracles.implicit_dpre(W, jac[None], g[None]), g[None]
    )
    assert_close(u_star[0], exact, scale=size(exact), tol=1e-10)


@pytest.mark.claim("MON-Eq21")
@given(drawn=jacobians(), seed=strategies.seeds)
def test_equation_21_with_w_and_j_nonsingular(drawn, seed):
    W, _, jac = drawn
    jac = np.maximum(jac, 0.2)
    while np.linalg.norm(W, -2) < 1e-3 * size(W):  # it divides by W'; lowering W keeps I - W >= m I
        W = W - 0.1 * np.eye(len(W))
    v = np.random.default_rng(seed).normal(size=len(W))
    u = np.linalg.solve((np.eye(len(W)) - jac[:, None] * W).T, v)
    tilde = np.linalg.solve(W.T, u)  # of (21); the one of (19) is W'^-1 (u - v) = J u
    assert_close(W.T @ tilde - W.T @ (jac * u), v, scale=size(u, W) * 1e3, tol=1e-11)
    assert_close(np.linalg.solve(W.T, u - v), jac * u, scale=size(u, W) * 1e3, tol=1e-11)


@pytest.mark.claim("MON-Eq22")
@pytest.mark.claim("MON-Eq23")
@given(drawn=jacobians(), seed=strategies.seeds)
def test_equations_22_and_23(drawn, seed):
    W, m, jac = drawn
    identity, v = np.eye(len(W)), np.random.default_rng(seed).normal(size=len(W))
    inverse = np.linalg.inv(identity - W.T * jac)
    assert_close(inverse, identity + inverse @ (W.T * jac), scale=size(inverse, W) ** 2 / min(m, 1), tol=1e-12)
    on = jac > 0
    D = 1 / jac[on] - 1
    assert_close((1 + D) * jac[on] * v[on], v[on], scale=size(v), tol=1e-14)


@pytest.mark.claim("MON-Eq26")
@given(problem=strategies.problems())
def test_equation_26_restates_the_inclusion(problem):
    # 0 in (I - W) z - (Ux + b) + df(z): the element w - z of df(z) with w = W z + Ux + b, by the subgradient inequality
    W, b, activation = problem
    z = laws.exact(W, b, activation)
    z = activation(W.matvec(z) + b)  # a Newton step solves a system: it may end 1e-34 outside the domain of f
    subgradient = -ir.mon.forward_inclusion(W, b, activation).A(z)
    y = activation(np.random.default_rng(3).normal(size=(20, 1, W.size)) * 4)
    gain = activation.value(y) - activation.value(z) - subgradient * (y - z)
    assert (gain >= -1e-9 * size(z, y, b, W.to_dense()) ** 2).all()


@pytest.mark.claim("MON-EqA1")
@pytest.mark.claim("MON-EqA2")
@pytest.mark.claim("MON-EqA3")
@pytest.mark.claim("MON-EqA4")
@given(gap=strategies.gaps(), seed=strategies.seeds)
def test_lipschitz_and_strong_monotonicity_of_the_affine_operator(gap, seed):
    G, m = gap
    W = ir.operators.MonotoneDense.from_weight(np.eye(len(G)) - G, m * (1 - 1e-12))
    x, y, b = np.random.default_rng(seed).normal(size=(3, 1, len(G)))
    A = ir.mon.forward_inclusion(W, b, ir.activations.relu).A
    change, distance = A(x) - A(y), np.linalg.norm(x - y)
    assert np.linalg.norm(change) <= W.lipschitz() * distance * (1 + 1e-12)
    assert (change * (x - y)).sum() >= W.m * distance**2 * (1 - 1e-9)


@pytest.mark.claim("MON-EqA2")
@pytest.mark.claim("MON-AppA-subdifferential")
@pytest.mark.parametrize("name", laws.ACTIVATIONS)
def test_the_subdifferential_is_monotone_and_its_resolvent_is_defined_everywhere(name):
    # (u - v)(x - y) >= 0 on the graph; I + alpha B onto: prox^alpha is defined at every point
    activation, w = laws.ACTIVATIONS[name], np.linspace(-5, 5, 41)
    z = activation(w)
    assert (((w - z)[:, None] - (w - z)[None]) * (z[:, None] - z[None]) >= -1e-13).all()
    for alpha in (0.1, 10.0):
        p = activation.prox(w, alpha)
        inverse = activation.root(w, alpha)  # (w - p)/alpha is the element of B at p
        assert_close(inverse - p, (w - p) / alpha, scale=60, tol=1e-13)


@pytest.mark.claim("MON-AppA-strong")
def test_strong_monotonicity_of_a_matrix_is_two_m_not_m():
    # n = 1, G = m/2: G + G' = m, but <G x, x> = (m/2) x^2
    m, G = 1.0, np.array([[0.5]])
    assert (G + G.T)[0, 0] >= m
    assert G[0, 0] < m
    with pytest.raises(ir.HypothesisError, match=r"m <= 0\.5"):
        ir.operators.MonotoneDense.from_weight(np.eye(1) - G, m)
    assert ir.operators.MonotoneDense.from_weight(np.eye(1) - G, m / 2).lipschitz() == 0.5


@pytest.mark.claim("MON-AppA-cayley")
def test_cayley_of_a_strongly_monotone_operator_need_not_contract():
    # A(x) = x + x^3 is 1-strongly monotone, not Lipschitz: the slope of 2 (1 + A)^-1 - 1 tends to -1
    slopes = [2 / (2 + 3 * x**2) - 1 for x in (1.0, 1e2, 1e4)]
    assert_close(slopes[0], 2 / 5 - 1, scale=1, tol=1e-15)
    assert slopes[-1] < -0.99999999
    # the normal cone of {0}: C = -I, no contraction at all
    border = ir.activations.zero_border(ir.activations.relu, 1, shapes=[(1, 2, 2)])
    u = np.ones((1, 4))
    np.testing.assert_array_equal(border.reflection(1.0)(u), -u)


@pytest.mark.claim("MON-EqA5")
@given(gap=strategies.gaps(), alpha=strategies.steps)
def test_resolvent_and_cayley_of_a_lipschitz_operator_contract(gap, alpha):
    G, m = gap
    W = ir.operators.MonotoneDense.from_weight(np.eye(len(G)) - G, m * (1 - 1e-12))
    V = W.resolvent(alpha)
    assert np.linalg.norm(V.to_dense(), 2) <= 1 / (1 + alpha * m) * (1 + 1e-11)
    assert np.linalg.norm(V.cayley().to_dense(), 2) < 1


@pytest.mark.claim("MON-Sec3.4-alpha")
def test_peaceman_rachford_needs_m_positive():
    # m = 0, G = [[0, -1], [1, 0]], interior equilibrium: C_A is orthogonal, the distance never shrinks
    G = np.array([[0.0, -1.0], [1.0, 0.0]])
    C = (np.eye(2) - G) @ np.linalg.inv(np.eye(2) + G)
    assert_close(np.linalg.norm(C, 2), 1.0, scale=1, tol=1e-14)
    assert ir.splitting.rates.peaceman_rachford(G, 1.0) > 1 - 1e-14
    with pytest.raises(ir.HypothesisError, match="m must be"):
        ir.operators.MonotoneDense.from_weight(np.eye(2) - G, 0.0)


@pytest.mark.claim("MON-Thm1")
def test_theorem_1_needs_convexity():
    # hard threshold, f = 1{z != 0}/2, W = 0, b = 1/2: z = 1/2 is stationary, but sigma(1/2) = 0
    threshold = lambda x: np.where(np.abs(x) > 1, x, 0.0)  # noqa: E731
    assert threshold(0.5) == 0.0
    slopes = np.diff(threshold(np.array([0.999, 1.001]))) / 0.002
    assert slopes[0] > 1  # no prox of a convex f jumps


@pytest.mark.claim("MON-EqA10")
def test_peaceman_rachford_needs_a_lipschitz():
    # A = N_{0}, B = 0: u+ = -u for ever
    reflect = ir.activations.zero_border(ir.activations.relu, 1, shapes=[(1, 2, 2)]).reflection(1.0)
    u = np.ones((1, 4))
    for _ in range(4):
        u = reflect(u)
        assert (np.abs(u) == 1).all()
