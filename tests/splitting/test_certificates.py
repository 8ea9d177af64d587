"""Certificates: never violated, attained, honest about rounding (register A.8)."""

from __future__ import annotations

import dataclasses
import itertools

import laws
import numpy as np
import oracles
import pytest
import strategies
from hypothesis import given
from oracles import assert_close, size

import implicitref as ir
from implicitref.splitting import certificates


@pytest.mark.claim("NEW-cert-C1")
@pytest.mark.claim("NEW-cert-C2")
@pytest.mark.claim("NEW-cert-C3")
@given(problem=strategies.problems(), alpha=strategies.steps)
def test_never_violated(problem, alpha):
    laws.check_certificates(*problem, alpha)


@pytest.mark.claim("NEW-cert-C1")
@pytest.mark.claim("NEW-cert-C3")
@given(problem=strategies.problems(), alpha=strategies.steps)
def test_distance_is_honest_in_float32(problem, alpha):
    # the exact equilibrium of the float32 data, in float64; iterates down to the floor of float32
    W, b, activation = problem
    W = W.replace(**{name: p.astype(np.float32) for name, p in W.params.items()})
    b = b.astype(np.float32)
    wide = W.replace(**{name: p.astype(np.float64) for name, p in W.params.items()})
    z_star = laws.exact(wide, b.astype(np.float64), activation)
    inclusion = ir.mon.forward_inclusion(W, b, activation)
    generator = ir.splitting.peaceman_rachford(inclusion, alpha, np.zeros_like(b))
    for state in itertools.islice(generator, 30):
        z, bound = certificates.distance(inclusion, alpha, state.u)
        assert z.dtype == bound.dtype == np.float32
        error = np.linalg.norm(z.astype(np.float64) - z_star, axis=1)
        assert (error <= bound.astype(np.float64)).all()


@given(problem=strategies.problems())
def test_distance_is_honest_at_the_rounding_floor(problem):
    # many steps from the solution itself: the bound still covers the error, and is not grossly larger than the floor
    W, b, activation = problem
    inclusion, alpha = ir.mon.forward_inclusion(W, b, activation), ir.splitting.rates.best_alpha(W, "peaceman-rachford")
    z_star = laws.exact(W, b, activation)
    u_star = z_star - alpha * inclusion.A(z_star)
    state = next(itertools.islice(ir.splitting.peaceman_rachford(inclusion, alpha, u_star), 60, None))
    z, bound = certificates.distance(inclusion, alpha, state.u)
    error = np.linalg.norm(z - z_star, axis=1)
    assert (error <= bound + 4e-16 * size(z_star)).all()  # the oracle rounds too
    assert (bound <= 1e-12 * size(z_star, b) * size(W.to_dense()) / min(1, inclusion.m)).all()


def scalar_problem(m: float, activation=ir.activations.relu) -> tuple:
    """n = 2, G = m I, interior equilibrium (1, 2): every inequality of the proofs is an equality."""
    W = ir.operators.MonotoneDense(np.zeros((2, 2)), np.zeros((2, 2)), m)
    z_star = np.array([[1.0, 2.0]])
    return ir.mon.forward_inclusion(W, m * z_star, activation), z_star


@pytest.mark.claim("NEW-cert-C1")
@pytest.mark.parametrize("m", [0.1, 1.0, 2.5])
def test_c1_and_its_ball_are_attained(m):
    inclusion, z_star = scalar_problem(m)
    w = z_star + np.array([[0.3, -0.4]])
    z, e = certificates.defect(inclusion, w)
    assert_close(np.linalg.norm(e, axis=1) / m, np.linalg.norm(z - z_star, axis=1), scale=0.5, tol=1e-13)
    center, radius = certificates.ball(inclusion, 1.0, w)
    assert_close(np.linalg.norm(center - z_star, axis=1), radius, scale=0.5, tol=1e-13)


@pytest.mark.claim("NEW-cert-C2")
@pytest.mark.parametrize("m", [0.1, 1.0, 2.5])
@pytest.mark.parametrize("alpha", [0.1, 0.3])
def test_c2_is_attained(m, alpha):
    inclusion, z_star = scalar_problem(m)
    z = z_star + np.array([[0.3, -0.4]])
    y, bound_y, bound_z = certificates.distance_from_state(inclusion, alpha, z)
    assert_close(bound_y, np.linalg.norm(y - z_star, axis=1), scale=0.5, tol=1e-13)
    assert_close(bound_z, np.linalg.norm(z - z_star, axis=1), scale=0.5, tol=1e-13)


@pytest.mark.claim("NEW-cert-C3")
@pytest.mark.parametrize("alpha", [0.2, 1.5])
def test_c3_is_attained(alpha):
    inclusion, z_star = scalar_problem(0.5)
    u = z_star + np.array([[0.3, -0.4]])
    rho = ir.splitting.rates.peaceman_rachford(0.5 * np.eye(2), alpha)
    state = next(ir.splitting.peaceman_rachford(inclusion, alpha, u))
    _, bound = certificates.distance(inclusion, alpha, state.u)
    assert_close(bound, np.linalg.norm(state.z - z_star, axis=1), scale=0.5, tol=1e-13)
    # u+ - u* = rho (u - u*) here, and then rho/(1 - rho) ||u+ - u|| = ||u+ - u*||
    step_bound = certificates.distance_from_step(rho, u, state.u)
    assert_close(step_bound, np.linalg.norm(state.u - z_star, axis=1), scale=0.5, tol=1e-12)


