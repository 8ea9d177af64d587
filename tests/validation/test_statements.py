"""Statements of MON, each asserted directly on a small problem: numbers a reader can redo by hand, or dense algebra."""

from __future__ import annotations

import numpy as np
import pytest
from oracles import assert_close

from implicitref import activations, mon
from implicitref.operators import MonotoneDense
from implicitref.splitting import Inclusion, peaceman_rachford, rates, solve

TURN = np.array([[1.0, -2.0], [2.0, 1.0]])  # G = I - W with m = 1, L = sqrt 5
J = np.array([0.5, 1.0, 0.0])


def operator(G: np.ndarray, m: float) -> MonotoneDense:
    return MonotoneDense.from_weight(np.eye(len(G)) - G, m)


@pytest.fixture
def W() -> np.ndarray:
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(2, 3, 3))
    return 0.5 * np.eye(3) - A.T @ A + B - B.T


@pytest.mark.claim("MON-Eq26")
def test_the_injection_enters_the_affine_operator_with_a_minus_sign(W):
    inclusion = mon.forward_inclusion(MonotoneDense.from_weight(W, 0.5), np.array([[1.0, 2.0, 3.0]]), activations.relu)
    z = np.array([[0.3, -0.2, 0.1]])
    assert_close(inclusion.A(z)[0], z[0] - W @ z[0] - [1, 2, 3], scale=1, tol=1e-14)


@pytest.mark.claim("MON-Eq9")
def test_peaceman_rachford_adds_the_injection():
    inclusion = mon.forward_inclusion(operator(np.eye(1), 1.0), np.ones((1, 1)), activations.relu)
    states = peaceman_rachford(inclusion, 1.0, np.zeros((1, 1)))
    next(states)
    assert next(states).z.item() == 1.0  # with the printed minus sign 0


@pytest.mark.claim("MON-Eq10", "MON-Eq13", "MON-Eq14")
def test_the_jacobian_solves_the_differentiated_fixed_point_equation(W):
    whole = mon.implicit_matrix(W, J)
    assert_close(whole, J[:, None] * (W @ whole + np.eye(3)), scale=1, tol=1e-14)


@pytest.mark.claim("MON-Eq11", "MON-Eq12")
def test_tanh_in_one_dimension_by_implicit_differentiation():
    # z = tanh(-z + b): dz/db = J/(1 + J) with J = 1 - z^2
    op, b, v = operator(np.array([[2.0]]), 2.0), np.array([[0.7]]), np.ones((1, 1))
    z = mon.equilibrium(op, b, activations.tanh, tol=1e-13).z
    grads, _ = mon.equilibrium_vjp(op, b, activations.tanh, z, v, tol=1e-13)
    slope = 1 - z.item() ** 2
    assert_close(grads["injection"].item(), slope / (1 + slope), scale=1, tol=1e-12)
    assert_close(activations.tanh.derivative(z * -1 + b).item(), slope, scale=1, tol=1e-12)


@pytest.mark.claim("MON-Eq15")
def test_characteristic_polynomials_agree_where_J_is_singular(W):
    root = np.sqrt(J)
    left, right = np.eye(3) - J[:, None] * W, np.eye(3) - root[:, None] * W * root
    assert_close(np.poly(left), np.poly(right), scale=np.abs(np.poly(left)).max(), tol=1e-13)


@pytest.mark.claim("MON-Eq16")
def test_real_parts_stay_above_the_sharper_bound(W):
    values = np.linalg.eigvals(np.eye(3) - J[:, None] * W).real
    assert values.min() >= np.min(1 - (1 - 0.5) * J) - 1e-12
    assert np.linalg.matrix_rank(np.eye(1) - 0.5 * np.array([[2.0]])) == 0  # m = -1: the hypothesis m > 0 is needed


