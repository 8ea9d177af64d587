"""Losses: values by their definitions, gradients by differences."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
import scipy.special
from oracles import assert_close

import implicitref as ir


def test_squared_error(backend):
    rng = np.random.default_rng(0)
    p, t = rng.normal(size=(2, 4, 3))
    value, gradient = ir.losses.squared_error(backend(p), backend(t))
    assert_close(value, ((p - t) ** 2).sum() / 8, scale=10, tol=8 * backend.eps)
    assert_close(backend.numpy(gradient), (p - t) / 4, scale=5, tol=8 * backend.eps)


def test_cross_entropy(backend):
    logits, labels = np.random.default_rng(1).normal(size=(4, 3)), np.array([0, 2, 1, 1])
    value, gradient = ir.losses.cross_entropy(backend(logits), labels)
    log_probabilities = scipy.special.log_softmax(logits, axis=1)
    assert_close(value, -log_probabilities[np.arange(4), labels].mean(), scale=5, tol=8 * backend.eps)
    desired = (scipy.special.softmax(logits, axis=1) - np.eye(3)[labels]) / 4
    assert_close(backend.numpy(gradient), desired, scale=1, tol=8 * backend.eps)


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
def test_gradient_against_differences(loss):
    rng = np.random.default_rng(2)
    at, direction = rng.normal(size=(2, 5, 4))
    target = rng.normal(size=(5, 4)) if loss == "squared_error" else rng.integers(0, 4, size=5)
    function = getattr(ir.losses, loss)
    difference = oracles.central_difference(lambda p: function(p, target)[0], at, direction, 1e-3)
    assert_close((function(at, target)[1] * direction).sum(), difference, scale=5, tol=1e-11)


def test_large_logits_do_not_overflow_and_extreme_batches_work():
    value, gradient = ir.losses.cross_entropy(np.array([[1000.0, 0.0, -1000.0]]), np.array([1]))
    assert value == 1000.0
    np.testing.assert_array_equal(gradient, [[1.0, -1.0, 0.0]])
    for empty in (
        ir.losses.cross_entropy(np.empty((0, 3)), np.empty(0, dtype=int)),
        ir.losses.squared_error(*np.empty((2, 0, 3))),
    ):
        assert empty[0] == 0.0
        assert empty[1].shape == (0, 3)


@pytest.mark.parametrize(
    ("logits", "labels", "error", "message"),
    [
        (np.ones((2, 3)), np.array([0, 3]), ir.HypothesisError, r"labels must lie in 0\.\.2; got 0\.\.3"),
        (np.ones((2, 3)), np.array([-1, 0]), ir.HypothesisError, "labels must lie"),
        (np.ones((2, 3)), np.array([0.0, 1.0]), ir.HypothesisError, "labels must be integers"),
        (np.ones((2, 3)), np.array([0]), ir.ShapeError, r"labels must have shape \(2,\)"),
        (np.ones(3), np.array([0]), ir.ShapeError, r"logits\[None\]"),
        (np.array([[np.nan, 0]]), np.array([0]), ir.HypothesisError, "logits must be finite"),
        (np.array([[1, 0]]), np.array([0]), ir.HypothesisError, "logits must be float32"),
    ],
)
def test_cross_entropy_refuses(logits, labels, error, message):
    with pytest.raises(error, match=message):
        ir.losses.cross_entropy(logits, labels)


def test_squared_error_refuses_targets_of_another_shape():
    with pytest.raises(ir.ShapeError, match="target must have shape"):
        ir.losses.squared_error(np.ones((2, 3)), np.ones((2, 1)))
