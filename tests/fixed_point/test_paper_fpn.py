"""The equations of FPN and JFB one after another, on random small networks; proofs step by step (FPN appendix A)."""

from __future__ import annotations

import numpy as np
import pytest
from oracles import assert_close, size

import implicitref as ir

fp = ir.fixed_point
theory = fp.theory
SEEDS = pytest.mark.parametrize("seed", range(5))


def network(seed, gamma=0.8, n=3, classes=2):
    """T = tanh(W z + U x + b) at its fixed point, S(u) = C u + c, and the cotangent of a loss at S."""
    rng = np.random.default_rng(seed)
    W = rng.normal(size=(n, n))
    T = fp.OneLayer(W * gamma / np.linalg.norm(W, 2), rng.normal(size=(n, 2)), rng.normal(size=n), ir.activations.tanh)
    x = rng.normal(size=(1, 2))
    z = fp.iterate(T, x, np.zeros((1, n)), tol=1e-14, max_iter=5000).z
    return T, x, z, rng.normal(size=(classes, n)), rng.normal(size=classes), rng


@pytest.mark.claim("FPN-Eq1")
@pytest.mark.claim("FPN-Eq2")
@pytest.mark.claim("FPN-Eq3")
@pytest.mark.claim("JFB-Eq1")
@pytest.mark.claim("JFB-Eq2")
@pytest.mark.claim("JFB-Eq3")
@pytest.mark.claim("JFB-Eq7")
def test_an_explicit_network_is_the_implicit_one_whose_map_ignores_the_state():
    _, x, _, C, c, rng = network(0)
    Q = fp.OneLayer(np.zeros((3, 3)), rng.normal(size=(3, 2)), rng.normal(size=3), ir.activations.tanh)
    explicit = np.tanh(x @ Q.U.T + Q.b) @ C.T + c  # S(Q(d))
    solution = fp.iterate(Q, x, np.zeros((1, 3)), tol=1e-12)
    assert solution.iterations == 2
    assert_close(solution.z @ C.T + c, explicit, scale=size(explicit), tol=1e-15)
    for rule in (fp.jfb, fp.implicit("dense")):  # and K = 0: every rule is backpropagation
        for name, value in fp.gradients(Q, solution.z, x, solution.z, rule).items():
            assert_close(value, Q.vjp_params(solution.z, x, solution.z)[name], scale=size(value), tol=1e-15)


@pytest.mark.claim("JFB-Eq8")
@pytest.mark.claim("JFB-Eq9")
@pytest.mark.claim("FPN-Asm2.1")
@pytest.mark.claim("JFB-Rem2.1")
@pytest.mark.claim("FPN-Rem2.1")
@SEEDS
def test_assumption_2_1_for_one_layer(seed):
    T, _, _, _, _, rng = network(seed)
    z, w, x, y = (rng.normal(size=(500, n)) * 3 for n in (3, 3, 2, 2))
    moved = np.linalg.norm(T(z, x) - T(w, y), axis=1)
    L = np.linalg.norm(np.hstack([T.W, T.U]), 2)
    assert (moved <= L * np.sqrt(((z - w) ** 2).sum(1) + ((x - y) ** 2).sum(1)) * (1 + 1e-12)).all()
    assert (theory.measured_ratio(T, x, z, w) <= T.gamma).all()


@pytest.mark.claim("FPN-Eq8")
@pytest.mark.claim("JFB-Eq11")
@pytest.mark.claim("FPN-Eq9")
@pytest.mark.claim("JFB-Eq12")
@pytest.mark.claim("FPN-Asm3.1")
@pytest.mark.claim("JFB-Asm3.1")
@SEEDS
def test_gradient_of_the_mean_loss_is_the_mean_of_the_gradients(seed):
    T, _, _, _, _, rng = network(seed)
    x, labels = rng.normal(size=(4, 2)), rng.normal(size=(4, 3))
    z = fp.iterate(T, x, np.zeros((4, 3)), tol=1e-14, max_iter=5000).z
    K = fp.maps.dense_jacobian(T, z, x)
    jac = 1 - z**2
    assert_close(np.eye(3) - K, np.eye(3) - jac[:, :, None] * T.W, scale=1.0, tol=1e-13)
    whole = fp.gradients(T, z, x, (z - labels) / 4, "implicit:dense")
    parts = [fp.gradients(T, z[i : i + 1], x[i : i + 1], z[i : i + 1] - labels[i], "implicit:dense") for i in range(4)]
    for name, value in whole.items():
        assert_close(value, np.mean([part[name] for part in parts], axis=0), scale=size(value), tol=1e-13)


