"""The driver: when it stops, what it returns, how it fails."""

from __future__ import annotations

import importlib
import itertools
import math
import pickle

import laws
import numpy as np
import oracles
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st
from oracles import assert_close, size

import implicitref as ir

relu, hardtanh = ir.activations.relu, ir.activations.hardtanh


def zero_weight(n: int = 1):
    return ir.operators.MonotoneDense(np.zeros((n, n)), np.zeros((n, n)), 1.0)


def scaled_rotation(m: float = 1.0, s: float = 2.0):
    """I - W = [[m, -s], [s, m]]."""
    return ir.operators.MonotoneDense.from_weight(np.eye(2) - np.array([[m, -s], [s, m]]), m)


# ------------------------------------------------------------------------------------------------
# The rule of stopping

FOOLED = {
    # W, injection, activation, alpha, exact equilibrium; the printed rule stops at once
    "hardtanh, n = 1": (zero_weight(), np.array([[0.9]]), hardtanh, 100.0, np.array([[0.9]])),
    "relu, n = 2": (scaled_rotation(), np.array([[1.0, -1.0]]), relu, 4.0, np.array([[1.0, 0.0]])),
}


@pytest.mark.claim("NEW-stopping-fooled")
@pytest.mark.claim("MON-Alg2")
@pytest.mark.parametrize("case", FOOLED)
def test_printed_rule_accepts_a_non_solution_and_the_certificate_does_not(case):
    W, b, activation, alpha, z_star = FOOLED[case]
    fooled = ir.mon.equilibrium(W, b, activation, alpha=alpha, stop="relative-change", tol=1e-6)
    error = np.linalg.norm(fooled.z - z_star, axis=1)
    assert fooled.iterations <= 2
    assert (error > 0.09).all()
    assert fooled.converged.all()  # by the rule that was asked for
    assert (fooled.bound >= error).all()  # and the bound tells
    solved = ir.mon.equilibrium(W, b, activation, alpha=alpha, tol=1e-6)
    assert np.linalg.norm(solved.z - z_star) <= 1e-6
    assert (solved.bound <= 1e-6).all()


@pytest.mark.claim("NEW-stopping-fooled")
def test_relative_change_is_the_papers_number():
    W, b, activation = laws.problem("tanh", seed=1)
    solution = ir.mon.equilibrium(W, b, activation, alpha=0.5, stop="relative-change", tol=1e-3, keep=True)
    z = [np.zeros_like(b), *(state.z for state in solution.states)]
    change = [np.linalg.norm(b_ - a, axis=1) / np.linalg.norm(b_, axis=1) for a, b_ in itertools.pairwise(z)]
    assert_close(solution.residuals, change, scale=1, tol=1e-12)
    assert (solution.residuals[-1] <= 1e-3).all()
    assert (solution.residuals[:-1].max(axis=1) > 1e-3).all()


@given(problem=strategies.problems(), method=st.sampled_from(laws.METHODS[:3]), tol=st.sampled_from([1e-2, 1e-5, 1e-9]))
def test_tolerance_means_distance_for_every_sample(problem, method, tol):
    W, b, activation = problem
    solution = ir.mon.equilibrium(W, b, activation, method=method, tol=tol, max_iter=50000)
    error = np.linalg.norm(solution.z - laws.exact(W, b, activation), axis=1)
    assert (error <= solution.bound + 1e-14 * size(b)).all()
    assert (solution.bound <= tol).all()
    assert solution.converged.all()


