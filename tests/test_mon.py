"""Equilibria and their gradients: definitions, dense formulas, differences, invariants (MON section 3, register B)."""

from __future__ import annotations

import laws
import numpy as np
import oracles
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st
from laws import ACTIVATIONS
from oracles import assert_close, size

import implicitref as ir

MATRIX = pytest.mark.parametrize(
    ("name", "m", "alpha"), [(name, m, alpha) for name in ACTIVATIONS for m in (0.05, 1.0) for alpha in (0.2, 1.0, 4.0)]
)


def reachable(m: float, activation) -> float:
    """A tolerance above the rounding floor, eps (1 + ||W||)/m."""
    return 1e-12 if m + activation.strong >= 0.5 else 1e-11


@MATRIX
@pytest.mark.claim("MON-Eq2")
@pytest.mark.claim("MON-Eq9")
@pytest.mark.claim("MON-Thm1")
@pytest.mark.claim("MON-Thm2")
@pytest.mark.claim("MON-Thm3")
@pytest.mark.claim("MON-Alg4")
def test_defect_and_every_gradient(name, m, alpha):
    W, b, activation = laws.problem(name, m=m, seed=1, g=0.8, h=1.2)
    laws.check_fixed_point(W, b, activation, alpha, reachable(m, activation))
    laws.check_gradients_dense(W, b, activation, alpha, reachable(m, ACTIVATIONS["relu"]))
    laws.check_gradients_difference(W, b, activation, alpha, reachable(m, ACTIVATIONS["relu"]))


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("method", ["forward-backward", "peaceman-rachford", "douglas-rachford"])
@pytest.mark.claim("MON-Alg1")
@pytest.mark.claim("MON-Alg3")
def test_every_method_forward_and_backward(method, name):
    W, b, activation = laws.problem(name, seed=2)
    z = ir.mon.equilibrium(W, b, activation, method=method, tol=1e-11, max_iter=20000).z
    assert_close(z, laws.exact(W, b, activation), scale=size(z), tol=1e-11)
    dz = np.random.default_rng(3).normal(size=b.shape)
    grads, solution = ir.mon.equilibrium_vjp(W, b, activation, z, dz, method=method, tol=1e-11, max_iter=20000)
    jac = activation.derivative(W.matvec(z) + b)
    assert_close(grads["injection"], oracles.implicit_dpre(W.to_dense(), jac, dz), scale=size(dz), tol=1e-10)
    np.testing.assert_array_equal(solution.z, grads["injection"])


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.claim("MON-Thm3")
def test_singular_weights_and_plain_factors(name):
    W, activation = laws.OPERATORS["singular W"](np.asarray), ACTIVATIONS[name]
    assert np.linalg.matrix_rank(W.to_dense()) == 2
    for seed in range(100):
        b = np.random.default_rng(seed).normal(size=(2, 4))
        if oracles.clear_of_kinks(name, laws.exact(W, b, activation) @ W.to_dense().T + b):
            break
    laws.check_fixed_point(W, b, activation, None, 1e-12)
    laws.check_gradients_dense(W, b, activation, None, 1e-12)
    laws.check_gradients_difference(W, b, activation, None, 1e-12)


@pytest.mark.parametrize("name", ["relu", "hardtanh", "soft_threshold(0.5)"])
def test_zeros_in_the_jacobian(name):
    # units that are off take no part: dpre is exactly zero there
    W, b, activation = laws.problem(name, seed=4, batch=4)
    z = laws.exact(W, b, activation)
    jac = activation.derivative(W.matvec(z) + b)
    assert (jac == 0).any()
    assert (jac == 1).any()
    grads, _ = ir.mon.equilibrium_vjp(W, b, activation, z, np.ones_like(z), tol=1e-12)
    assert (grads["injection"][jac == 0] == 0).all()
    laws.check_gradients_dense(W, b, activation, 0.7, 1e-12)