@pytest.mark.claim("NEW-strong-prox")
def test_strong_convexity_enters_the_certificate():
    # sigmoid: f is 3-strongly convex, so I - W >= m I certifies with m + 3, here for W of m = 0.1
    W, b, sigmoid = laws.problem("sigmoid", m=0.1, seed=4)
    inclusion = ir.mon.forward_inclusion(W, b, sigmoid)
    assert inclusion.m == W.m + 3
    laws.check_certificates(W, b, sigmoid, 0.7)
    weak = dataclasses.replace(inclusion, m=W.m)
    _, sharp = certificates.distance(inclusion, 1.0, b)
    _, loose = certificates.distance(weak, 1.0, b)
    assert (sharp * 30 < loose).all()


class Quadratic:
    """B z = strong z, whose prox divides."""

    strong = 3.0

    def prox(self, u, alpha):
        return u / (1 + alpha * self.strong)


@pytest.mark.claim("NEW-cert-C2", "NEW-strong-prox")
@pytest.mark.parametrize("alpha", [0.1, 0.5])
def test_c2_with_strong_convexity_is_attained(alpha):
    """G = I and B = 3 I: r = 4 alpha d / (1 + 3 alpha), and the bound of z is its distance, for alpha < 1."""
    inclusion, z_star = scalar_problem(1.0)
    strong = dataclasses.replace(inclusion, B=Quadratic(), m=1.0 + Quadratic.strong)
    z = z_star / 4 + np.array([[0.3, -0.2]])
    y, of_y, of_z = certificates.distance_from_state(strong, alpha, z)
    assert_close(of_z, np.linalg.norm(z - z_star / 4, axis=1), scale=1.0, tol=1e-13)
    assert (np.linalg.norm(y - z_star / 4, axis=1) <= of_y + 1e-13).all()


@pytest.mark.claim("NEW-cert-B1")
@given(problem=strategies.problems(), alpha=strategies.steps)
def test_backward_certificates_are_never_violated(problem, alpha):
    W, b, _ = problem
    rng = np.random.default_rng(7)
    jac, q = rng.uniform(size=b.shape), rng.normal(size=b.shape)
    jac[0, 0], jac[-1, -1] = 0.0, 1.0
    M = W.to_dense()
    dpre = oracles.implicit_dpre(M, jac, b)
    u_star = b + dpre @ M
    inclusion = ir.mon.backward_inclusion(W, jac, b)
    norm_W = np.linalg.norm(M, 2)
    for state in itertools.islice(ir.splitting.peaceman_rachford(inclusion, alpha, q), 6):
        z, bound = certificates.distance(inclusion, alpha, state.u)
        scale = size(dpre, b) * size(M) / min(1.0, W.m * alpha)
        laws.check_never_violated(np.linalg.norm(z - dpre, axis=1), bound, scale)
        y, e = certificates.defect(inclusion, state.u)
        laws.check_never_violated(np.linalg.norm(y - dpre, axis=1), np.linalg.norm(e, axis=1) / W.m, scale)
        at = state.u + b
        whole = certificates.adjoint_state_bound(inclusion, norm_W, at)
        laws.check_never_violated(np.linalg.norm(at - u_star, axis=1), whole, scale)


@pytest.mark.claim("NEW-cert-B1")
def test_b1_is_attained():
    # J = I, W = (1 - m) I: e = m (q - u*)
    m = 0.25
    W = ir.operators.MonotoneDense(np.zeros((2, 2)), np.zeros((2, 2)), m)
    v, ones = np.array([[1.0, -2.0]]), np.ones((1, 2))
    inclusion = ir.mon.backward_inclusion(W, ones, v)
    u_star, q = v / m, np.array([[0.3, 0.7]])
    y, e = certificates.defect(inclusion, q - v)
    assert_close(np.linalg.norm(e, axis=1) / m, np.linalg.norm(y - u_star, axis=1), scale=10, tol=1e-14)
    whole = certificates.adjoint_state_bound(inclusion, 1 - m, q)
    assert_close(whole, np.linalg.norm(q - u_star, axis=1), scale=10, tol=1e-14)


@pytest.mark.claim("NEW-adjoint-norms")
@given(gap=strategies.gaps(), seed=strategies.seeds)
def test_adjoint_norms(gap, seed):
    G, m = gap
    n, W = len(G), np.eye(len(G)) - G
    jac = np.clip(np.random.default_rng(seed).uniform(-0.3, 1.3, size=n), 0, 1)
    first, second = certificates.adjoint_norm_bounds(m, np.linalg.norm(W, 2))
    inverse = np.linalg.inv(np.eye(n) - jac[:, None] * W)
    assert np.linalg.norm(inverse * jac, 2) <= first * (1 + 1e-12)
    assert np.linalg.norm(inverse.T, 2) <= second * (1 + 1e-12)