@pytest.mark.parametrize("method", laws.METHODS)
def test_solution_fields(method):
    W, b, activation = laws.problem("tanh", seed=2, m=1.0)
    small = W.replace(A=W.A * 0.2, B=W.B * 0.2)  # contractive: Picard works
    solution = ir.mon.equilibrium(small, b, activation, method=method, tol=1e-9, keep=True)
    assert solution.z.shape == solution.u.shape == b.shape
    assert solution.residuals.shape == (solution.iterations, 2)
    assert solution.bound.shape == solution.converged.shape == (2,)
    assert solution.converged.dtype == np.bool_
    assert len(solution.states) == solution.iterations
    assert isinstance(solution.reason, str)
    assert str(solution.iterations) in solution.reason
    step = 1.0 if method == "picard" else solution.alpha
    assert_close(solution.z, activation.prox(solution.u, step), scale=1, tol=1e-15)
    last = solution.states[-1]
    np.testing.assert_array_equal(last.u, solution.u)
    steps = [
        np.linalg.norm(after.u - before.u, axis=1)
        for before, after in zip(solution.states, solution.states[1:], strict=False)
    ]
    assert_close(solution.residuals[1:], steps, scale=1, tol=1e-13)


def test_states_only_on_request_and_repr_is_short():
    W, b, activation = laws.problem(seed=3)
    solution = ir.mon.equilibrium(W, b, activation)
    assert solution.states is None
    assert len(repr(solution)) < 3000


def test_samples_do_not_depend_on_their_batch():
    W, b, activation = laws.problem("tanh", batch=3, seed=4)
    together = ir.mon.equilibrium(W, b, activation, tol=1e-11).z
    alone = np.concatenate([ir.mon.equilibrium(W, row[None], activation, tol=1e-11).z for row in b])
    assert_close(together, alone, scale=size(alone), tol=1e-10)


def test_convergence_is_reported_sample_by_sample():
    W, b, activation = laws.problem("tanh", batch=2, seed=5)
    exact_u = ir.mon.equilibrium(W, b, activation, alpha=0.5, tol=1e-12).u
    start = np.stack([exact_u[0], exact_u[1] + 5])  # the first sample is there already
    with pytest.raises(ir.ConvergenceError) as caught:
        ir.mon.equilibrium(W, b, activation, alpha=0.5, start=start, tol=1e-9, max_iter=2)
    assert caught.value.solution.converged.tolist() == [True, False]
    assert caught.value.solution.bound[0] < 1e-9 < caught.value.solution.bound[1]


def test_warm_start_saves_iterations():
    W, b, activation = laws.problem("tanh", seed=6)
    cold = ir.mon.equilibrium(W, b, activation, tol=1e-9)
    warm = ir.mon.equilibrium(W, b, activation, tol=1e-9, start=cold.u)
    assert warm.iterations <= 2 < cold.iterations
    assert_close(warm.z, cold.z, scale=1, tol=1e-8)


def test_callback_sees_every_iteration():
    W, b, activation = laws.problem(seed=7)
    seen = []
    inclusion = ir.mon.forward_inclusion(W, b, activation)
    solution = ir.splitting.solve(inclusion, np.zeros_like(b), alpha=0.5, callback=lambda k, r: seen.append((k, r)))
    assert [k for k, _ in seen] == list(range(1, solution.iterations + 1))
    assert_close(np.stack([r for _, r in seen]), solution.residuals, scale=size(solution.residuals), tol=1e-14)


def test_start_at_the_solution_and_zero_problem():
    W, b, activation = laws.problem(seed=8)
    nothing = ir.mon.equilibrium(W, np.zeros_like(b), activation)
    np.testing.assert_array_equal(nothing.z, np.zeros_like(b))
    assert nothing.iterations == 1


def test_solve_does_not_touch_its_start():
    W, b, activation = laws.problem(seed=9)
    start = np.ones_like(b)
    start.flags.writeable = False
    ir.mon.equilibrium(W, b, activation, start=start)
    np.testing.assert_array_equal(start, np.ones_like(b))


@pytest.mark.parametrize("stop", ["certificate", "relative-change"])
def test_later_writes_by_the_caller_do_not_change_a_solution(stop):
    # bound and residuals may be computed when they are first asked for
    W, b, activation = laws.problem("tanh", seed=16)
    dz, start = np.ones_like(b), np.zeros_like(b)

    def both():
        z = ir.mon.equilibrium(W, b, activation, start=start, stop=stop, tol=1e-3)
        return z, ir.mon.equilibrium_vjp(W, b, activation, z.z, dz, start=start, stop=stop, tol=1e-3)[1]

    expected = [(solution.bound, solution.residuals) for solution in both()]
    solutions = both()
    for buffer in (b, dz, start):
        buffer[...] = 7.0
    for solution, (bound, residuals) in zip(solutions, expected, strict=True):
        np.testing.assert_array_equal(solution.bound, bound)
        np.testing.assert_array_equal(solution.residuals, residuals)