@pytest.mark.claim("MON-Eq11")
@pytest.mark.claim("MON-Eq12")
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_injection_layer_gradients(name):
    # through z = equilibrium(U x + b): gradients of U, b, x by affine_vjp against differences
    rng = np.random.default_rng(5)
    W, _, activation = laws.problem(name, seed=5)
    dz, M = rng.normal(size=(2, 4)), W.to_dense()
    for seed in range(100):
        rng = np.random.default_rng(seed)
        at = {"x": rng.normal(size=(2, 3)), "U": rng.normal(size=(4, 3)), "b": rng.normal(size=4)}
        z = laws.exact(W, ir.layers.affine(**at), activation)
        if oracles.clear_of_kinks(name, z @ M.T + ir.layers.affine(**at)):
            break
    grads, _ = ir.mon.equilibrium_vjp(W, ir.layers.affine(**at), activation, z, dz, tol=1e-12)
    found = dict(zip(("x", "U", "b"), ir.layers.affine_vjp(at["x"], at["U"], grads["injection"]), strict=True))
    for key, gradient in found.items():
        direction = rng.normal(size=at[key].shape)
        direction /= np.linalg.norm(direction)

        def loss(p, key=key):
            injection = ir.layers.affine(**(at | {key: p}))
            return float((dz * oracles.newton_equilibria(M, injection, name, z)).sum())

        difference = oracles.central_difference(loss, at[key], direction, 1e-4)
        assert_close((gradient * direction).sum(), difference, scale=float(np.linalg.norm(gradient)) + 1e-3, tol=1e-7)


@pytest.mark.claim("MON-Eq10")
@pytest.mark.claim("MON-Eq11")
@pytest.mark.claim("MON-Eq13")
@pytest.mark.claim("MON-Eq14")
@pytest.mark.claim("MON-Thm2")
@given(problem=strategies.problems())
def test_implicit_matrix_is_the_derivative_of_the_equilibrium(problem):
    W, b, activation = problem
    z = laws.exact(W, b, activation)
    pre = z @ W.to_dense().T + b
    if not oracles.clear_of_kinks(repr(activation), pre):
        return  # at kinks there is no derivative; Clarke elements have their own test
    M = ir.mon.implicit_matrix(W.to_dense(), activation.derivative(pre)[0])
    change = np.random.default_rng(6).normal(size=W.size)
    change *= 1e-6 / np.linalg.norm(change) * W.m
    up, down = (
        oracles.newton_equilibrium(W.to_dense(), b[0] + sign * change, repr(activation), z[0]) for sign in (1, -1)
    )
    assert_close((up - down) / 2, M @ change, scale=1e-6, tol=1e-4)
    v = np.random.default_rng(7).normal(size=W.size)
    assert v @ M @ v >= 0 - 1e-12 * (v @ v) / W.m
    assert (M @ v) @ v >= W.m * ((M @ v) ** 2).sum() - 1e-11 * (v @ v) / W.m
    assert np.linalg.norm(M, 2) <= (1 + 1e-11) / W.m


# ------------------------------------------------------------------------------------------------
# Theorem 3


@pytest.mark.claim("MON-Thm3")
@pytest.mark.claim("MON-Eq18")
@pytest.mark.claim("MON-Eq19")
@pytest.mark.claim("MON-Eq20")
@pytest.mark.claim("NEW-backward-zero")
@pytest.mark.parametrize("name", laws.OPERATORS)
def test_zero_of_the_backward_inclusion(name):
    # dpre = J u*, (I - W') dpre + D dpre = v where J > 0, u* = v + W' dpre = (I - J W)^-T v; W singular, zeros in J
    W = laws.OPERATORS[name](np.asarray)
    rng, n, M = np.random.default_rng(8), laws.count(W), W.to_dense()
    jac, v = rng.uniform(0.1, 1, size=(3, n)), rng.normal(size=(3, n))
    jac[0, 0], jac[-1, -1] = 0.0, 1.0
    shaped = lambda rows: rows.reshape(3, *W.state_shape)  # noqa: E731
    inclusion = ir.mon.backward_inclusion(W, shaped(jac), shaped(v))
    solution = ir.splitting.solve(inclusion, shaped(np.zeros_like(v)), alpha=0.8, tol=1e-11, max_iter=100000)
    dpre, u_star = laws.flat(solution.z), laws.flat(ir.mon.adjoint_state(W, solution.z, shaped(v)))
    desired = np.stack([np.linalg.solve((np.eye(n) - j[:, None] * M).T, row) for j, row in zip(jac, v, strict=True)])
    assert_close(u_star, desired, scale=size(desired, M), tol=2e-11)
    assert_close(dpre, jac * u_star, scale=size(desired), tol=2e-11)
    on = jac > 0
    residual = dpre - dpre @ M + (1 / np.where(on, jac, 1) - 1) * dpre - v
    assert_close(residual[on], np.zeros(on.sum()), scale=size(desired, M), tol=1e-9)
    assert dpre[0, 0] == 0


