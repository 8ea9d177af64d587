"""Statements of FPN and JFB, each asserted directly on a small problem: numbers a reader can redo by hand, or dense
algebra."""

from __future__ import annotations

import numpy as np
import pytest
from oracles import assert_close, size

import implicitref as ir

fp = ir.fixed_point
theory = fp.theory
ONE = np.array([[1.0]])


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def linear(rng, n=3, gamma=0.9, parameters=7):
    """K with norm gamma, M, v and the map K u + M' theta + x at theta = 0."""
    K = rng.normal(size=(n, n))
    K *= gamma / np.linalg.norm(K, 2)
    M, v = rng.normal(size=(parameters, n)), rng.normal(size=(1, n))
    return K, M, v, fp.LinearMap(K, M, np.zeros(parameters))


@pytest.fixture
def layer(rng):
    W = rng.normal(size=(3, 3))
    W *= 0.8 / np.linalg.norm(W, 2)
    T = fp.OneLayer(W, rng.normal(size=(3, 2)), rng.normal(size=3), ir.activations.tanh)
    x = rng.normal(size=(1, 2))
    return T, x, fp.iterate(T, x, np.zeros((1, 3)), tol=1e-13).z


# ------------------------------------------------------------------------------------------------
# Section 2: the network


@pytest.mark.claim("FPN-Eq1", "JFB-Eq1")
def test_an_explicit_network_is_the_case_in_which_R_ignores_the_state(layer):
    T, x, _ = layer
    explicit = fp.OneLayer(0 * T.W, T.U, T.b, T.activation)
    found = fp.iterate(explicit, x, np.ones((1, 3)), tol=1e-12)
    assert found.iterations == 2  # the second application shows that nothing moves
    assert_close(found.z, T.activation(x @ T.U.T + T.b), scale=1, tol=1e-15)


@pytest.mark.claim("FPN-Eq2", "JFB-Eq2", "FPN-Eq3", "JFB-Eq3", "JFB-Eq7")
def test_the_network_is_the_limit_of_the_iteration(layer):
    T, x, z_star = layer
    for state, _ in zip(fp.picard_steps(T, x, np.zeros((1, 3))), range(200), strict=False):
        u = state.z
    assert_close(u, z_star, scale=1, tol=1e-12)
    assert_close(T(u, x), u, scale=1, tol=1e-14)


@pytest.mark.claim("FPN-Asm2.1", "FPN-Rem2.1", "JFB-Rem2.1", "JFB-Eq8", "JFB-Eq9")
def test_a_layer_is_lipschitz_in_both_and_contracts_in_the_state(layer, rng):
    T, x, z = layer
    w, y = rng.normal(size=(50, 3)), rng.normal(size=(50, 2))
    moved = np.linalg.norm(T(w, y) - T(z, x), axis=1)
    joint = np.linalg.norm(np.hstack([T.W, T.U]), 2)
    assert np.all(moved <= joint * np.hypot(np.linalg.norm(w - z, axis=1), np.linalg.norm(y - x, axis=1)) + 1e-14)
    held = T(w, np.repeat(x, 50, axis=0)) - T(z, x)
    assert np.all(np.linalg.norm(held, axis=1) <= 0.8 * np.linalg.norm(w - z, axis=1) + 1e-14)


# ------------------------------------------------------------------------------------------------
# Section 3: training