@pytest.mark.claim("FPN-Eq18")
@pytest.mark.claim("JFB-Eq21")
@pytest.mark.claim("FPN-Eq57")
@pytest.mark.claim("FPN-Eq58")
@pytest.mark.claim("JFB-Cor3.1")
@SEEDS
def test_the_two_papers_directions_away_from_the_fixed_point(seed):
    T, x, z, C, c, rng = network(seed)

    def cotangent(u):  # of |S(u)|^2/2
        return (u @ C.T + c) @ C

    def fpn(u):
        return fp.gradients(T, u, x, cotangent(u), fp.jfb)["W"]

    def jfb(u):  # dS/du at T(u), the derivative of the loss of S(T(u)) with u held fixed
        return fp.gradients(T, u, x, cotangent(T(u, x)), fp.jfb)["W"]

    assert_close(fpn(z), jfb(z), scale=size(fpn(z)), tol=1e-12)
    u = z + 0.1 * rng.normal(size=z.shape)
    assert np.linalg.norm(fpn(u) - jfb(u)) > 1e-4 * np.linalg.norm(fpn(u))
    direction, step = rng.normal(size=T.W.shape), 1e-6
    losses = [
        ((fp.OneLayer(T.W + s * step * direction, T.U, T.b, T.activation)(u, x) @ C.T + c) ** 2).sum() / 2
        for s in (1, -1)
    ]
    slope = (losses[0] - losses[1]) / (2 * step)
    assert_close((jfb(u) * direction).sum(), slope, scale=size(slope), tol=1e-7)


# ------------------------------------------------------------------------------------------------
# Lemmas


@pytest.mark.claim("FPN-LemmaA.1")
@pytest.mark.claim("FPN-Eq21")
@pytest.mark.claim("FPN-Eq22")
@pytest.mark.claim("FPN-Eq23")
@pytest.mark.claim("FPN-Eq24")
@pytest.mark.claim("FPN-Eq25")
@pytest.mark.claim("FPN-Eq26")
@pytest.mark.claim("FPN-Eq27")
@pytest.mark.claim("FPN-Eq28")
@pytest.mark.claim("FPN-Eq29")
@pytest.mark.claim("FPN-Eq30")
@pytest.mark.claim("FPN-Eq31")
@SEEDS
def test_lemma_a_1_step_by_step(seed):
    T, x, z, _, _, rng = network(seed, gamma=0.9)
    K = fp.maps.dense_jacobian(T, z, x)[0]
    J, gamma = np.eye(3) - K, T.gamma
    v = rng.normal(size=(1, 3))
    v /= np.linalg.norm(v)
    quotient = (T(z + 1e-7 * v, x) - T(z, x)) / 1e-7
    assert_close(quotient[0], K @ v[0], scale=1.0, tol=1e-6)  # 21, 22
    assert np.linalg.norm(quotient) <= gamma * (1 + 1e-6)  # 23
    assert np.linalg.norm(K, 2) <= gamma  # 24
    for u in rng.normal(size=(200, 3)):
        assert u @ K @ u <= gamma * u @ u  # 25
        assert u @ J @ u >= (1 - gamma) * (u @ u) * (1 - 1e-12)  # 26
        assert u @ u <= (1 + gamma) ** 2 * np.sum(np.linalg.solve(J, u) ** 2) * (1 + 1e-12)  # 30
        assert np.linalg.solve(J, u) @ u >= (1 - gamma) * np.sum(np.linalg.solve(J, u) ** 2) * (1 - 1e-12)  # 31
    assert np.linalg.svd(J, compute_uv=False)[-1] >= 1 - gamma  # 27, 28
    assert_close(np.linalg.norm(J.T @ J, 2), np.linalg.norm(J, 2) ** 2, scale=4.0, tol=1e-14)  # 29
    assert np.linalg.norm(J, 2) <= 1 + gamma


@pytest.mark.claim("FPN-LemmaA.2")
@pytest.mark.claim("FPN-Eq32")
@pytest.mark.claim("FPN-Eq33")
@pytest.mark.claim("FPN-Eq34")
@pytest.mark.claim("FPN-Eq35")
@pytest.mark.claim("FPN-Eq36")
@pytest.mark.claim("FPN-Eq37")
@pytest.mark.parametrize("shift", [0.0, -3.0])  # positive eigenvalues are not needed
@SEEDS
def test_lemma_a_2(seed, shift):
    rng = np.random.default_rng(seed)
    B = rng.normal(size=(4, 4))
    A = B @ B.T + shift * np.eye(4)
    values, P = np.linalg.eigh(A)
    middle = (values[0] + values[-1]) / 2
    S = middle * np.eye(4) - A
    assert_close(S, P @ np.diag(middle - values) @ P.T, scale=size(A), tol=1e-14)  # 34 with P for P'
    assert_close(np.linalg.norm(S, 2), np.abs(middle - values).max(), scale=size(A), tol=1e-14)
    assert_close(np.linalg.norm(S, 2), (values[-1] - values[0]) / 2, scale=size(A), tol=1e-14)


# ------------------------------------------------------------------------------------------------
# Theorem 3.1 with both blocks: theta = (C, c) of S and (W, U, b) of T