@pytest.mark.claim("MON-Eq17", "MON-Eq18", "MON-Eq19", "MON-Thm3")
def test_the_adjoint_state_solves_the_transposed_system(W):
    op, v = MonotoneDense.from_weight(W, 0.5), np.array([[1.0, -2.0, 0.5]])
    zero = solve(mon.backward_inclusion(op, J[None], v), np.zeros((1, 3)), alpha=0.3, tol=1e-12).z
    u = mon.adjoint_state(op, zero, v)[0]
    assert_close((np.eye(3) - J[:, None] * W).T @ u, v[0], scale=np.abs(u).max(), tol=1e-10)


@pytest.mark.claim("MON-Eq20", "NEW-backward-zero")
def test_the_zero_of_the_backward_inclusion_is_J_times_the_adjoint_state(W):
    v = np.array([[1.0, -2.0, 0.5]])
    truth = J * np.linalg.solve((np.eye(3) - J[:, None] * W).T, v[0])
    inclusion = mon.backward_inclusion(MonotoneDense.from_weight(W, 0.5), J[None], v)
    found = solve(inclusion, np.zeros((1, 3)), alpha=0.3, tol=1e-12).z[0]
    assert_close(found, truth, scale=np.abs(truth).max(), tol=1e-11)
    assert found[2] == 0
    on = J > 0
    residual = (found - W.T @ found)[on] + ((1 / J[on] - 1) * found[on] - v[0][on])
    assert_close(residual, np.zeros(2), scale=np.abs(truth).max(), tol=1e-11)


@pytest.mark.claim("MON-Eq21")
def test_dividing_by_W_transposed_leads_to_the_backward_operator():
    W, J, v = np.array([[-1.0, 0.5], [0.0, -2.0]]), np.array([0.5, 0.8]), np.array([1.0, 2.0])
    u = np.linalg.solve((np.eye(2) - J[:, None] * W).T, v)
    tilde, right = np.linalg.solve(W.T, u), np.linalg.solve(W.T, v) / J
    assert_close(tilde - W.T @ tilde + (1 / J - 1) * tilde, right, scale=np.abs(right).max(), tol=1e-13)


@pytest.mark.claim("MON-Eq22", "MON-Eq23")
def test_the_two_identities_that_remove_the_inverse_of_W(W):
    inverse = np.linalg.inv(np.eye(3) - W.T * J)
    assert_close(inverse, np.eye(3) + inverse @ (W.T * J), scale=np.abs(inverse).max(), tol=1e-13)
    on, v = J[J > 0], np.array([3.0, -1.0])
    assert_close((1 + (1 / on - 1)) * on * v, v, scale=3, tol=1e-15)


@pytest.mark.claim("MON-Eq24", "MON-Eq25")
def test_the_backward_resolvent_divides_by_one_plus_alpha_D():
    B = mon.AdjointProx(np.array([[1.0, 0.5, 0.0]]), np.array([[1.0, 1.0, 1.0]]))
    assert_close(B.prox(np.ones((1, 3)), 2.0), [[3.0, 3.0 / (1 + 2.0), 0.0]], scale=3, tol=1e-15)


@pytest.mark.claim("MON-Alg3", "MON-Alg4")
@pytest.mark.parametrize("method", ["forward-backward", "peaceman-rachford"])
def test_the_smallest_counterexample_to_the_printed_denominator(method):
    op, one = MonotoneDense.from_weight(np.array([[0.5]]), 0.5), np.ones((1, 1))
    grads, _ = mon.equilibrium_vjp(op, one, activations.relu, 2 * one, one, method=method, alpha=1.0, tol=1e-10)
    assert_close(grads["injection"].item(), 2.0, scale=2, tol=1e-9)  # printed: 2/3


@pytest.mark.claim("MON-Sec3.5-cg")
def test_conjugate_gradients_diverge_where_the_splitting_converges():
    M, v = TURN, np.array([1.0, 0.0])
    u, r = np.zeros(2), v
    p = r
    for _ in range(10):
        step = (r @ r) / (p @ (M @ p))
        u, new = u + step * p, r - step * (M @ p)
        p, r = new + (new @ new) / (r @ r) * p, new
    assert np.linalg.norm(M @ u - v) > 1
    op = operator(TURN.T, 1.0)  # J = I: (I - W)' u = v
    zero = solve(mon.backward_inclusion(op, np.ones((1, 2)), v[None]), np.zeros((1, 2)), alpha=0.4, tol=1e-12).z
    assert_close(TURN @ zero[0], v, scale=1, tol=1e-11)


