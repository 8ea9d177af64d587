"""The convex form of the shallow ReLU problem: patterns counted, certificates against searches, prox against a QP."""

from __future__ import annotations

import math

import numpy as np
import pytest
from oracles import assert_close, size
from scipy.optimize import minimize

import implicitref as ir
from implicitref.sequential import convex


def line(m=8, seed=0):
    x = np.random.default_rng(seed).uniform(-2, 2, (m, 1))
    return np.concatenate([x, np.ones((m, 1))], axis=1), np.sin(3 * x)


# ------------------------------------------------------------------------------------------------
# the parts, on a few cones


def cones(beta):
    """Six samples, and eight of their cones with either sign in turn."""
    u, y = line(6, seed=3)
    D = convex.patterns(u).astype(float)[:8]
    return u, y[:, 0], D, np.arange(8) % 2, beta


def objective(u, y, D, side, beta, W):
    """Its value by the definition: the residual of sum_i s_i D_i U w_i, and the lengths of the w_i."""
    fitted = sum((2 * s - 1) * d * (u @ w) for s, d, w in zip(side, D, W, strict=True))
    return np.sum((y - fitted) ** 2) / 2 + beta * sum(np.linalg.norm(w) for w in W)


def test_few_steps_solve_the_problem_on_some_cones(monkeypatch):
    problem, steps, prox = cones(1e-3), [], convex._prox
    monkeypatch.setattr(convex, "INNER", 700)  # it takes 540; without acceleration or its restarts 2000 do not do
    monkeypatch.setattr(convex, "_prox", lambda *args: steps.append(None) or prox(*args))
    u, _, D, _, _ = problem
    found = convex._fista(*problem, np.zeros((8, 2)), 1e-7)
    assert all(((2 * d - 1) * (u @ w) >= -1e-12).all() for d, w in zip(D, found, strict=True))
    least = objective(*problem, found)
    rng = np.random.default_rng(0)
    for _ in range(200):
        other = found + rng.normal(size=found.shape) * 10.0 ** rng.uniform(-4, 0)
        other = np.stack([convex._project(w, u, d) for w, d in zip(other, D, strict=True)])
        assert objective(*problem, other) >= least - 1e-7
    assert len(steps) < 699


def test_the_gap_is_the_objective_less_a_bound_from_below(monkeypatch):
    problem = u, y, D, side, beta = cones(0.5)
    A = np.hstack([(2.0 * s - 1) * d[:, None] * u for s, d in zip(side, D, strict=True)])
    monkeypatch.setattr(convex, "INNER", 400)
    least = objective(*problem, convex._fista(*problem, np.zeros((8, 2)), 1e-9))
    rng = np.random.default_rng(1)
    for scale in (0.0, 1e-3, 0.1, 1.0):
        W = np.stack([convex._project(w, u, d) for w, d in zip(scale * rng.normal(size=(8, 2)), D, strict=True)])
        gap = convex._inner_gap(u, y, D, A, W, beta)
        assert gap >= objective(*problem, W) - least - 1e-9
        assert gap <= objective(*problem, W) + 1e-12  # the bound is not below 0
    assert convex._inner_gap(u, y, D, A, np.zeros((8, 2)), 1e3) <= 1e-12  # 0 is the solution, and proves it


# ------------------------------------------------------------------------------------------------
# the whole


@pytest.mark.parametrize(("m", "d"), [(2, 2), (9, 2), (6, 3), (7, 4), (5, 1)])
def test_all_patterns_are_found(m, d):
    rng = np.random.default_rng(m)
    u = rng.normal(size=(m, d))
    found = convex.patterns(u)
    assert len(found) == 2 * sum(math.comb(m - 1, k) for k in range(d))  # Cover 1965
    known = {row.tobytes() for row in found}
    assert all((u @ v > 0).tobytes() in known for v in rng.normal(size=(2000, d)))


def test_patterns_are_counted_before_they_are_sought(monkeypatch):
    u = np.random.default_rng(0).normal(size=(5, 2))
    assert len(convex.patterns(u)) == 2 * (1 + 4)
    monkeypatch.setattr(convex, "LARGEST", 10)
    assert len(convex.patterns(u)) == 10
    monkeypatch.setattr(convex, "LARGEST", 9)
    with pytest.raises(ir.HypothesisError, match="at most 9 of them"):
        convex.patterns(u)