@pytest.mark.claim("MON-Eq24")
@pytest.mark.claim("MON-Eq25")
@given(seed=strategies.seeds, alpha=st.sampled_from([1e-3, 0.3, 1.0, 5.0, 1e3]))
def test_adjoint_prox_is_the_resolvent_of_d_u_minus_v(seed, alpha):
    rng = np.random.default_rng(seed)
    jac, v, u = rng.uniform(0.05, 1, size=(2, 3)), rng.normal(size=(2, 3)), rng.normal(size=(2, 3))
    B = ir.mon.AdjointProx(jac, v)
    z = B.prox(u, alpha)
    assert_close(z + alpha * ((1 / jac - 1) * z - v), u, scale=size(u, v) * (1 + alpha) / 0.05, tol=1e-14)
    assert_close(B.reflection(alpha)(u), 2 * z - u, scale=size(u, v) * (1 + alpha), tol=1e-14)
    assert_close(B.prox(B.root(u, alpha), 1.0), z, scale=size(u, v) * (1 + alpha), tol=1e-13)
    off = ir.mon.AdjointProx(np.zeros_like(v), v)
    np.testing.assert_array_equal(off.prox(u, alpha), np.zeros_like(u))


@pytest.mark.claim("MON-Eq24")
@pytest.mark.claim("MON-Alg3")
@pytest.mark.claim("MON-Alg4")
@pytest.mark.parametrize("method", ["forward-backward", "peaceman-rachford"])
def test_printed_denominator_gives_two_thirds_for_two(method):
    # n = 1, W = 1/2, J = 1, v = 1
    one = np.ones((1, 1))
    W = ir.operators.MonotoneDense(0 * one, 0 * one, 0.5)

    class Printed(ir.mon.AdjointProx):
        def prox(self, u, alpha=1.0):
            return (u + alpha * self.dz) / (1 + alpha * (1 + (1 / self.jac - 1)))

        def resolvent(self, alpha):
            return lambda u: self.prox(u, alpha)

        def reflection(self, alpha):
            return lambda u: 2 * self.prox(u, alpha) - u

    def limit(B):
        inclusion = ir.splitting.Inclusion(ir.operators.Transpose(W), 0 * one, B, 0.5)
        step, u = ir.splitting.iterations.MAPS[method](inclusion, 0.7), one
        for _ in range(400):
            u = step(u)
        return float(B.prox(u, 0.7)[0, 0])

    assert_close(limit(ir.mon.AdjointProx(one, one)), 2.0, scale=1, tol=1e-12)
    assert_close(limit(Printed(one, one)), 2 / 3, scale=1, tol=1e-12)


@pytest.mark.claim("MON-Eq9")
def test_printed_minus_sign_solves_the_problem_with_the_opposite_injection():
    W, b, relu = laws.problem(seed=9)

    class Printed(ir.splitting.Inclusion):
        def resolvent_A(self, alpha):
            V = self.W.resolvent(alpha)
            return lambda u: V.matvec(u - alpha * self.b)

    inclusion = Printed(W, b, relu, W.m)
    generator = ir.splitting.peaceman_rachford(inclusion, 0.5, np.zeros_like(b))
    for _ in range(400):
        state = next(generator)
    assert_close(state.z, laws.exact(W, -b, relu), scale=1, tol=1e-11)
    assert np.abs(state.z - laws.exact(W, b, relu)).max() > 0.1