@pytest.mark.claim("MON-EqA1", "MON-EqA2", "MON-EqA3", "MON-EqA4", "MON-AppA-strong")
def test_the_constants_of_an_affine_operator():
    m, L = rates.constants(TURN)
    assert_close([m, L], [1.0, np.sqrt(5)], scale=1, tol=1e-14)
    x, y = np.random.default_rng(0).normal(size=(2, 50, 2))
    d, image = x - y, (x - y) @ TURN.T
    assert_close(np.sum(d * image, axis=1), m * np.sum(d * d, axis=1), scale=np.sum(d * d), tol=1e-14)  # (A2) to (A4)
    assert np.all(np.linalg.norm(image, axis=1) <= L * np.linalg.norm(d, axis=1) * (1 + 1e-14))  # (A1)
    half = np.array([[0.5]])  # G + G' = 1, yet the modulus is 1/2: the printed criterion is off by a factor 2
    assert rates.constants(half)[0] == 0.5


@pytest.mark.claim("MON-AppA-cayley")
def test_cayley_contracts_for_lipschitz_and_only_reflects_otherwise():
    inclusion = Inclusion(operator(TURN, 1.0), np.zeros((1, 2)), activations.relu, 1.0)
    x = np.array([[3.0, 4.0]])
    factor = np.linalg.norm(inclusion.cayley_A(0.4)(x)) / 5
    assert_close(factor, rates.peaceman_rachford_class(1.0, np.sqrt(5), 0.4), scale=1, tol=1e-13)
    pinned = mon.AdjointProx(np.zeros((1, 2)), np.zeros((1, 2)))  # the normal cone of {0}: strongly monotone, C = -I
    assert np.array_equal(2 * pinned.prox(x, 1.0) - x, -x)


@pytest.mark.claim("NEW-stopping-fooled")
def test_both_examples_that_end_the_printed_rule_are_solved():
    clipped = mon.equilibrium(operator(np.eye(1), 1.0), np.array([[0.9]]), activations.hardtanh, alpha=100.0)
    assert abs(clipped.z.item() - 0.9) <= 1e-6
    turned = mon.equilibrium(operator(TURN, 1.0), np.array([[1.0, -1.0]]), activations.relu, alpha=4.0)
    assert_close(turned.z, [[1.0, 0.0]], scale=1, tol=1e-6)


@pytest.mark.claim("NEW-homogeneity")
@pytest.mark.parametrize("t", [1e-3, 1e3])
def test_relu_equilibria_scale_with_the_injection(t, W):
    op, b = MonotoneDense.from_weight(W, 0.5), np.array([[1.0, -2.0, 0.5]])
    one = mon.equilibrium(op, b, activations.relu, tol=1e-11).z
    scaled = mon.equilibrium(op, t * b, activations.relu, tol=1e-11 * max(1, t)).z
    assert np.abs(one).max() > 0.1
    assert_close(scaled / t, one, scale=1, tol=2e-8)


@pytest.mark.claim("NEW-cert-C2", "NEW-strong-prox")
def test_the_state_certificate_counts_strong_convexity_in_both_places():
    # sigmoid, n = 1: with m replaced by m + 3 in the discriminant alone the second bound is violated by a factor 14
    from implicitref.splitting.certificates import distance_from_state

    G, pre = 0.1, 1.3
    z_star = np.array([[1 / (1 + np.exp(-pre))]])
    op, b = operator(np.array([[G]]), G), pre - (1 - G) * z_star
    for away in (1e-3, 0.3, 5.0):
        z = z_star + away
        y, of_y, of_z = distance_from_state(mon.forward_inclusion(op, b, activations.sigmoid), 2.7, z)
        assert abs(y - z_star).item() <= of_y.item() * (1 + 1e-9)
        assert away <= of_z.item() * (1 + 1e-9)