# ------------------------------------------------------------------------------------------------
# Small and odd sizes


@pytest.mark.parametrize("method", ["peaceman-rachford", "forward-backward", "douglas-rachford"])
@pytest.mark.parametrize("stop", ["certificate", "relative-change"])
def test_empty_batch(method, stop):
    W, _, activation = laws.problem(seed=10)
    solution = ir.mon.equilibrium(W, np.empty((0, 4)), activation, method=method, stop=stop)
    assert solution.z.shape == (0, 4)
    assert solution.bound.shape == solution.converged.shape == (0,)
    assert solution.iterations == 1
    assert solution.residuals.shape == (1, 0)
    grads, _ = ir.mon.equilibrium_vjp(W, np.empty((0, 4)), activation, solution.z, solution.z, method=method)
    np.testing.assert_array_equal(grads["A"], np.zeros((4, 4)))
    assert grads["injection"].shape == (0, 4)


@pytest.mark.parametrize("name", laws.ACTIVATIONS)
def test_one_unit_one_sample(name):
    W, b, activation = laws.problem(name, n=1, batch=1, seed=11)
    laws.check_fixed_point(W, b, activation, None, 1e-12)


# ------------------------------------------------------------------------------------------------
# Failure is a sentence, and nothing is lost


def failure(*args, **kwargs) -> ir.ConvergenceError:
    with pytest.raises(ir.ConvergenceError) as caught:
        ir.mon.equilibrium(*args, **kwargs)
    return caught.value


def test_running_out_of_iterations():
    W, b, activation = laws.problem("tanh", m=0.05, seed=12)
    error = failure(W, b, activation, alpha=0.01, tol=1e-9, max_iter=7)
    assert "max_iter = 7" in str(error)
    assert "raise max_iter" in str(error)
    solution = error.solution
    assert solution.iterations == 7
    assert solution.reason == str(error)
    assert not solution.converged.any()
    assert solution.residuals.shape == (7, 2)
    exact = laws.exact(W, b, activation)
    assert (np.linalg.norm(solution.z - exact, axis=1) <= solution.bound).all()
    again = ir.mon.equilibrium(W, b, activation, start=solution.u, alpha=0.01, tol=1e-6, max_iter=50000)
    assert_close(again.z, exact, scale=1, tol=1e-6)


@pytest.mark.claim("MON-Eq1")
@pytest.mark.parametrize(("method", "alpha"), [("picard", None), ("forward-backward", 10.0), ("forward-backward", 3.0)])
def test_divergence_by_overflow_names_the_condition_and_the_way_out(method, alpha):
    W = scaled_rotation(1.0, 3.0)
    error = failure(
        W, np.array([[1.0, 1.0]]), ir.activations.leaky_relu(0.5), method=method, alpha=alpha, max_iter=100000
    )
    assert "diverged" in str(error)
    assert "MON-Sec3.4-alpha" in str(error)
    assert "peaceman-rachford" in str(error)
    assert (error.solution.bound > 1e12).all()
    assert not error.solution.converged.any()
    assert error.solution.iterations < 100000


def test_cycling_without_overflow_names_the_condition():
    error = failure(zero_weight(), np.ones((1, 1)), relu, method="forward-backward", alpha=2.0, max_iter=50)
    assert "guaranteed only for alpha < 2 [MON-Sec3.4-alpha]" in str(error)
    assert error.solution.bound[0] >= 1.0


