"""Contraction factors and best steps: measured against predicted (register A.7)."""

from __future__ import annotations

import itertools
import math

import laws
import numpy as np
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st
from oracles import assert_close, size

import implicitref as ir
from implicitref.splitting import rates

GENERATORS = {
    "forward-backward": ir.splitting.forward_backward,
    "peaceman-rachford": ir.splitting.peaceman_rachford,
    "douglas-rachford": ir.splitting.douglas_rachford,
}


def factor(method: str, G: np.ndarray, alpha: float) -> float:
    """The exact factor of a method."""
    if method == "forward-backward":
        return rates.forward_backward(G, alpha)
    rho = rates.peaceman_rachford(G, alpha)
    return rates.douglas_rachford(rho) if method == "douglas-rachford" else rho


def rotation(m: float, s: float) -> np.ndarray:
    return np.array([[m, -s], [s, m]])


def interior(G: np.ndarray) -> tuple:
    """A relu network with gap G whose equilibrium (1, ..., 1) is interior, and that equilibrium."""
    n = len(G)
    m = np.linalg.eigvalsh(laws.symmetric(G))[0]
    W = ir.operators.MonotoneDense.from_weight(np.eye(n) - G, m * (1 - 1e-13))
    z_star = np.full((1, n), 10.0)
    return W, z_star @ G.T, z_star


def measured(method: str, G: np.ndarray, alpha: float, offset: np.ndarray, steps: int = 5) -> np.ndarray:
    """Ratios of successive errors of u (z for forward-backward) near an interior equilibrium."""
    W, b, z_star = interior(G)
    inclusion = ir.mon.forward_inclusion(W, b, ir.activations.relu)
    u_star = z_star  # interior: df(z*) = 0
    generator = GENERATORS[method](inclusion, alpha, u_star + offset)
    of_state = (lambda s: s.z) if method == "forward-backward" else (lambda s: s.u)
    errors = [np.linalg.norm(offset)] + [
        np.linalg.norm(of_state(s) - u_star) for s in itertools.islice(generator, steps)
    ]
    return np.array(errors[1:]) / np.array(errors[:-1])


@pytest.mark.claim("NEW-rate-fb")
@pytest.mark.claim("NEW-rate-pr")
@given(problem=strategies.problems(), alpha=strategies.steps, method=st.sampled_from(sorted(GENERATORS)))
def test_no_step_contracts_less_than_the_exact_factor(problem, alpha, method):
    W, b, activation = problem
    z_star, G = laws.exact(W, b, activation), np.eye(W.size) - W.to_dense()
    u_star = z_star if method == "forward-backward" else z_star - alpha * (z_star @ G.T - b)
    inclusion = ir.mon.forward_inclusion(W, b, activation)
    rho = factor(method, G, alpha)
    if method == "forward-backward":
        rho /= 1 + alpha * activation.strong
    u = u_star + np.random.default_rng(3).normal(size=b.shape)
    before = np.linalg.norm(u - u_star, axis=1)
    for state in itertools.islice(GENERATORS[method](inclusion, alpha, u), 12):
        after = np.linalg.norm((state.z if method == "forward-backward" else state.u) - u_star, axis=1)
        measurable = before > 1e-6 * size(u_star)
        assert (after[measurable] <= before[measurable] * (rho + 1e-9)).all()
        before = after


@pytest.mark.claim("NEW-rate-fb")
@pytest.mark.claim("NEW-rate-pr")
@pytest.mark.parametrize(("m", "s"), [(1.0, 2.0), (0.3, 1.0), (0.05, 3.0), (2.0, 0.0)])
@pytest.mark.parametrize("alpha", [0.1, 0.25, 1.0])
def test_class_bound_is_attained_by_a_scaled_rotation(m, s, alpha):
    G, L = rotation(m, s), math.hypot(m, s)
    classes = {
        "forward-backward": rates.forward_backward_class(m, L, alpha),
        "peaceman-rachford": rates.peaceman_rachford_class(m, L, alpha),
    }
    for method, bound in classes.items():
        assert_close(factor(method, G, alpha), bound, scale=1, tol=1e-9)
        if bound > 1e-6:
            ratios = measured(method, G, alpha, np.array([[0.6, -0.8]]), steps=3)
            assert_close(ratios, [bound] * 3, scale=1, tol=1e-9)