def blocks(seed):
    T, x, z, C, _, rng = network(seed)
    M_T = theory.parameter_jacobian(T, z, x)
    M_S = np.vstack([np.kron(np.eye(2), z.T), np.eye(2)])  # dS/d(C, c), gradients as columns
    M = np.block([[M_S, np.zeros((M_S.shape[0], 3))], [np.zeros((M_T.shape[0], 2)), M_T]])
    dl = rng.normal(size=2)
    v = np.concatenate([dl, C.T @ dl])
    K = np.zeros((5, 5))
    K[2:, 2:] = fp.maps.dense_jacobian(T, z, x)[0]
    return T, x, z, C, dl, M, K, v


def flat(grads):
    return np.concatenate([grads[name].ravel() for name in ("W", "U", "b")])


@pytest.mark.claim("FPN-Thm3.1")
@pytest.mark.claim("FPN-Asm3.2")
@pytest.mark.claim("JFB-Asm3.2")
@pytest.mark.claim("FPN-Eq38")
@pytest.mark.claim("FPN-Eq39")
@pytest.mark.claim("FPN-Eq40")
@pytest.mark.claim("FPN-Eq41")
@pytest.mark.claim("FPN-Eq42")
@pytest.mark.claim("FPN-Eq43")
@pytest.mark.claim("FPN-Eq44")
@pytest.mark.claim("FPN-Eq46")
@pytest.mark.claim("FPN-Eq47")
@pytest.mark.claim("FPN-Eq48")
@pytest.mark.claim("FPN-Eq49")
@SEEDS
def test_theorem_3_1_as_a_preconditioned_gradient(seed):
    T, x, z, C, dl, M, K, v = blocks(seed)
    J = np.eye(5) - K.T  # transposed: the printed untransposed J gives another vector
    gradient = M @ np.linalg.solve(J, v)
    by_rule = flat(fp.gradients(T, z, x, (C.T @ dl)[None], "implicit:dense"))
    by_hand = np.concatenate([np.kron(dl, z[0]), dl, by_rule])
    assert_close(gradient, by_hand, scale=size(by_hand), tol=1e-12)  # 41 to 43
    wrong = M @ np.linalg.solve(np.eye(5) - K, v)
    assert np.linalg.norm(wrong - gradient) > 1e-5 * np.linalg.norm(gradient)
    p = -np.concatenate([np.kron(dl, z[0]), dl, flat(fp.gradients(T, z, x, (C.T @ dl)[None], fp.jfb))])
    assert_close(p, -M @ v, scale=size(p), tol=1e-13)  # 38, 44
    w = M.T @ gradient  # 46
    assert_close(w, M.T @ M @ np.linalg.solve(J, v), scale=size(w), tol=1e-12)
    assert np.linalg.norm(w) > 0  # 47, 48
    assert_close(gradient @ p, -w @ J @ np.linalg.solve(M.T @ M, w), scale=size(gradient @ p), tol=1e-11)  # 49
    assert gradient @ p < 0  # 39; kappa may be large here: one layer descends whatever kappa is


@pytest.mark.claim("FPN-Eq50")
@pytest.mark.claim("FPN-Eq51")
@pytest.mark.claim("FPN-Eq52")
@pytest.mark.claim("FPN-Eq53")
@pytest.mark.claim("FPN-Eq54")
@pytest.mark.claim("FPN-Eq55")
@pytest.mark.claim("FPN-Eq59")
@pytest.mark.claim("FPN-Eq60")
@pytest.mark.claim("FPN-Eq62")
@pytest.mark.claim("FPN-Eq63")
@pytest.mark.claim("FPN-Cor3.1")
@SEEDS
def test_the_inequalities_of_the_proof_with_their_corrected_constants(seed):
    _, _, _, _, _, M, K, v = blocks(seed)
    J, P, gamma = np.eye(5) - K.T, np.linalg.inv(M.T @ M), np.linalg.norm(K, 2)
    low, high = np.linalg.eigvalsh(P)[[0, -1]]
    middle, rng = (low + high) / 2, np.random.default_rng(seed)  # 51
    assert low > 0  # 50
    assert np.linalg.norm(J, 2) <= 1 + gamma + 1e-14  # 55
    S = middle * np.eye(5) - P
    assert_close(np.linalg.norm(S, 2), (high - low) / 2, scale=high, tol=1e-12)  # 54
    gradient = M @ np.linalg.solve(J, v)  # 59
    for w in rng.normal(size=(200, 5)):
        left, w2 = -w @ J @ P @ w, w @ w
        coercive = -middle * (1 - gamma) * w2 + w @ J @ S @ w
        assert left <= coercive + 1e-12 * high * w2  # 52
        cauchy = np.linalg.norm(J, 2) * np.linalg.norm(S, 2) * w2 * (1 + 1e-12)
        assert coercive <= -middle * (1 - gamma) * w2 + cauchy  # 53
        assert left <= -(low - gamma * high) * w2 + 1e-12 * high * w2  # 56 with its factor 2 taken away
    p, near = -M @ v, -M @ (v + 1e-3 * rng.normal(size=5))
    difference = (near - p) @ gradient
    assert abs(difference) <= np.linalg.norm(near - p) * np.linalg.norm(gradient)  # 63
    assert_close(near @ gradient, p @ gradient + difference, scale=size(p @ gradient), tol=1e-13)  # 60, 62
