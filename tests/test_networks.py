"""The dense MON: its size, its gradients against differences of an independent loss, its errors."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import oracles
import pytest
import scipy.special
from laws import ACTIVATIONS
from oracles import assert_close, size

from implicitref import activations, errors, networks, operators

N, D, CLASSES, BATCH = 4, 3, 3, 5


def network_of(activation=activations.relu, seed=0, m=0.5, **scales):
    rng = np.random.default_rng(seed)
    W = operators.MonotoneDense(rng.normal(size=(N, N)), rng.normal(size=(N, N)), m, **scales)
    U, b = rng.normal(size=(N, D)), rng.normal(size=N)
    return networks.MonNetwork(W, U, b, rng.normal(size=(CLASSES, N)), rng.normal(size=CLASSES), activation)


@pytest.mark.parametrize(("parts", "sizes"), [(1, [5]), (2, [3, 2]), (3, [2, 2, 1]), (9, [1] * 5)])
def test_a_batch_is_solved_in_so_many_parts(monkeypatch, parts, sizes):
    network, seen, part = network_of(), [], networks.MonNetwork._part
    monkeypatch.setattr(
        networks.MonNetwork, "_part", lambda self, x, *rest: seen.append(len(x)) or part(self, x, *rest)
    )
    network.accumulate(np.ones((BATCH, D)), np.zeros(BATCH, int), parts)
    assert seen == sizes


def loss_by_definition(network, params, x, labels, start):
    """Cross-entropy at the equilibrium that dense Newton steps find: shares no line with the package."""
    W = oracles.dense_weight(params["A"], params["B"], network.W.m, params.get("g"), params.get("h"))
    z = oracles.newton_equilibria(W, x @ params["U"].T + params["b"], repr(network.activation), start)
    logits = z @ params["readout_weight"].T + params["readout_bias"]
    return float(np.mean(scipy.special.logsumexp(logits, axis=1) - logits[np.arange(len(x)), labels]))


def clear_problem(activation, **scales):
    """The first seed whose pre-activations are away from the kinks, so that differences are derivatives."""
    for seed in range(100):
        network = network_of(activation, seed, **scales)
        rng = np.random.default_rng(1000 + seed)
        x, labels = rng.normal(size=(BATCH, D)), rng.integers(CLASSES, size=BATCH)
        z = network.solve(x, tol=1e-11).z
        pre = z @ network.W.to_dense().T + network.inject(x)
        if oracles.clear_of_kinks(repr(activation), pre, 0.02):
            return network, x, labels, z
    raise AssertionError("no problem is clear of the kinks")


@pytest.mark.parametrize("scales", [{}, {"g": 0.7, "h": -1.3}], ids=["plain", "normalised"])
@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=repr)
@pytest.mark.claim("MON-Thm2")
def test_gradient_of_every_parameter_is_the_derivative(activation, scales):
    network, x, labels, z = clear_problem(activation, **scales)
    loss, grads, forward, backward = network.gradients(x, labels, inputs=True, tol=1e-11)
    at = {**network.params, "x": x}
    assert set(grads) == set(at)
    assert_close(loss, loss_by_definition(network, at, x, labels, z), scale=1.0, tol=1e-10)
    assert forward.bound.max() <= 1e-11
    assert backward.bound.max() <= 1e-11
    rng = np.random.default_rng(5)
    for name, value in at.items():
        direction = rng.normal(size=value.shape)

        def moved(values, name=name):
            params = {**at, name: values}
            return loss_by_definition(network, params, params["x"], labels, z)

        desired = oracles.central_difference(moved, value, direction, 1e-4)
        scale = float(np.sum(np.abs(grads[name] * direction)))
        assert_close(np.sum(grads[name] * direction), desired, scale=scale + 1e-3, tol=1e-7)


def test_a_wrong_gradient_is_noticed():
    network, x, labels, z = clear_problem(activations.tanh)
    gradient = network.gradients(x, labels, tol=1e-11).grads["A"]
    direction = np.random.default_rng(5).normal(size=gradient.shape)
    desired = oracles.central_difference(
        lambda A: loss_by_definition(network, {**network.params, "A": A}, x, labels, z),
        network.params["A"], direction, 1e-4,
    )  # fmt: skip
    scale = float(np.sum(np.abs(gradient * direction)))
    for wrong in (-gradient, gradient.T, 2 * gradient, gradient * BATCH):
        with pytest.raises(AssertionError, match="error"):
            assert_close(np.sum(wrong * direction), desired, scale=scale, tol=1e-7)


def test_backends_agree(backend):
    network = network_of(activations.softplus, seed=3)
    rng = np.random.default_rng(4)
    x, labels = rng.normal(size=(BATCH, D)), rng.integers(CLASSES, size=BATCH)
    tol = 1e-9 if backend.double else 1e-4
    desired = network.gradients(x, labels, tol=1e-11, inputs=True)
    loss, grads, _, _ = network.gradients(backend(x), labels, tol=tol, inputs=True)
    assert_close(loss, desired.loss, scale=1.0, tol=10 * tol)
    for name, gradient in grads.items():
        assert type(gradient) is type(backend(x))
        assert_close(backend.numpy(gradient), desired.grads[name], scale=10 * size(desired.grads[name]), tol=10 * tol)


def test_the_backward_tolerance_follows_the_cotangents():
    network = network_of()
    x, labels = np.ones((BATCH, D)), np.zeros(BATCH, dtype=int)
    z = network.solve(x, tol=1e-10).z
    logits = network.readout(z)
    dlogits = (scipy.special.softmax(logits, axis=1) - np.eye(CLASSES)[labels]) / BATCH
    largest = np.linalg.norm(dlogits @ network.readout_weight, axis=1).max()
    assert network.gradients(x, labels, tol=1e-3).backward.bound.max() <= 1.01e-3 * largest


def test_an_empty_batch_has_zero_gradients():
    network = network_of()
    loss, grads, _, _ = network.gradients(np.ones((0, D)), np.zeros(0, dtype=int))
    assert loss == 0
    assert all(np.array_equal(grads[name], np.zeros_like(value)) for name, value in network.params.items())


def test_table_d1_counts_84313_parameters():
    network = networks.mon_fc(np.random.default_rng(0), 784)
    assert sum(p.size for p in network.params.values()) == 84_313
    assert {p.dtype for p in network.params.values()} == {np.dtype(np.float32)}


def test_initial_entries_fill_the_interval_of_the_fan_in():
    network = networks.mon_fc(np.random.default_rng(0), 400, hidden=100, classes=50, dtype=np.float64)
    for name, value in network.params.items():
        bound = 1 / np.sqrt(400 if name in ("U", "b") else 100)
        assert np.abs(value).max() <= bound
        assert np.abs(value).max() > 0.9 * bound
        assert_close(value.mean(), 0.0, scale=bound, tol=6 / np.sqrt(3 * value.size))


def test_replace_changes_only_what_is_named():
    network = network_of()
    changed = network.replace(A=np.eye(N), readout_bias=np.ones(CLASSES))
    assert np.array_equal(changed.params["A"], np.eye(N))
    assert np.array_equal(changed.readout_bias, np.ones(CLASSES))
    assert changed.W.m == network.W.m
    assert all(np.array_equal(changed.params[k], network.params[k]) for k in ("B", "U", "b", "readout_weight"))
    with pytest.raises(TypeError, match="no parameter m"):
        network.replace(m=1.0)


def test_mon_network_reads_the_authors_names():
    network = network_of(seed=2)
    named = {"U": network.U, "b": network.b, "A": network.W.A, "B": network.W.B, "m": np.float64(0.5)}
    read = networks.mon_network({**named, "Wout": network.readout_weight, "bout": network.readout_bias})
    x = np.ones((2, D))
    assert np.array_equal(read.logits(x), network.logits(x))
    with pytest.raises(errors.HypothesisError, match="Wout, bout missing"):
        networks.mon_network(named)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("U", np.ones((N + 1, D)), errors.ShapeError),
        ("b", np.ones((N, 1)), errors.ShapeError),
        ("readout_weight", np.ones((CLASSES, N + 1)), errors.ShapeError),
        ("readout_bias", np.ones(CLASSES + 1), errors.ShapeError),
        ("b", np.full(N, np.nan), errors.HypothesisError),
        ("U", [[1.0]], TypeError),
    ],
)
def test_wrong_parameters_are_refused_by_name(name, value, error):
    with pytest.raises(error, match=name):
        network_of().replace(**{name: value})


@pytest.mark.parametrize("x", [np.ones(D), np.ones((2, D + 1)), np.ones((2, D), dtype=int), np.full((2, D), np.inf)])
def test_wrong_inputs_are_refused_by_name(x):
    for call in (network_of().solve, network_of().logits, lambda x: network_of().gradients(x, np.zeros(2, int))):
        with pytest.raises(ValueError, match="x must"):
            call(x)


def test_a_solve_that_runs_out_says_so():
    with pytest.raises(errors.ConvergenceError, match="max_iter = 1"):
        network_of().gradients(np.ones((2, D)), np.zeros(2, dtype=int), max_iter=1)


def test_the_network_reads_without_writing():
    network = network_of()
    before = {name: value.copy() for name, value in network.params.items()}
    x = np.ones((2, D))
    network.gradients(x, np.zeros(2, dtype=int))
    assert np.array_equal(x, np.ones((2, D)))
    assert all(np.array_equal(before[name], value) for name, value in network.params.items())


@pytest.mark.data
def test_trained_weights_classify_the_test_images():
    folder = os.environ.get("IMPLICITREF_DATA")
    if not folder or not (Path(folder) / "mon_fc_trained.npz").exists():
        pytest.skip("IMPLICITREF_DATA does not name a folder with mon_fc_trained.npz and mnist.npz")
    images = np.load(Path(folder) / "mnist.npz")
    with np.load(Path(folder) / "mon_fc_trained.npz") as weights:
        network = networks.mon_network({name: weights[name] for name in weights})
    x = (images["x_test"][:2000].reshape(2000, -1) / 255 - 0.1307) / 0.3081
    right = network.logits(x, tol=1e-6).argmax(axis=1) == images["y_test"][:2000]
    assert right.mean() > 0.96
