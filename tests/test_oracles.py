"""The oracles are right, and assert_close can fail."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
from oracles import assert_close


@pytest.mark.parametrize(
    ("actual", "desired", "options"),
    [
        (1.0, 1.0 + 1e-6, {"scale": 1, "tol": 1e-7}),
        (1e-9, 2e-9, {"scale": 1e-9, "tol": 0.5}),  # small does not mean close
        (np.nan, np.nan, {"scale": 1, "tol": 0.5}),
        (np.inf, np.inf, {"scale": 1, "tol": 0.5}),
        ([1.0], [[1.0]], {"scale": 1, "tol": 0.5}),
        ([1.0, np.nan], [1.0, 1.0], {"scale": 1, "tol": 0.5}),
        (1.0, 1.0, {"scale": np.inf, "tol": 0.5}),
        (1.0, 1.0, {"scale": np.nan, "tol": 0.5}),
        (1.0, 1.0, {"scale": 0, "tol": 0.5}),
        (1.0, 1.0, {"scale": 1, "tol": 1}),
    ],
)
def test_assert_close_fails(actual, desired, options):
    with pytest.raises(AssertionError):
        assert_close(actual, desired, **options)


def test_assert_close_needs_a_scale_and_passes_within_it():
    with pytest.raises(TypeError):
        assert_close(1.0, 1.0)
    assert_close([1.0, 1e6], [1.0, 1e6 + 1e-3], scale=1e6, tol=1e-8)
    assert_close(np.empty((0, 3)), np.empty((0, 3)), scale=1, tol=1e-8)


def test_relu_equilibria_by_enumeration_and_by_nonnegative_least_squares_agree():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        A = rng.normal(size=(4, 4))
        W, b = 0.5 * np.eye(4) - A.T @ A, rng.normal(size=4)
        z = oracles.relu_equilibrium(W, b)
        assert_close(z, np.maximum(W @ z + b, 0), scale=oracles.size(z), tol=1e-12)
        assert_close(z, oracles.nnls_equilibrium(W, b), scale=oracles.size(z), tol=1e-12)
        assert_close(z, oracles.newton_equilibrium(W, b, "relu", z + 1e-9), scale=oracles.size(z), tol=1e-12)


@pytest.mark.parametrize("name", oracles.DEFINITIONS)
def test_definitions_are_consistent(name):
    # sigma is prox^1 of the f beside it, slope its derivative
    entry = oracles.DEFINITIONS[name]
    x = np.array([-2.3, -0.7, 0.31, 1.9])
    brute = np.array([oracles.prox(name, value, 1.0) for value in x])
    assert_close(entry["sigma"](x), brute, scale=1, tol=1e-15 * 8)
    difference = (entry["sigma"](x + 1e-6) - entry["sigma"](x - 1e-6)) / 2e-6
    assert_close(entry["slope"](x), difference, scale=1, tol=1e-9)


def test_five_point_difference_has_fourth_order():
    errors = [abs(oracles.central_difference(lambda p: float(np.exp(p)), 0.0, 1.0, h) - 1) for h in (0.2, 0.1)]
    assert 14 < errors[0] / errors[1] < 18


def test_proxop_agrees_with_the_definitions():
    proxop = pytest.importorskip("proxop", reason="proxop is not installed")
    x = np.linspace(-3, 3, 25)
    for alpha in (0.2, 1.0, 5.0):
        soft = proxop.Thresholder(-0.5, 0.5).prox(x, gamma=alpha)
        brute = np.array([oracles.prox("soft_threshold(0.5)", value, alpha) for value in x])
        assert_close(soft, brute, scale=3, tol=1e-15 * 4)
    for theirs, name in ((proxop.TanhActi(), "tanh"), (proxop.ELUacti(1), "elu(1)")):
        assert_close(theirs.prox(x.copy()), oracles.DEFINITIONS[name]["sigma"](x), scale=3, tol=1e-15 * 4)
    assert_close(proxop.UnimodalSigmoid().prox(x) + 0.5, oracles.DEFINITIONS["sigmoid"]["sigma"](x), scale=1, tol=1e-15)