@pytest.mark.claim("MON-Eq8")
@pytest.mark.claim("MON-Alg1")
def test_sigma_in_place_of_the_prox_finds_another_point():
    # n = 1, W = 0, b = 1, tanh, alpha = 1/2: the limit is 0.687894, the truth tanh 1 = 0.761594
    z = 0.0
    for _ in range(300):
        z = np.tanh(z - 0.5 * (z - 1.0))
    assert_close(z, 0.687894, scale=1, tol=1e-6)
    W = ir.operators.MonotoneDense(np.zeros((1, 1)), np.zeros((1, 1)), 1.0)
    for method in ("forward-backward", "peaceman-rachford"):
        solution = ir.mon.equilibrium(W, np.ones((1, 1)), ir.activations.tanh, method=method, alpha=0.5, tol=1e-12)
        assert_close(solution.z, [[np.tanh(1.0)]], scale=1, tol=1e-12)


@pytest.mark.claim("MON-Thm2")
def test_kinks_give_a_clarke_element_for_the_injection_not_for_the_input():
    # n = 2, W = 0, U = (1, -1)', x = 0, loss z_1 - z_2 = x, whose gradient is 1: J = 0 gives 0
    W = ir.operators.MonotoneDense(np.zeros((2, 2)), np.zeros((2, 2)), 1.0)
    U, x, b = np.array([[1.0], [-1.0]]), np.zeros((1, 1)), np.zeros(2)
    z = ir.mon.equilibrium(W, ir.layers.affine(x, U, b), ir.activations.relu).z
    dz = np.array([[1.0, -1.0]])
    grads, _ = ir.mon.equilibrium_vjp(W, ir.layers.affine(x, U, b), ir.activations.relu, z, dz)
    clarke = [[j1 * 1.0, -j2 * 1.0] for j1 in (0, 1) for j2 in (0, 1)]
    assert grads["injection"].tolist()[0] in clarke
    dx, _, _ = ir.layers.affine_vjp(x, U, grads["injection"])
    assert float(dx[0, 0]) in (0.0, 2.0)  # not 1


# ------------------------------------------------------------------------------------------------
# Invariants


def solve(W, b, activation, **options):
    return ir.mon.equilibrium(
        W, b, activation, **({"tol": 1e-12 if W.m >= 0.5 else 1e-11, "max_iter": 50000} | options)
    ).z


@given(problem=strategies.problems(), seed=strategies.seeds)
def test_permutation(problem, seed):
    W, b, activation = problem
    order = np.random.default_rng(seed).permutation(W.size)
    z = solve(W, b, activation, tol=1e-11)
    permuted = W.replace(A=W.A[:, order], B=W.B[np.ix_(order, order)])
    assert_close(solve(permuted, b[:, order], activation, tol=1e-11), z[:, order], scale=size(z), tol=1e-10)


@pytest.mark.claim("NEW-homogeneity")
@pytest.mark.parametrize("name", ["relu", "leaky_relu(0.3)", "leaky_relu(1)"])
@pytest.mark.parametrize("t", [1e-3, 0.5, 7.0, 1e3])
def test_positive_homogeneity(name, t):
    W, b, activation = laws.problem(name, seed=10)
    z = solve(W, b, activation)
    assert_close(solve(W, t * b, activation, tol=1e-12 * max(t, 1)), t * z, scale=t * size(z), tol=1e-9)


@pytest.mark.parametrize("name", ["tanh", "hardtanh", "arctan", "soft_threshold(0.5)", "leaky_relu(1)"])
def test_odd_symmetry(name):
    W, b, activation = laws.problem(name, seed=11)
    assert_close(solve(W, -b, activation), -solve(W, b, activation), scale=size(b), tol=1e-10)