def test_projection_on_a_cone_is_the_nearest_point():
    u, rng = line()[0], np.random.default_rng(1)
    for pattern in convex.patterns(u).astype(float)[::3]:
        w = rng.normal(size=2)
        found, G = convex._project(w, u, pattern), (2 * pattern - 1)[:, None] * u
        oracle = minimize(
            lambda v, w=w: (v - w) @ (v - w), found + 0.1, jac=lambda v, w=w: 2 * (v - w), method="SLSQP",
            constraints={"type": "ineq", "fun": lambda v, G=G: G @ v, "jac": lambda v, G=G: G},
        )  # fmt: skip
        assert (G @ found >= -1e-12).all()
        assert_close(found, oracle.x, scale=size(w), tol=1e-5)
        assert (found - w) @ (found - w) <= oracle.fun + 1e-9


@pytest.mark.parametrize("beta", [0.06, 0.3])
def test_no_network_is_below_the_dual_bound_and_the_solution_is_one(beta):
    u, y = line(6)
    found = convex.shallow_optimum(u, y, beta, tol=1e-4)
    assert 0 <= found.gap <= 1e-4 * np.vdot(y, y) / 2
    assert_close(found.primal, convex.penalised(u, y, found.V, found.c, beta), scale=1, tol=1e-12)
    assert_close(np.linalg.norm(found.V, axis=1), np.abs(found.c), scale=1, tol=1e-9)  # balanced
    assert min(searched(u, y, beta, seed) for seed in range(5)) >= found.dual - 1e-9


def searched(u, y, beta, seed, units=8):
    """What L-BFGS finds for the problem that is not convex."""
    first = np.random.default_rng(seed).normal(size=3 * units)

    def objective(flat):
        V, c = flat[: 2 * units].reshape(units, 2), flat[2 * units :]
        z = np.maximum(u @ V.T, 0)
        r = z @ c - y[:, 0]
        dV = (np.outer(r, c) * (z > 0)).T @ u + beta * V
        return (r @ r + beta * (flat @ flat)) / 2, np.concatenate([dV.ravel(), z.T @ r + beta * c])

    return minimize(objective, first, jac=True, method="L-BFGS-B", options={"maxiter": 500}).fun


def test_the_bound_is_reached_by_a_search():
    u, y = line(5)
    found = convex.shallow_optimum(u, y, 0.1, tol=1e-4)
    assert min(searched(u, y, 0.1, seed) for seed in range(10)) <= found.primal * 1.01


def test_zero_is_the_solution_under_a_large_penalty():
    u, y = line()
    found = convex.shallow_optimum(u, y, 100.0)
    assert len(found.c) == 0
    assert_close(found.dual, np.vdot(y, y) / 2, scale=1, tol=1e-12)


@pytest.mark.parametrize(
    ("u", "y", "beta", "error", "message"),
    [
        (line()[0], np.zeros((8, 2)), 1.0, ir.ShapeError, "one output"),
        (line()[0], line()[1], 0.0, ir.HypothesisError, "beta"),
        (np.ones((4, 2)), np.ones((4, 1)), 1.0, ir.HypothesisError, "general position"),
        (np.random.default_rng(0).normal(size=(60, 8)), np.ones((60, 1)), 1.0, ir.HypothesisError, "fewer samples"),
    ],
)
def test_bad_input_is_refused(u, y, beta, error, message):
    with pytest.raises(error, match=message):
        convex.shallow_optimum(u, y, beta)


def test_the_dual_bound_is_none_where_the_residual_points_away():
    y = np.array([1.0, 0.0])
    assert convex._dual(np.array([-1.0, 1.0]), y, 10.0, 1.0) == 0  # t < 0 would promise 1/4 and need the cones of -r
    assert convex._dual(np.array([1.0, 1.0]), y, 10.0, 1.0) == 0.25


def test_a_budget_that_is_too_small_is_an_error_with_the_bounds():
    u, y = line()
    with pytest.raises(ir.ConvergenceError, match="duality gap") as caught:
        convex.shallow_optimum(u, y, 0.02, max_iter=2)
    assert caught.value.solution.gap > 0
    with pytest.raises(ir.HypothesisError, match="max_iter"):
        convex.shallow_optimum(u, y, 0.02, max_iter=0)
