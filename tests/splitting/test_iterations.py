"""The splittings: generators against the driver's maps, and all of them against enumeration (MON 3.4, appendix A)."""

from __future__ import annotations

import itertools

import laws
import numpy as np
import oracles
import pytest
import strategies
from hypothesis import given
from laws import ACTIVATIONS, METHODS
from oracles import assert_close, size

import implicitref as ir

splitting = ir.splitting


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.claim("MON-Alg1")
@pytest.mark.claim("MON-Alg2")
@pytest.mark.claim("MON-EqA9")
@pytest.mark.claim("MON-EqA10")
def test_generator_and_map_take_the_same_steps(method, name):
    W, b, activation = laws.problem(name, seed=1)
    u = np.random.default_rng(2).normal(size=b.shape)
    for alpha in (0.2, 1.0, 4.0):
        laws.check_generator(method, ir.mon.forward_inclusion(W, b, activation), alpha, u)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.claim("MON-Alg3")
@pytest.mark.claim("MON-Alg4")
def test_generator_and_map_take_the_same_steps_backward(method):
    W, b, _ = laws.problem(seed=3)
    jac = np.random.default_rng(4).uniform(size=b.shape)
    jac[0, 0], jac[0, 1] = 0.0, 1.0
    laws.check_generator(method, ir.mon.backward_inclusion(W, jac, b), 0.7, np.ones_like(b))


@pytest.mark.claim("MON-EqA8")
@pytest.mark.claim("MON-Thm1")
@pytest.mark.claim("MON-Eq1")
@pytest.mark.claim("MON-Eq2")
@pytest.mark.claim("MON-Eq3")
@given(problem=strategies.problems(activation=ir.activations.relu))
def test_four_ways_to_one_equilibrium(problem):
    W, b, relu = problem
    desired = np.stack([oracles.relu_equilibrium(W.to_dense(), row) for row in b])
    for method in ("forward-backward", "peaceman-rachford", "douglas-rachford"):
        solution = ir.mon.equilibrium(W, b, relu, method=method, tol=1e-9, max_iter=20000)
        assert_close(solution.z, desired, scale=size(desired, b) / min(W.m, 1), tol=1e-9)
        assert (np.linalg.norm(solution.z - desired, axis=1) <= solution.bound + 1e-12 * size(desired)).all()


@given(problem=strategies.problems())
def test_all_methods_agree_for_every_activation(problem):
    W, b, activation = problem
    ways = [(method, None) for method in METHODS[:3]] + [("peaceman-rachford", 0.3)]
    found = [
        ir.mon.equilibrium(W, b, activation, method=method, alpha=alpha, tol=1e-10, max_iter=50000).z
        for method, alpha in ways
    ]
    for other in found[1:]:
        assert_close(other, found[0], scale=size(found[0]), tol=1e-9)


def test_symmetric_weights_against_nonnegative_least_squares():
    A = np.random.default_rng(5).normal(size=(6, 6))
    W = ir.operators.MonotoneDense(A, np.zeros((6, 6)), 0.3)
    b = np.random.default_rng(6).normal(size=(4, 6))
    z = ir.mon.equilibrium(W, b, ir.activations.relu, tol=1e-10).z
    assert_close(z, np.stack([oracles.nnls_equilibrium(W.to_dense(), row) for row in b]), scale=size(z), tol=1e-9)


@pytest.mark.claim("MON-EqA5")
@pytest.mark.claim("MON-EqA6")
def test_resolvent_and_cayley_of_the_affine_operator(backend):
    W, b, _ = laws.problem(seed=7)
    operator = W.replace(**{name: backend(p) for name, p in W.params.items()})
    inclusion = ir.mon.forward_inclusion(operator, backend(b), ir.activations.relu)
    u, M = np.random.default_rng(8).normal(size=b.shape), W.to_dense()
    for alpha in (0.3, 2.0):
        desired = np.linalg.solve(np.eye(4) + alpha * (np.eye(4) - M), (u + alpha * b).T).T
        tol = 64 * backend.eps
        assert_close(backend.numpy(inclusion.resolvent_A(alpha)(backend(u))), desired, scale=size(u, b), tol=tol)
        assert_close(backend.numpy(inclusion.cayley_A(alpha)(backend(u))), 2 * desired - u, scale=size(u, b), tol=tol)
        assert_close(backend.numpy(inclusion.A(backend(u))), u - u @ M.T - b, scale=size(u, b, M), tol=tol)
        # R_A is the inverse of I + alpha A
        z = inclusion.resolvent_A(alpha)(backend(u))
        assert_close(backend.numpy(z + alpha * inclusion.A(z)), u, scale=size(u, b, M), tol=tol)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.claim("MON-EqA5")
