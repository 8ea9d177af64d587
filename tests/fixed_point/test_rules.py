"""Gradient rules against brute force: dense solves, complex and central differences, backpropagation step by step."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import assert_close, central_difference, size

import implicitref as ir

fp = ir.fixed_point
tanh, relu = ir.activations.tanh, ir.activations.relu
ONE = np.ones((1, 1))
STEEP = fp.LinearMap(ONE / 2, 1e10 * ONE, np.zeros(1))
SOLVERS = pytest.mark.parametrize("solver", ["picard", "anderson", "cgnr"])


def problem(seed=0, gamma=0.8, n=5, batch=3, activation=tanh):
    """A layer at its fixed points, and a cotangent."""
    rng = np.random.default_rng(seed)
    W = rng.normal(size=(n, n))
    T = fp.OneLayer(W * gamma / np.linalg.norm(W, 2), rng.normal(size=(n, 2)), rng.normal(size=n), activation)
    x = rng.normal(size=(batch, 2))
    z = fp.iterate(T, x, np.zeros((batch, n)), tol=1e-13, max_iter=5000).z
    return T, z, x, rng.normal(size=(batch, n))


def brute_force(T, z, x, g):
    """(I - K')^-1 g, K = J W formed by hand."""
    jac = 1 - np.tanh(z @ T.W.T + x @ T.U.T + T.b) ** 2
    return np.stack([np.linalg.solve(np.eye(z.shape[1]) - T.W.T * j, v) for j, v in zip(jac, g, strict=True)])


@pytest.mark.claim("JFB-Eq13")
@pytest.mark.claim("JFB-Eq14")
@pytest.mark.claim("FPN-Eq10")
@pytest.mark.claim("FPN-Eq11")
@SOLVERS
@given(seed=st.integers(0, 10**6), gamma=st.sampled_from([0.0, 0.5, 0.95]))
def test_implicit_is_the_dense_solution(solver, seed, gamma):
    T, z, x, g = problem(seed, gamma)
    exact = brute_force(T, z, x, g)
    assert_close(fp.implicit("dense")(T, z, x, g), exact, scale=size(exact), tol=1e-12)
    rule = fp.implicit(solver, tol=1e-12, max_iter=5000)
    solution = rule.solve(T, z, x, g)
    assert_close(solution.z, exact, scale=size(exact), tol=1e-10)
    np.testing.assert_array_equal(rule(T, z, x, g), solution.z)
    error = np.linalg.norm(solution.z - exact, axis=1) / np.linalg.norm(g, axis=1)
    assert (error <= solution.bound + 1e-13 * size(exact)).all()


@pytest.mark.claim("JFB-Eq14")
@pytest.mark.parametrize("seed", range(5))
def test_implicit_gradient_is_the_derivative_of_the_loss(seed):
    T, z, x, g = problem(seed, n=4)
    found = fp.gradients(T, z, x, g, fp.implicit("dense"))
    rng = np.random.default_rng(seed)
    for name, value in T.params.items():
        direction = rng.normal(size=value.shape)

        def loss(p, name=name):
            moved = fp.OneLayer(**(T.params | {name: p}), activation=tanh)
            return (g * fp.iterate(moved, x, z, tol=1e-13, max_iter=3000).z).sum()

        slope = central_difference(loss, value, direction, 1e-3)
        assert_close((found[name] * direction).sum(), slope, scale=size(slope), tol=1e-8)


@pytest.mark.claim("JFB-Eq22")
@pytest.mark.parametrize("k", [0, 1, 2, 5, 20])
@pytest.mark.parametrize("seed", range(3))
def test_neumann_is_backpropagation_through_k_plus_one_steps(k, seed):
    T, z, x, g = problem(seed, gamma=0.9)
    total = {name: np.zeros_like(value) for name, value in T.params.items()}
    w = g  # unroll k + 1 steps from z*, each with its own use of the parameters, and sum
    for _ in range(k + 1):
        total = {name: total[name] + value for name, value in T.vjp_params(z, x, w).items()}
        w = T.vjp_state(z, x, w)
    found = fp.gradients(T, z, x, g, fp.neumann(k))
    for name in total:
        assert_close(found[name], total[name], scale=size(total[name]), tol=1e-12)


@pytest.mark.claim("JFB-Eq22")
@given(seed=st.integers(0, 10**6), gamma=st.sampled_from([0.3, 0.8, 0.99]), k=st.integers(0, 30))
def test_neumann_error_is_bounded(seed, gamma, k):
    T, z, x, g = problem(seed, gamma)
    error = np.linalg.norm(fp.neumann(k)(T, z, x, g) - brute_force(T, z, x, g), axis=1)
    assert (error <= fp.theory.neumann_error(T.gamma, k) * np.linalg.norm(g, axis=1) * (1 + 1e-9) + 1e-13).all()


@pytest.mark.claim("JFB-Eq22")
def test_neumann_error_is_attained():
    T = fp.LinearMap(0.7 * np.eye(2), np.eye(2), np.zeros(2))
    g = np.array([[3.0, 4.0]])
    for k in range(10):
        error = np.linalg.norm(fp.neumann(k)(T, g, g, g) - g / 0.3)
        assert_close(error, 5 * fp.theory.neumann_error(0.7, k), scale=5.0, tol=1e-14)


@pytest.mark.claim("JFB-Eq16")
@pytest.mark.claim("FPN-Eq13")
@pytest.mark.claim("JFB-Eq20")
@pytest.mark.claim("FPN-Eq17")
def test_jfb_is_neumann_0_and_the_derivative_with_the_state_held_fixed():
    T, z, x, g = problem()
    found = fp.gradients(T, z, x, g, fp.jfb)
    for rule in (fp.neumann(0), "jfb", "neumann:0"):
        for name, value in fp.gradients(T, z, x, g, rule).items():
            np.testing.assert_array_equal(value, found[name])
    assert fp.jfb(T, z, x, g) is g
    for name, value in T.params.items():
        direction = np.random.default_rng(0).normal(size=value.shape)

        def loss(p, name=name):
            return (g * fp.OneLayer(**(T.params | {name: p}), activation=tanh)(z, x)).sum()

        slope = central_difference(loss, value, direction, 1e-3)
        assert_close((found[name] * direction).sum(), slope, scale=size(slope), tol=1e-9)


# ------------------------------------------------------------------------------------------------
# CG on the normal equations


@pytest.mark.claim("JFB-Tab2")
def test_the_papers_stopping_rule_ends_after_one_step_on_a_mean_loss():
    T, z, x, g = problem(gamma=0.9, batch=100)
    g = g / 100  # as the gradient of a mean loss
    exact = brute_force(T, z, x, g)
    papers = fp.implicit("cgnr", stop="absolute", tol=0.1).solve(T, z, x, g)
    sound = fp.implicit("cgnr", tol=1e-8).solve(T, z, x, g)
    assert papers.iterations == 1
    assert sound.iterations > 1
    assert np.isnan(papers.bound).all()
    errors = [np.linalg.norm(s.z - exact) / np.linalg.norm(exact) for s in (papers, sound)]
    assert errors[0] > 0.05
    assert errors[1] < 1e-7
    # one step of CG from w = g along s = (I - K) r, r = K' g
    K = fp.linearise(T, z, x)
    r = K.rmatvec(g)
    s = r - K.matvec(r)
    q = s - K.rmatvec(s)
    step = (s * s).sum(1) / (q * q).sum(1)
    assert_close(papers.z, g + step[:, None] * s, scale=size(g), tol=1e-14)


def test_cgnr_ends_after_n_steps_and_needs_no_contraction():
    rng = np.random.default_rng(0)
    for _ in range(20):
        T = fp.LinearMap(2 * rng.normal(size=(6, 6)), np.eye(6), np.zeros(6))
        g = rng.normal(size=(4, 6))
        exact = np.linalg.solve(np.eye(6) - T.K.T, g.T).T
        if np.linalg.cond(np.eye(6) - T.K) > 30:
            continue
        solution = fp.implicit("cgnr", tol=1e-9).solve(T, g, g, g)
        assert solution.iterations <= 9
        assert_close(solution.z, exact, scale=size(exact), tol=1e-7)


def test_cgnr_without_a_jvp_says_what_to_do():
    T, z, x, g = problem()
    bare = fp.Map(T.__call__, T.vjp_state, T.vjp_params)
    with pytest.raises(ir.HypothesisError, match=r"T must offer jvp_state"):
        fp.gradients(bare, z, x, g, fp.implicit("cgnr"))
    for solver in ("picard", "anderson", "dense"):
        assert_close(fp.implicit(solver, tol=1e-11)(bare, z, x, g), brute_force(T, z, x, g), scale=size(g), tol=1e-9)


# ------------------------------------------------------------------------------------------------
# Scale, batches, failure, arrays, memory


@SOLVERS
def test_the_tolerance_is_relative_and_zero_cotangents_are_zero(solver):
    T, z, x, g = problem(batch=4)
    rule = fp.implicit(solver, tol=1e-6)
    scaled = g * np.array([1.0, 1e-12, 1e12, 0.0])[:, None]
    a, b = rule.solve(T, z, x, g), rule.solve(T, z, x, scaled)
    assert_close(b.z[:3] / np.array([1.0, 1e-12, 1e12])[:, None], a.z[:3], scale=size(a.z), tol=1e-12)
    assert not b.z[3].any()


@SOLVERS
def test_no_cotangent_depends_on_batch_mates(solver):
    T, z, x, g = problem(batch=30, gamma=0.95)
    rule = fp.implicit(solver, tol=1e-3)
    alone = np.concatenate([rule(T, z[i : i + 1], x[i : i + 1], g[i : i + 1]) for i in range(30)])
    assert_close(rule(T, z, x, g), alone, scale=size(alone), tol=1e-9)


def test_where_the_adjoint_iteration_diverges_it_says_so():
    T = fp.LinearMap(np.array([[-1.5]]), np.array([[1.0]]), np.zeros(1))
    one = np.array([[1.0]])
    with pytest.raises(ir.ConvergenceError, match=r"measured ratio of residuals is 1.5"):
        fp.gradients(T, one, one, one, fp.implicit())
    for solver in ("cgnr", "anderson", "dense"):
        assert_close(fp.implicit(solver)(T, one, one, one), [[0.4]], scale=1.0, tol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda T, z, x, g: fp.implicit("gmres"), ir.HypothesisError, "solver must be one of"),
        (lambda T, z, x, g: fp.implicit(stop="absolute"), ir.HypothesisError, "stop must be 'relative'"),
        (lambda T, z, x, g: fp.implicit(tol=-1), ir.HypothesisError, "tol must be a finite number > 0"),
        (lambda T, z, x, g: fp.implicit("dense").solve(T, z, x, g), ir.HypothesisError, "no Solution"),
        (lambda T, z, x, g: fp.neumann(-1), ir.HypothesisError, "k must be an integer >= 0"),
        (lambda T, z, x, g: fp.neumann(1.5), ir.HypothesisError, "got 1.5"),
        (lambda T, z, x, g: fp.gradients(T, z, x, g, "bptt"), ir.HypothesisError, "rule must be jfb, neumann:k"),
        (lambda T, z, x, g: fp.gradients(T, z, x, g, "neumann:-1"), ir.HypothesisError, "got 'neumann:-1'"),
        (lambda T, z, x, g: fp.gradients(T, z, x, g, "implicit:lu"), ir.HypothesisError, "got 'implicit:lu'"),
        (lambda T, z, x, g: fp.gradients(STEEP, ONE, ONE, 1e308 * ONE, "jfb"), ir.HypothesisError, "overflows float64"),
        (lambda T, z, x, g: fp.gradients(T, z, x, g, 3), ir.HypothesisError, "rule must be a function"),
        (lambda T, z, x, g: fp.gradients(T, z, x, g[:, :2], fp.jfb), ir.ShapeError, "g must have the shape of z"),
        (lambda T, z, x, g: fp.gradients(T, z, x, g * np.nan, fp.jfb), ir.HypothesisError, "g must be finite"),
    ],
)
def test_bad_input(call, error, words):
    with pytest.raises(error, match=words):
        call(*problem())