@pytest.mark.claim("FPN-Eq8", "JFB-Eq11", "FPN-Asm3.1", "JFB-Asm3.1", "FPN-Asm3.2", "JFB-Asm3.2")
def test_the_gradient_of_a_mean_loss_has_a_part_for_S_and_a_part_for_T(layer):
    # loss: mean over two samples of (s . u*)^2/2; s is theta_S, W, U, b are theta_T
    T, _, _ = layer
    x, s = np.array([[0.3, -1.0], [0.7, 0.2]]), np.array([1.0, -2.0, 0.5])

    def solved(T):
        return fp.iterate(T, x, np.zeros((2, 3)), tol=1e-13).z

    z = solved(T)
    dS = ((z @ s)[:, None] * z).mean(axis=0)
    dT = fp.gradients(T, z, x, (z @ s)[:, None] * s / 2, fp.implicit("dense"))
    h = 1e-6
    for i, e in enumerate(np.eye(3)):
        difference = [((z @ (s + t * e)) ** 2).mean() / 2 for t in (h, -h)]
        assert_close(dS[i], (difference[0] - difference[1]) / (2 * h), scale=1, tol=1e-8)
        moved = [fp.OneLayer(T.W, T.U, T.b + t * e, T.activation) for t in (h, -h)]
        difference = [((solved(M) @ s) ** 2).mean() / 2 for M in moved]
        assert_close(dT["b"][i], (difference[0] - difference[1]) / (2 * h), scale=1, tol=1e-7)


@pytest.mark.claim("FPN-Eq9", "JFB-Eq12")
def test_J_is_the_identity_minus_the_jacobian(layer):
    T, x, z = layer
    K, h = fp.maps.dense_jacobian(T, z, x)[0], 1e-6
    for i, e in enumerate(np.eye(3)):
        assert_close(K[:, i], (T(z + h * e, x) - T(z - h * e, x))[0] / (2 * h), scale=1, tol=1e-9)


@pytest.mark.claim("JFB-Eq21", "FPN-Eq18", "FPN-Eq57", "FPN-Eq58")
def test_off_the_fixed_point_the_two_papers_evaluate_S_at_different_states():
    # T = u/2 + theta, S = u^2/2: JFB (21) differentiates S(T(u)), FPN (57) has dS/du at u; at u* = 0 both are 0
    T = fp.LinearMap(ONE / 2, ONE, np.zeros(1))
    u = np.array([[1.0]])
    jfb, fpn = (-fp.gradients(T, u, 0 * u, at, fp.jfb)["theta"][0] for at in (T(u, 0 * u), u))
    assert (jfb, fpn) == (-0.5, -1.0)


# ------------------------------------------------------------------------------------------------
# FPN appendix A


@pytest.mark.claim("FPN-Eq21", "FPN-Eq22", "FPN-Eq23", "FPN-Eq24", "FPN-Eq25", "FPN-Eq26")
def test_the_norm_of_the_jacobian_is_the_largest_stretch(layer, rng):
    T, x, z = layer
    K, v = fp.maps.dense_jacobian(T, z, x)[0], rng.normal(size=(200, 3))
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    quotients = np.linalg.norm(T(z + 1e-7 * v, np.repeat(x, 200, axis=0)) - z, axis=1) / 1e-7  # (21) to (23)
    assert quotients.max() <= T.gamma + 1e-6
    assert quotients.max() <= np.linalg.norm(K, 2) + 1e-6 <= T.gamma + 2e-6  # (24)
    assert np.all(np.sum(v * (v @ K.T), axis=1) <= T.gamma)  # (25)
    assert np.all(np.sum(v * (v - v @ K.T), axis=1) >= theory.coercivity(T.gamma))  # (26)


@pytest.mark.claim("FPN-Eq27", "FPN-Eq28", "FPN-Eq29", "FPN-Eq30", "FPN-Eq31")
def test_J_has_an_inverse_which_is_coercive_too(rng):
    K, *_ = linear(rng)
    J, u = np.eye(3) - K, rng.normal(size=(200, 3))
    back = np.linalg.solve(J, u.T).T  # (27), (28): the kernel is trivial
    assert np.linalg.norm(J.T @ J, 2) <= 1.9**2  # (29)
    assert np.all(np.linalg.norm(u, axis=1) <= 1.9 * np.linalg.norm(back, axis=1))  # (30)
    assert np.all(np.sum(back * u, axis=1) >= theory.inverse_coercivity(0.9) * np.sum(u * u, axis=1))  # (31), sharper