def test_floor_of_float32_is_named():
    W, b, activation = laws.problem("tanh", seed=13)
    W = W.replace(**{name: p.astype(np.float32) for name, p in W.params.items()})
    error = failure(W, b.astype(np.float32), activation, tol=1e-12, max_iter=100000)
    assert "floor of float32" in str(error)
    assert "float64" in str(error)
    assert error.solution.iterations < 5000
    assert error.solution.z.dtype == np.float32
    reachable = float(str(error).split("tol >= ")[1].split(",")[0])
    assert ir.mon.equilibrium(W, b.astype(np.float32), activation, tol=reachable).converged.all()


def test_nan_from_an_inclusion_is_divergence_not_convergence():
    # an operator that returns NaN: the loop must not end as if converged
    class Broken:
        m, size, params = 1.0, 1, {}

        def __getattr__(self, name):
            return getattr(zero_weight(), name)

        def matvec(self, z):
            return z * math.nan

    inclusion = ir.splitting.Inclusion(Broken(), np.ones((1, 1)), relu, 1.0)
    with pytest.raises(ir.ConvergenceError) as caught:
        ir.splitting.solve(inclusion, np.ones((1, 1)), method="forward-backward", alpha=0.5)
    assert not caught.value.solution.converged.any()


def test_convergence_error_and_solution_pickle():
    W, b, activation = laws.problem("tanh", seed=14)
    error = pickle.loads(pickle.dumps(failure(W, b, activation, alpha=0.01, tol=1e-9, max_iter=3)))
    assert error.solution.iterations == 3
    assert error.solution.residuals.shape == (3, 2)
    solution = ir.mon.equilibrium(W, b, activation)
    again = pickle.loads(pickle.dumps(solution))
    np.testing.assert_array_equal(again.z, solution.z)
    np.testing.assert_array_equal(again.bound, solution.bound)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, "alpha must be a finite number > 0"),
        ({"alpha": -1.0}, "alpha"),
        ({"alpha": math.nan}, "alpha"),
        ({"tol": 0.0}, "tol must be a finite number > 0"),
        ({"tol": -1e-6}, "tol"),
        ({"tol": math.nan}, "tol"),
        ({"tol": "tight"}, "tol"),
        ({"max_iter": 0}, "max_iter must be an integer >= 1"),
        ({"max_iter": -3}, "max_iter"),
        ({"max_iter": 2.5}, "max_iter"),
        ({"max_iter": True}, "max_iter"),
        ({"method": "newton"}, "method must be.*peaceman-rachford"),
        ({"stop": "hope"}, "stop must be one of certificate, relative-change"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    W, b, activation = laws.problem(seed=15)
    with pytest.raises(ir.HypothesisError, match=message):
        ir.mon.equilibrium(W, b, activation, **options)
    z = np.zeros_like(b)
    with pytest.raises(ir.HypothesisError, match=message):
        ir.mon.equilibrium_vjp(W, b, activation, z, b, **options)


def test_oracle_agrees_with_the_solver_on_the_fooling_example():
    W, b, _, _, z_star = FOOLED["relu, n = 2"]
    assert_close(oracles.relu_equilibrium(W.to_dense(), b[0]), z_star[0], scale=1, tol=1e-12)


def test_large_states_are_looked_at_in_parts_with_the_same_end(monkeypatch):
    # the first eighth is asked first; nothing may stop before every sample passes
    W, b, activation = laws.problem("tanh", seed=1)
    b = np.concatenate([1e-3 * b, b, 100 * b])  # the last samples are the slow ones
    for stop, tol in (("relative-change", 1e-7), ("certificate", 1e-9)):
        whole = ir.mon.equilibrium(W, b, activation, alpha=0.5, stop=stop, tol=tol)
        with monkeypatch.context() as patch:
            patch.setattr(importlib.import_module("implicitref.splitting.solve"), "LARGE", 1)
            parts = ir.mon.equilibrium(W, b, activation, alpha=0.5, stop=stop, tol=tol)
            bound, residuals = parts.bound, parts.residuals
        assert (residuals[-1] <= tol).all() or stop == "certificate"
        assert abs(parts.iterations - whole.iterations) <= 1
        assert_close(bound, whole.bound, scale=1, tol=1e-7)
        assert (bound <= tol).all() or stop == "relative-change"