def test_rules_by_name():
    T, z, x, g = problem()
    for name, rule in {
        "implicit": fp.implicit(),
        "implicit:dense": fp.implicit("dense"),
        "neumann:4": fp.neumann(4),
    }.items():
        np.testing.assert_array_equal(fp.rule_named(name)(T, z, x, g), rule(T, z, x, g))


@pytest.mark.parametrize(
    "rule", ["jfb", "neumann:3", "implicit", "implicit:anderson", "implicit:cgnr", "implicit:dense"]
)
def test_every_backend(backend, rule):
    T, z, x, g = problem(gamma=0.5, batch=1)
    moved = fp.OneLayer(backend(T.W), backend(T.U), backend(T.b), tanh)
    wide = fp.gradients(T, z, x, g, rule)
    found = fp.gradients(moved, backend(z), backend(x), backend(g), rule)
    for name, value in found.items():
        assert isinstance(value, type(backend(z)))
        assert_close(backend.numpy(value), wide[name], scale=size(wide[name]), tol=3e-6)


def test_training_memory_does_not_grow_with_the_iterations():
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=(8, 2000)), rng.normal(size=(8, 2000))

    def peak(gamma):
        T = fp.Map(lambda z, x: gamma * z + x, lambda z, x, w: gamma * w, lambda z, x, w: {"x": w}, gamma=gamma)
        tracemalloc.start()
        solution = fp.iterate(T, x, 0 * x, tol=1e-3, max_iter=5000)
        fp.gradients(T, solution.z, x, g, fp.implicit(tol=1e-6, max_iter=5000))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return solution.iterations, found

    peak(0.1)
    (few, small), (many, large) = peak(0.2), peak(0.99)
    assert few <= 12
    assert many >= 1000
    assert large <= 1.1 * small + many * 8 * 8 * 6  # and the residuals