@given(
    problem=strategies.problems(),
    first=st.sampled_from([0.2, 1.0, 4.0]),
    second=st.sampled_from([0.1, 0.5, 3.0]),
    seed=strategies.seeds,
)
def test_the_equilibrium_depends_on_neither_alpha_nor_start(problem, first, second, seed):
    W, b, activation = problem
    start = np.random.default_rng(seed).normal(size=b.shape) * 10
    one = solve(W, b, activation, alpha=first, tol=1e-10)
    other = solve(W, b, activation, alpha=second, tol=1e-10, start=start)
    assert_close(other, one, scale=size(one), tol=1e-9)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_zero_weight_is_the_activation_and_identity_is_a_linear_solve(name):
    b = np.random.default_rng(12).normal(size=(3, 4))
    W = ir.operators.MonotoneDense(np.zeros((4, 4)), np.zeros((4, 4)), 1.0)
    assert_close(solve(W, b, ACTIVATIONS[name]), ACTIVATIONS[name](b), scale=size(b), tol=1e-11)
    W = laws.OPERATORS["plain"](np.asarray)
    linear = np.linalg.solve(np.eye(4) - W.to_dense(), b.T).T
    assert_close(solve(W, b, ir.activations.leaky_relu(1.0)), linear, scale=size(linear), tol=1e-11)


@pytest.mark.claim("MON-Eq1")
def test_picard_on_a_contraction_and_forward_backward_at_one():
    W, b, activation = laws.problem("tanh", seed=13)
    small = W.replace(A=W.A * 0.3, B=W.B * 0.3)
    assert np.linalg.norm(small.to_dense(), 2) < 1
    z = solve(small, b, activation, method="picard")
    iterate = np.zeros_like(b)
    for _ in range(2000):
        iterate = np.tanh(iterate @ small.to_dense().T + b)
    assert_close(z, iterate, scale=1, tol=1e-11)
    assert_close(solve(small, b, activation, method="forward-backward", alpha=1.0), iterate, scale=1, tol=1e-11)


@pytest.mark.claim("NEW-strong-prox")
def test_sigmoid_networks_are_solved_with_their_larger_constant():
    W, b, sigmoid = laws.problem("sigmoid", m=0.05, seed=14)
    assert ir.mon.forward_inclusion(W, b, sigmoid).m == 3.05
    laws.check_fixed_point(W, b, sigmoid, None, 1e-12)


def test_every_backend_gives_the_numpy_answer(backend):
    for name in ("relu",) if backend.name == "jax" else ("relu", "tanh", "softplus"):  # JAX compiles every shape anew
        W, b, activation = laws.problem(name, seed=15, g=0.9, h=1.1)
        dz, tol = np.random.default_rng(16).normal(size=b.shape), 1e-10 if backend.double else 3e-5
        z = laws.exact(W, b, activation)
        grads, _ = ir.mon.equilibrium_vjp(W, b, activation, z, dz, tol=1e-11)
        there = W.replace(**{key: backend(p) for key, p in W.params.items()})
        solution = ir.mon.equilibrium(there, backend(b), activation, tol=tol)
        assert solution.z.dtype == backend(b).dtype
        assert_close(backend.numpy(solution.z), z, scale=size(z), tol=tol + 1e2 * backend.eps)
        found, _ = ir.mon.equilibrium_vjp(there, backend(b), activation, solution.z, backend(dz), tol=tol)
        for key, gradient in found.items():
            assert gradient.dtype == backend(b).dtype
            assert_close(backend.numpy(gradient), grads[key], scale=10 * size(grads[key]), tol=tol + 1e2 * backend.eps)


@pytest.mark.parametrize("method", ["forward-backward", "douglas-rachford"])
def test_other_methods_on_every_backend(method, backend):
    W, b, relu = laws.problem(seed=17)
    there = W.replace(**{key: backend(p) for key, p in W.params.items()})
    z = ir.mon.equilibrium(there, backend(b), relu, method=method, tol=1e-4).z
    assert_close(backend.numpy(z), laws.exact(W, b, relu), scale=1, tol=2e-4)