@pytest.mark.claim("NEW-rate-pr")
@given(gap=strategies.gaps(), alpha=strategies.steps)
def test_exact_factors(gap, alpha):
    G, identity = gap[0], np.eye(len(gap[0]))
    m, L = rates.constants(G)
    assert_close(m, np.linalg.eigvalsh(laws.symmetric(G))[0], scale=size(G), tol=1e-12)
    assert_close(L, np.linalg.svd(G, compute_uv=False)[0], scale=size(G), tol=1e-12)
    rho, h = rates.peaceman_rachford(G, alpha), rates.peaceman_rachford_h(G, alpha)
    cayley = (identity - alpha * G) @ np.linalg.inv(identity + alpha * G)
    assert_close(rho, np.linalg.norm(cayley, 2), scale=1, tol=1e-12)
    assert_close(rho**2, (h - 2) / (h + 2), scale=1, tol=1e-11)
    assert rho <= rates.peaceman_rachford_class(m, L, alpha) + 1e-12
    assert rates.peaceman_rachford_class(m, L, alpha) <= math.sqrt(1 - 4 * alpha * m / (1 + alpha * L) ** 2) + 1e-12
    assert rates.forward_backward(G, alpha) <= rates.forward_backward_class(m, L, alpha) + 1e-12


@pytest.mark.claim("NEW-rate-pr")
@given(gap=strategies.gaps(), a=st.floats(0.01, 10), b=st.floats(0.01, 10))
def test_h_is_convex(gap, a, b):
    h = lambda alpha: rates.peaceman_rachford_h(gap[0], alpha)  # noqa: E731
    assert h((a + b) / 2) <= (h(a) + h(b)) / 2 * (1 + 1e-12)


@pytest.mark.claim("NEW-rate-pr")
def test_symmetric_gap_has_the_classical_factors():
    m, L, G = 0.5, 8.0, np.diag([0.5, 3.0, 8.0])
    for alpha in (0.1, 0.5, 2.0):
        desired = max(abs(1 - alpha * m) / (1 + alpha * m), abs(1 - alpha * L) / (1 + alpha * L))
        assert_close(rates.peaceman_rachford(G, alpha), desired, scale=1, tol=1e-14)
    best = rates.best_peaceman_rachford(G)
    assert_close(best, 1 / math.sqrt(m * L), scale=best, tol=2e-3)
    fastest = (math.sqrt(L) - math.sqrt(m)) / (math.sqrt(L) + math.sqrt(m))
    assert_close(rates.peaceman_rachford(G, best), fastest, scale=1, tol=1e-3)


@pytest.mark.claim("NEW-best-alpha")
@given(gap=strategies.gaps())
def test_best_alpha_beats_a_grid(gap):
    G, m = gap
    W = ir.operators.MonotoneDense.from_weight(np.eye(len(G)) - G, m * (1 - 1e-12))
    for method in GENERATORS:
        best = factor(method, G, rates.best_alpha(W, method))
        grid = (
            np.logspace(-3, 2, 200)
            if method != "forward-backward"
            else np.linspace(0.005, 1, 200) * rates.forward_backward_limit(G)
        )
        assert best <= min(factor(method, G, alpha) for alpha in grid) + 2e-5
    assert rates.best_alpha(W, "picard") == 1.0


