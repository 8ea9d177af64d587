"""What the residuals say, and the small systems of Anderson's iteration, on numbers that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from oracles import assert_close

import implicitref as ir
from implicitref.fixed_point.driver import Log
from implicitref.fixed_point.iteration import _least_squares

fp = ir.fixed_point


def log_of(*rows, limit=0.0):
    """The log of a run with these residuals, a row an iteration."""
    log = Log(np.full(len(rows[0]), limit))
    for row in rows:
        log.add(np.arange(len(row)), np.array(row))
    return log


@pytest.mark.parametrize("first", [1e-10, 1e5])
def test_divergence_is_growth_beyond_the_first_residual(first):
    assert log_of([first], [2e16 * first]).ending == "diverged"
    assert log_of([first], [0.5e16 * first]).ending == "iterations"
    assert log_of([first], [np.nan]).ending == "diverged"


def test_a_contraction_is_contradicted_by_one_ratio_above_its_factor():
    noise = np.zeros(1)
    assert log_of([1.0], [0.9015]).breach(0.9, noise) == pytest.approx(0.9015)
    assert log_of([1.0], [0.9005]).breach(0.9, noise) is None
    assert log_of([1.0], [0.1], [0.09]).breach(0.5, noise) == pytest.approx(0.9)  # not .09, the ratio to the first
    assert log_of([1.0], [0.1], [0.09]).breach(0.5, np.array([0.5])) is None  # 0.1 is noise
    assert log_of([1.0]).breach(0.5, noise) is None


def test_a_sample_that_has_stopped_contradicts_nothing():
    log = log_of([1.0, 1.0], [0.1, 0.4], limit=0.2)
    log.add(np.array([1]), np.array([0.1]))  # the first keeps its residual: the ratio is 1
    assert log.breach(0.5, np.zeros(2)) is None


@pytest.mark.claim("NEW-cert-F1")
@pytest.mark.parametrize("seed", range(20))
def test_float32_does_not_round_a_bound_below_what_it_bounds(seed):
    rng = np.random.default_rng(seed)
    K = rng.normal(size=(5, 5))
    gamma, one = rng.uniform(0.1, 0.9), np.ones((7, 5), np.float32)
    T = fp.LinearMap(*(a.astype(np.float32) for a in (gamma * K / np.linalg.norm(K, 2), np.eye(5), np.zeros(5))))
    solution = fp.iterate(T, rng.normal(size=(7, 5)).astype(np.float32), one, tol=1e-2)
    bound, residual = solution.bound.astype(float), solution.residuals[-1].astype(float)
    assert (bound >= residual / (1 - T.gamma)).all()


def systems(seed=0):
    rng = np.random.default_rng(seed)
    D, f = rng.normal(size=(4, 3, 9)), rng.normal(size=(4, 9))
    return D, f, lambda D: _least_squares(D @ D.mT, np.einsum("bij,bj->bi", D, f))


def test_least_squares_is_that_of_the_directions_whatever_their_lengths():
    D, f, theta = systems()
    wanted = np.stack([np.linalg.lstsq(d.T, v)[0] for d, v in zip(D, f, strict=True)])
    assert_close(theta(D), wanted, scale=1, tol=1e-6)
    lengths = 2.0 ** np.array([-30, 0, 30])
    assert_close(theta(D * lengths[:, None]) * lengths, theta(D), scale=1, tol=1e-12)
    D[:, 1] = 0
    assert (theta(D)[:, 1] == 0).all()


def test_equal_directions_share_and_are_never_taken_too_far():
    one = np.ones((1, 2, 2))
    theta = _least_squares(one, one[:, 0])
    ridge = np.finfo(float).eps ** 0.5
    assert_close(theta, np.full((1, 2), 1 / (2 + ridge)), scale=1, tol=1e-11)
    assert theta.sum() < 1


@pytest.mark.claim("JFB-Eq10")
def test_the_factor_of_one_layer_is_the_norm_times_the_largest_slope():
    W = np.diag([0.9, -0.3])
    for activation, slope in ((ir.activations.relu, 1), (ir.activations.sigmoid, 0.25), (ir.activations.tanh, 1)):
        assert fp.OneLayer(W, W, np.zeros(2), activation).gamma == pytest.approx(0.9 * slope, rel=1e-12)
    assert fp.OneLayer(5 * W, W, np.zeros(2), ir.activations.sigmoid).gamma is None


@pytest.mark.claim("NEW-cert-F1")
@pytest.mark.parametrize("tol", [1e-1, 1e-3, 1e-5])
def test_conjugate_gradients_stop_where_the_bound_is_met(tol):
    K = np.random.default_rng(0).normal(size=(30, 30))
    T = fp.LinearMap(0.9 * K / np.linalg.norm(K, 2), np.eye(30), np.zeros(30))
    g = np.random.default_rng(1).normal(size=(20, 30))
    solution = fp.implicit("cgnr", tol=tol).solve(T, g, g, g)
    assert (solution.bound <= tol * (1 + 1e-12)).all()
    assert_close(solution.bound, solution.residuals[-1] / (1 - T.gamma), scale=tol, tol=1e-12)


@pytest.mark.claim("NEW-rate-fb")
def test_a_strongly_convex_activation_adds_to_the_factor_of_a_step():
    # I - W = I, alpha = 1/2: |1 - alpha|/(1 + alpha strong), strong = 3 for the sigmoid
    W = ir.operators.MonotoneDense.from_weight(np.zeros((2, 2)), 1.0)
    for activation, strong in ((ir.activations.relu, 0), (ir.activations.sigmoid, 3)):
        assert fp.ForwardBackward(W, activation, 0.5).gamma == pytest.approx(0.5 / (1 + strong / 2), rel=1e-9)


def test_the_linear_map_by_hand():
    T = fp.LinearMap(np.array([[0.0, 2.0], [0.5, 0.0]]), np.array([[1.0, 10.0]]), np.array([3.0]))
    assert_close(
        T(np.array([[1.0, 4.0]]), np.array([[100.0, 200.0]])),
        np.array([[8 + 3 + 100, 0.5 + 30 + 200]]),
        scale=1,
        tol=1e-14,
    )