def test_resolvent_and_cayley_of_the_subdifferential(name):
    _, b, activation = laws.problem(name, seed=9)
    W = laws.OPERATORS["plain"](np.asarray)
    inclusion, u = ir.mon.forward_inclusion(W, b, activation), laws.grid(10.0)[:, None]
    for alpha in (0.3, 1.0, 5.0):
        z = inclusion.resolvent_B(alpha)(u)
        assert_close(z, activation.prox(u, alpha), scale=10, tol=1e-15)
        assert_close(inclusion.cayley_B(alpha)(u), 2 * z - u, scale=10, tol=1e-14)


def test_peaceman_rachford_of_a_zero_border_network():
    # the border prox is one more activation: z = sigma(W z + b) inside, 0 on the border
    activation = ir.activations.zero_border(ir.activations.tanh, 1, shapes=[(1, 3, 3)])
    W, b, _ = laws.problem("tanh", n=9, seed=10)
    z = ir.mon.equilibrium(W, b, activation, tol=1e-11).z
    assert_close(z, activation(W.matvec(z) + b), scale=1, tol=1e-11)
    assert np.count_nonzero(z) == 2


@pytest.mark.claim("MON-Alg2")
def test_first_steps_by_hand():
    # n = 1, W = -1, b = 1, relu, alpha = 1: V = 1/3, z* = 1/2
    one = np.ones((1, 1))
    W = ir.operators.MonotoneDense(one, 0 * one, 1.0)
    inclusion = ir.mon.forward_inclusion(W, one, ir.activations.relu)
    step = lambda generator: [(float(s.u[0, 0]), float(s.z[0, 0])) for s in itertools.islice(generator, 2)]  # noqa: E731
    # PR: u_half = 0, z_half = 1/3, u = 2/3; u_half = 2/3, z_half = 5/9, u = 4/9
    assert_close(
        step(splitting.peaceman_rachford(inclusion, 1.0, 0 * one)), [[2 / 3] * 2, [4 / 9] * 2], scale=1, tol=1e-15
    )
    # DR: u = 0 + 1/3; u = 1/3 + (1/3 + 1)/3 - 1/3 = 4/9
    assert_close(
        step(splitting.douglas_rachford(inclusion, 1.0, 0 * one)), [[1 / 3] * 2, [4 / 9] * 2], scale=1, tol=1e-15
    )
    # FB with alpha = 1/4: z = 1/4, then 1/4 - (1/2 - 1)/4 = 3/8; Picard: 1, 0
    assert_close(
        step(splitting.forward_backward(inclusion, 0.25, 0 * one)), [[0.25] * 2, [0.375] * 2], scale=1, tol=1e-15
    )
    assert_close(step(splitting.picard(inclusion, 0 * one)), [[1, 1], [0, 0]], scale=1, tol=1e-15)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_a_step_from_zero_is_what_the_others_are(kind, dtype):
    # from the first on, U x + b is added to the product in one pass
    W, b, activation = (laws.problem if kind == "dense" else laws.conv_problem)("relu", seed=11)
    inclusion, alpha = ir.mon.forward_inclusion(W, b.astype(dtype), activation), 0.5
    zero, one = np.zeros_like(inclusion.b), np.ones_like(inclusion.b)
    mixed = one.copy()
    mixed.flat[mixed.size // 2] = 0  # one entry at zero is no start from zero
    for starts in ((zero, zero, one, zero), (mixed, one, zero, mixed)):
        step = splitting.iterations.MAPS["peaceman-rachford"](inclusion, alpha)
        for u in starts:
            found, expected = step(u), next(splitting.peaceman_rachford(inclusion, alpha, u)).u
            assert_close(found, expected, scale=size(expected), tol=20 * np.finfo(dtype).eps)
            found[...] = 7  # every result is the caller's own


def test_generators_hand_out_independent_states():
    W, b, activation = laws.problem(seed=11)
    inclusion = ir.mon.forward_inclusion(W, b, activation)
    for generator in (
        splitting.peaceman_rachford(inclusion, 0.5, b),
        splitting.forward_backward(inclusion, 0.2, b),
        splitting.douglas_rachford(inclusion, 0.5, b),
    ):
        states = list(itertools.islice(generator, 4))
        copies = [(s.z.copy(), s.u.copy()) for s in states]
        next(generator)
        for state, (z, u) in zip(states, copies, strict=True):
            np.testing.assert_array_equal(state.z, z)
            np.testing.assert_array_equal(state.u, u)
        assert len({id(s.u) for s in states}) == 4