@pytest.mark.claim("NEW-best-alpha")
@pytest.mark.parametrize("scale", [2.0**-20, 4.0, 2.0**20])
def test_best_steps_scale_like_the_inverse_of_the_gap(scale):
    """The search begins at 1 / ||G||, so that it is the same search, to rounding, for every multiple of G."""
    G = np.diag([0.5, 3.0, 8.0]) + np.array([[0.0, 2.0, 0.0], [-2.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
    for best in (rates.best_peaceman_rachford, rates.best_forward_backward):
        assert_close(scale * best(scale * G), best(G), scale=best(G), tol=1e-9)


@pytest.mark.claim("NEW-best-alpha")
def test_best_class_steps():
    # m/L^2 for forward-backward, 1/L for Peaceman-Rachford, with the factors of the register
    m, L = 0.4, 3.0
    grid = np.logspace(-3, 2, 400)
    at = rates.forward_backward_class(m, L, m / L**2)
    assert_close(at, math.sqrt(1 - m**2 / L**2), scale=1, tol=1e-14)
    assert at <= min(rates.forward_backward_class(m, L, alpha) for alpha in grid)
    at = rates.peaceman_rachford_class(m, L, 1 / L)
    assert_close(at, math.sqrt((L - m) / (L + m)), scale=1, tol=1e-14)
    assert at <= min(rates.peaceman_rachford_class(m, L, alpha) for alpha in grid)


def of_gap(G: np.ndarray, m: float) -> ir.operators.MonotoneDense:
    """An operator with I - W = G."""
    return ir.operators.MonotoneDense.from_weight(np.eye(len(G)) - G, m * (1 - 1e-12))


@pytest.mark.claim("NEW-best-alpha")
@given(gap=strategies.gaps(), alpha=strategies.steps)
def test_the_class_bounds_hold_with_the_cocoercivity(gap, alpha):
    G, m = gap
    beta = rates.forward_backward_limit(G) / 2
    assert_close(rates.cocoercivity(of_gap(G, m)), beta, scale=beta, tol=1e-8)
    assert_close(rates.cocoercivity(ir.operators.Transpose(of_gap(G, m))), beta, scale=beta, tol=1e-8)
    length = math.sqrt(m / beta)
    assert length <= rates.constants(G)[1] * (1 + 1e-9)
    assert rates.peaceman_rachford(G, alpha) <= rates.peaceman_rachford_class(m, length, alpha) + 1e-9
    assert rates.forward_backward(G, 2 * beta) <= rates.forward_backward_class(m, length, 2 * beta) + 1e-7


@pytest.mark.claim("NEW-best-alpha")
@pytest.mark.parametrize("skew", [0.0, 3.0])
def test_the_step_by_cocoercivity_is_best_for_symmetric_and_for_skew_gaps(skew):
    G = np.diag([0.5, 3.0, 8.0]) if not skew else 0.5 * np.eye(3) + skew * np.array([[0, 1, 0], [-1, 0, 2], [0, -2, 0]])
    m, L = rates.constants(G)
    length = rates.effective_lipschitz(of_gap(G, m), m, "peaceman-rachford")
    assert_close(length, L if skew else math.sqrt(m * L), scale=L, tol=1e-9)
    best = rates.peaceman_rachford(G, rates.best_peaceman_rachford(G))
    assert_close(rates.peaceman_rachford(G, 1 / length), best, scale=1, tol=1e-4)


@pytest.mark.claim("NEW-best-alpha")
@pytest.mark.parametrize("name", sorted(laws.OPERATORS))
def test_large_operators_take_the_class_optimum(name, monkeypatch):
    monkeypatch.setattr(rates, "EXACT_UP_TO", 0)
    W = laws.OPERATORS[name](np.asarray)
    G = np.eye(len(W.to_dense())) - W.to_dense()
    beta = rates.forward_backward_limit(G) / 2
    found = rates.best_alpha(W, "peaceman-rachford")
    assert math.sqrt(beta / W.m) * (1 - 1e-9) <= found <= 1.08 * math.sqrt(beta / W.m)
    assert rates.best_alpha(W, "douglas-rachford") == found
    assert_close(rates.best_alpha(W, "forward-backward"), W.m / W.lipschitz() ** 2, scale=1, tol=1e-15)


@pytest.mark.claim("NEW-best-alpha")
@pytest.mark.parametrize("m", [1.0, 0.1])
def test_a_dozen_products_find_the_cocoercivity_of_a_large_operator(m):
    rng, n = np.random.default_rng(4), 300
    A, B = rng.uniform(-1, 1, (2, n, n)) / math.sqrt(n)
    W = ir.operators.MonotoneDense(A, B, m)
    G = np.eye(n) - W.to_dense()
    beta, found = rates.forward_backward_limit(G) / 2, rates.cocoercivity(W)
    assert beta * (1 - 1e-9) <= found <= 1.15 * beta
    single = rates.cocoercivity(ir.operators.MonotoneDense(A.astype(np.float32), B.astype(np.float32), m))
    assert_close(single, found, scale=found, tol=1e-3)
    exact, of_class = (rates.peaceman_rachford(G, a) for a in (rates.best_peaceman_rachford(G), 1 / W.lipschitz()))
    assert (
        exact
        <= rates.peaceman_rachford(G, rates.best_alpha(W, "peaceman-rachford"))
        <= exact + 0.1 * (of_class - exact)
    )


@pytest.mark.claim("NEW-best-alpha")
@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_cocoercivity_beyond_the_range_gives_way_to_the_norm(scale, monkeypatch):
    W = of_gap(scale * np.diag([1.0, 2.0]), scale)
    assert rates.effective_lipschitz(W, W.m, "peaceman-rachford") == W.lipschitz()


def test_best_alpha_refuses_an_unknown_method():
    with pytest.raises(ir.HypothesisError, match="method must be"):
        rates.best_alpha(laws.OPERATORS["plain"](np.asarray), "newton")


@pytest.mark.claim("MON-Sec3.4-alpha")
@given(gap=strategies.gaps())
def test_forward_backward_limit_is_sharp_and_no_smaller_than_the_papers(gap):
    G, limit = gap[0], rates.forward_backward_limit(gap[0])
    m, L = rates.constants(G)
    assert limit >= 2 * m / L**2 * (1 - 1e-9)
    assert rates.forward_backward(G, limit * (1 - 1e-6)) < 1
    assert_close(rates.forward_backward(G, limit), 1.0, scale=1, tol=1e-9)
    assert rates.forward_backward(G, limit * (1 + 1e-6)) > 1


@pytest.mark.claim("MON-Sec3.4-alpha")
def test_equality_in_the_papers_condition_does_not_converge():
    # n = 1, W = 0, b = 1, relu, alpha = 2 = 2m/L^2: 2, 0, 2, 0; rotation: the distance is constant
    W = ir.operators.MonotoneDense(np.zeros((1, 1)), np.zeros((1, 1)), 1.0)
    inclusion = ir.mon.forward_inclusion(W, np.ones((1, 1)), ir.activations.relu)
    states = itertools.islice(ir.splitting.forward_backward(inclusion, 2.0, np.zeros((1, 1))), 6)
    assert [float(s.z[0, 0]) for s in states] == [2.0, 0.0] * 3
    ratios = measured("forward-backward", rotation(1.0, 2.0), 0.4, np.array([[0.3, 0.4]]), steps=200)
    assert_close(ratios, np.ones(200), scale=1, tol=1e-12)


@pytest.mark.claim("MON-EqA9")
def test_the_sufficient_condition_is_not_necessary():
    G = np.diag([1.0, 10.0])
    assert_close(2 * 1 / 10**2, 0.02, scale=1, tol=1e-15)
    assert_close(rates.forward_backward(G, 0.19), 0.9, scale=1, tol=1e-12)
    assert_close(rates.forward_backward_limit(G), 0.2, scale=1, tol=1e-12)


@pytest.mark.claim("NEW-rate-fb")
@pytest.mark.claim("NEW-rate-pr")
def test_measured_iterations_follow_the_factor():
    # the slowest direction of a diagonal G: the ratio settles at the exact factor
    G = np.diag([0.2, 1.0, 3.0])
    for method in GENERATORS:
        alpha = 0.5
        ratios = measured(method, G, alpha, np.array([[1.0, 0.5, 0.5]]), steps=60)
        assert_close(ratios[-1], factor(method, G, alpha), scale=1, tol=1e-6)