@pytest.mark.claim("NEW-adjoint-norms")
def test_adjoint_norms_are_attained():
    m = 0.2
    first, second = certificates.adjoint_norm_bounds(m, 1 - m)
    matrix = ir.mon.implicit_matrix(np.array([[1 - m]]), np.ones(1))  # n = 1, J = 1, W = 1 - m
    assert_close([first, second], [float(matrix[0, 0])] * 2, scale=5, tol=1e-14)


@pytest.mark.claim("NEW-sensitivity")
@given(problem=strategies.problems())
def test_sensitivity(problem):
    W, b, activation = problem
    change = np.random.default_rng(8).normal(size=b.shape)
    z, moved = laws.exact(W, b, activation), laws.exact(W, b + change, activation)
    G, dz = np.eye(W.size) - W.to_dense(), moved - z
    slack = 1e-11 * size(z, b, change) ** 2
    assert ((change * dz).sum(1) >= ((dz @ G.T) * dz).sum(1) - slack).all()
    assert (np.linalg.norm(dz, axis=1) <= certificates.sensitivity(W.m, change) + slack).all()


@pytest.mark.claim("NEW-sensitivity")
def test_sensitivity_is_attained():
    inclusion, z_star = scalar_problem(0.2)
    change = np.array([[0.1, 0.2]])
    moved = ir.mon.equilibrium(inclusion.W, inclusion.b + change, ir.activations.relu, tol=1e-10).z
    assert_close(np.linalg.norm(moved - z_star, axis=1), certificates.sensitivity(0.2, change), scale=1, tol=1e-9)


def test_on_every_backend(backend):
    W, b, tanh = laws.problem("tanh", seed=5)
    inclusion = ir.mon.forward_inclusion(W, b, tanh)
    moved = W.replace(**{name: backend(p) for name, p in W.params.items()})
    there = ir.mon.forward_inclusion(moved, backend(b), tanh)
    u = np.random.default_rng(9).normal(size=b.shape)
    for certificate in (certificates.distance, certificates.distance_from_state, certificates.ball):
        for found, desired in zip(certificate(there, 0.8, backend(u)), certificate(inclusion, 0.8, u), strict=True):
            assert_close(backend.numpy(found), desired, scale=size(desired), tol=100 * backend.eps)


@pytest.mark.claim("NEW-cert-C1")
@pytest.mark.parametrize("m", [1e-4, 1e-8, 1e-12])
def test_the_rounding_of_the_weight_itself_is_counted(m):
    # W = 1 - m rounds to a modulus off by eps/m; far from the equilibrium b/(1 - W) nothing else is as large
    from fractions import Fraction

    one = np.ones((1, 1))
    W = ir.operators.MonotoneDense(0 * one, 0 * one, m)
    inclusion = ir.mon.forward_inclusion(W, one, ir.activations.relu)
    truth = 1 / (1 - Fraction(float(W.to_dense()[0, 0])))
    for u in (0.5, 1.0, 3.0):
        z, bound = ir.splitting.certificates.distance(inclusion, 1.0, u * one)
        error = abs(Fraction(float(z[0, 0])) - truth)
        assert error <= Fraction(float(bound[0]))
        assert float(bound[0]) <= float(error) * (1 + 10 * 2.3e-16 / m)


@pytest.mark.parametrize("alone", ["product", "z", "b"])
def test_every_rounding_is_counted(alone):
    # of W z, of z, of b: where the two others vanish, half an eps of what is left at least
    W, b, activation = laws.problem("relu", m=0.5, seed=0)
    parts = {name: np.asarray(name == alone) * np.abs(b) for name in ("product", "z", "b")}
    inclusion = ir.mon.forward_inclusion(W, parts["b"], activation)
    hidden = certificates._rounding(inclusion, parts["z"], np.linalg.norm(parts["product"], axis=1))
    assert (hidden >= np.finfo(float).eps / 2 * np.linalg.norm(b, axis=1)).all()


@pytest.mark.claim("NEW-cert-C1")
def test_at_the_rounding_floor_the_state_counts_and_not_what_led_to_it():
    """z is exact, however long the residual at its own u is: that at w = W z + b sees no more than rounding."""
    rng = np.random.default_rng(0)
    W = ir.operators.MonotoneDense(rng.normal(size=(6, 6)) / 2, rng.normal(size=(6, 6)), 0.5)
    b = rng.normal(size=(3, 6))
    inclusion = ir.mon.forward_inclusion(W, b, ir.activations.relu)
    z = laws.exact(W, b, ir.activations.relu)
    found = certificates._near_floor(inclusion, 0.5, z, np.full(3, 1e3))
    assert (found <= 1e-12 * size(b, z)).all()
    off = certificates._near_floor(inclusion, 0.5, z + 1e-3, np.full(3, 1e3))
    assert (off >= 1e-4).all()
