"""One line each: what functions refuse, and by which words; what they do at the edge of what they accept."""

from __future__ import annotations

import argparse
import math
import os
import pickle
import sys
import types

import numpy as np
import pytest

import implicitref as ir
from implicitref import activations, archives, datasets, layers, losses, operators, optimisers, splitting
from implicitref.commands import common
from implicitref.networks import jfb

fp = ir.fixed_point
ONE, HUGE = np.ones((1, 1)), np.full((1, 1), 1e200)
NETWORK = ir.networks.jfb_mnist(np.random.default_rng(0), (1, 6, 6))


def inclusion():
    W = operators.MonotoneDense(np.eye(2), np.zeros((2, 2)), 1.0)
    return ir.mon.forward_inclusion(W, np.ones((3, 2)), activations.relu)


REFUSED = {
    "slope of no number": (lambda: activations.leaky_relu("steep"), ir.HypothesisError, "slope"),
    "overflow beside float32": (
        lambda: operators.MonotoneDense(np.ones((1, 1), np.float32), HUGE, 1.0),
        ir.HypothesisError,
        "B must fit into float32, the dtype of the first array",
    ),
    "norm that overflows": (
        lambda: operators.MonotoneDense(HUGE, ONE, 1.0, g=1.0),
        ir.HypothesisError,
        "A must have a norm within its dtype's range, float64; it overflows",
    ),
    "activation of one layer": (
        lambda: fp.OneLayer(ONE, ONE, np.ones(1), np.tanh),
        ir.HypothesisError,
        "activation must be one of implicitref.activations",
    ),
    "list for rows": (lambda: layers.affine([[1.0]], ONE), TypeError, "x must be an array; got list"),
    "variance that overflows": (
        lambda: layers.batch_moments(np.array([[1e200], [-1e200]])),
        ir.HypothesisError,
        "x must have a variance within its dtype's range",
    ),
    "logits without classes": (
        lambda: losses.count_correct(np.ones((2, 0)), np.zeros(2, int)),
        ir.ShapeError,
        "at least one column",
    ),
    "latent layer that changes shapes": (
        lambda: jfb.tangent(layers.MaxPool(2), np.ones((1, 1, 2, 2))),
        ir.HypothesisError,
        "shape-keeping layers; got MaxPool",
    ),
    "learning rate": (
        lambda: optimisers.sgd_step({"a": ONE}, {"a": ONE}, optimisers.sgd_init({"a": ONE}), -1.0),
        ir.HypothesisError,
        "learning_rate must be a finite number >= 0; got -1.0",
    ),
    "gradient that is no array": (
        lambda: optimisers.sgd_step({"a": ONE}, {"a": 1.0}, optimisers.sgd_init({"a": ONE}), 0.1),
        TypeError,
        "'a' is none",
    ),
    "integers to be trained": (
        lambda: optimisers.sgd_step({"a": ONE}, {"a": np.ones((1, 1), int)}, optimisers.sgd_init({"a": ONE}), 0.1),
        ir.HypothesisError,
        "a must be float32 or float64; got dtype int64",
    ),
    "start of another shape": (
        lambda: next(splitting.peaceman_rachford(inclusion(), 1.0, np.ones((3, 1)))),
        ir.ShapeError,
        r"must have the shape of its b, \(3, 2\); got \(3, 1\)",
    ),
    "loss of an implicit model": (
        lambda: ir.networks.ImplicitModel(ONE / 2, ONE, ONE).gradients(ONE, ONE, 3),
        ir.HypothesisError,
        "loss must be one of",
    ),
    "text of a pickle": (lambda: datasets._latin1(b"", "latin1"), pickle.UnpicklingError, "only text in latin1"),
    "negative number on the command line": (
        lambda: common.nonnegative("-1"),
        argparse.ArgumentTypeError,
        "must be a finite number >= 0; got -1",
    ),
    "GPU without CuPy": (lambda: common.on_device("gpu", NETWORK), ValueError, "--device gpu"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_by_name(what):
    call, error, words = REFUSED[what]
    with pytest.raises(error, match=words):
        call()


def test_cupy_without_a_gpu(monkeypatch):
    cupy = types.SimpleNamespace(cuda=types.SimpleNamespace(is_available=lambda: False))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    with pytest.raises(ValueError, match="CuPy finds no GPU here"):
        common.on_device("gpu", NETWORK)


def test_a_folder_that_may_not_be_written_to_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "permission is missing" in archives.unwritable(tmp_path / "r.json")


def test_numbers_of_numpy_and_names_that_meet_are_saved(tmp_path):
    given = {"count": np.int64(3), "sure": np.bool_(True), "a.b": np.ones(1), "a": {"b": np.zeros(1)}, "header": ONE}
    ir.save(tmp_path / "f.npz", given)
    found = ir.load(tmp_path / "f.npz")
    assert (found["count"], found["sure"]) == (3, True)
    assert (found["a.b"], found["a"]["b"], found["header"]) == (1, 0, 1)


def test_least_squares_of_no_samples_is_zero():
    assert (ir.sequential.least_squares(np.ones((0, 2)), np.ones((0, 3))) == np.zeros((3, 2))).all()


def test_the_factor_of_large_steps_is_that_of_the_class(monkeypatch):
    W = operators.MonotoneDense(np.diag([1.0, 2.0]), np.zeros((2, 2)), 1.0)  # I - W = diag(2, 5)
    monkeypatch.setattr(splitting.rates, "EXACT_UP_TO", 1)
    gamma = fp.ForwardBackward(W, activations.relu, 0.02).gamma
    assert gamma == pytest.approx(splitting.rates.forward_backward_class(1.0, 5.0, 0.02), rel=1e-12)
    assert gamma > 1 - 0.02 * 2  # the exact one


def test_a_map_of_a_batch_is_recorded_where_it_is_asked():
    R = layers.Sequential({"half": layers.Scale(0.5)})
    T, z, v = jfb.Batch(jfb.LatentMap(R, training=True), [], []), np.ones((1, 2, 3)), np.zeros((1, 2, 3))
    T(z, v)
    record = T.last[0][1]
    assert T.recorded(z, v) is record
    assert math.isclose(T.recorded(2 * z, v).y[0, 0], 1.0)