@pytest.mark.claim("FPN-LemmaA.2", "FPN-Eq32", "FPN-Eq33", "FPN-Eq34", "FPN-Eq35", "FPN-Eq36", "FPN-Eq37")
@pytest.mark.parametrize("spectrum", [[1.0, 2.0, 5.0], [-3.0, 0.0, 1.0]])
def test_lemma_a2_needs_symmetry_only(spectrum, rng):
    Q = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    A = Q @ np.diag(spectrum) @ Q.T
    middle, half = (spectrum[-1] + spectrum[0]) / 2, (spectrum[-1] - spectrum[0]) / 2
    assert_close(np.linalg.norm(middle * np.eye(3) - A, 2), half, scale=1, tol=1e-14)


@pytest.mark.claim("FPN-Eq38", "FPN-Eq40", "FPN-Eq41", "FPN-Eq42", "FPN-Eq43", "FPN-Eq44")
def test_the_gradient_as_a_product_needs_the_transpose_of_J(rng):
    K, M, v, T = linear(rng)
    gradient = fp.gradients(T, v, v, v, fp.implicit("dense"))["theta"]
    assert_close(gradient, M @ np.linalg.solve(np.eye(3) - K.T, v[0]), scale=size(gradient), tol=1e-13)
    assert np.linalg.norm(gradient - M @ np.linalg.solve(np.eye(3) - K, v[0])) > 0.05 * np.linalg.norm(gradient)
    assert_close(-fp.gradients(T, v, v, v, fp.jfb)["theta"], -M @ v[0], scale=size(M @ v[0]), tol=1e-14)  # (44)


@pytest.mark.claim(
    "FPN-Eq39",
    "FPN-Eq46",
    "FPN-Eq47",
    "FPN-Eq48",
    "FPN-Eq49",
    "FPN-Eq50",
    "FPN-Eq51",
    "FPN-Eq52",
    "FPN-Eq53",
    "FPN-Eq54",
    "FPN-Eq55",
)
def test_the_slope_along_p_is_a_form_in_w(rng):
    K, M, v, T = linear(rng, gamma=0.3)
    gradient = fp.gradients(T, v, v, v, fp.implicit("dense"))["theta"]
    p, w, P = -M @ v[0], M.T @ gradient, np.linalg.inv(M.T @ M)
    slope, low, high = gradient @ p, *np.linalg.eigvalsh(P)[[0, -1]]
    assert_close(slope, -w @ (np.eye(3) - K.T) @ P @ w, scale=size(slope), tol=1e-12)  # (46) to (49)
    assert low > 0  # (50)
    rest = (low + high) / 2 * np.eye(3) - P  # (51)
    assert_close(np.linalg.norm(rest, 2), (high - low) / 2, scale=high, tol=1e-13)  # (54)
    assert np.linalg.norm(np.eye(3) - K, 2) <= 1.3 + 1e-14  # (55)
    assert slope <= -(low - 0.3 * high) * (w @ w)  # (52), (53), half of the printed (56)


@pytest.mark.claim("FPN-Eq59", "FPN-Eq60", "FPN-Eq62", "FPN-Eq63")
def test_the_corollary_splits_p_into_p_at_the_fixed_point_and_the_rest(rng):
    _, M, v, T = linear(rng, gamma=0.3)
    gradient = fp.gradients(T, v, v, v, fp.implicit("dense"))["theta"]
    w, (low, high) = M.T @ gradient, np.linalg.eigvalsh(np.linalg.inv(M.T @ M))[[0, -1]]
    c = theory.descent_constant(0.3, low, high)
    radius = theory.corollary_radius(c, w, gradient, np.linalg.norm(M, 2))
    moved = 0.99 * radius * gradient @ M / np.linalg.norm(gradient @ M)  # cotangent v - (u - u*): L_p = ||M||
    p = -fp.gradients(T, v, v, v - moved, fp.jfb)["theta"]
    assert abs((p + M @ v[0]) @ gradient) < c * (w @ w)  # (63) with c for the printed constant
    assert p @ gradient < 0  # (60)
