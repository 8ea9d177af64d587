"""Networks of the first version: counts, the proven contraction, its certificate, gradients, training."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import scipy.special
from oracles import assert_close, central_difference, size

from implicitref import errors, fixed_point, networks

TABLE = {  # function: latent dimension, parameters, and the thousands of the table
    "fpn_mnist_dense": (58, 84_087, 84),
    "fpn_mnist": (46, 84_182, 84),
    "fpn_svhn": (89, 154_038, 154),
    "fpn_cifar10": (47, 171_965, 172),
    "fpn_resnet56": (45, 859_793, 860),
}
RESNET56 = 853_018  # with its own readout from 64 features to 10 classes


def count(layer):
    return sum(p.size for p in layer.params.values())


@functools.cache
def table_network(name):
    return getattr(networks, name)(np.random.default_rng(0))


@pytest.mark.claim("JFB-Tab1")
@pytest.mark.parametrize("name", TABLE)
def test_counts(name):
    network, (latent, parameters, thousands) = table_network(name), TABLE[name]
    assert count(network) == count(network.explicit) == parameters
    assert round(parameters / 1000) == thousands
    assert network.state == (latent,)


def test_features_of_the_largest_are_resnet_56():
    features = table_network("fpn_resnet56").Q
    assert count(features) - (65 * 45) == RESNET56 - 65 * 10
    assert sum(name.endswith("weight") and p.ndim == 4 for name, p in features.params.items()) == 55


@pytest.mark.claim("FPN-Asm2.1")
@pytest.mark.parametrize("name", [name for name in TABLE if name != "fpn_resnet56"])
def test_the_contraction_is_proven_and_the_answer_certified(name):
    network = table_network(name)
    x = np.random.default_rng(1).normal(size=(3, *network.image))
    gamma = network.latent.gamma
    norms = [np.linalg.norm(p.astype(float), 2) for p in network.R.params.values()]
    assert max(norms) <= 1 + 1e-6
    assert gamma <= 0.991
    loose, tight = network.solve(x, tol=1e-2), network.solve(x, tol=1e-10, max_iter=5000)
    assert loose.gamma == gamma
    distance = np.linalg.norm(loose.z - tight.z, axis=1)
    assert np.all(distance <= loose.bound + 1e-9)
    assert np.all(loose.bound <= 1e-2)


def small(seed=0):
    rng = np.random.default_rng(seed)
    network = networks.fpn_mnist_dense(rng, (1, 3, 2), 3, hidden=5, latent=4, gamma=0.8, dtype=np.float64)
    return network, rng.normal(size=(4, 1, 3, 2)), rng.integers(3, size=4)


def by_definition(x, labels, arrays, steps=120):
    v = np.maximum(x.reshape(len(x), -1) @ arrays["fc_d.weight"].T + arrays["fc_d.bias"], 0)
    v = np.maximum(v @ arrays["fc_v.weight"].T + arrays["fc_v.bias"], 0)
    z = 0 * v
    for _ in range(steps):
        z = 0.8 * np.maximum((z + v) @ arrays["fc_u.0.weight"].T + arrays.get("fc_u.0.bias", 0), 0)
    y = z @ arrays["fc_y.weight"].T + arrays.get("fc_y.bias", 0)
    return float(np.mean(scipy.special.logsumexp(y, axis=1) - y[np.arange(len(x)), labels]))


@pytest.mark.claim("FPN-Eq11")
@pytest.mark.parametrize("solver", ["picard", "cgnr"])
def test_the_implicit_gradient_is_the_derivative(solver):
    network, x, labels = small()
    grads, _ = network.gradients(x, labels, fixed_point.implicit(solver, tol=1e-11), tol=1e-11)
    for name, gradient in grads.items():
        direction = np.random.default_rng(2).normal(size=gradient.shape)
        arrays = network.params

        def loss(p, name=name, arrays=arrays):
            return by_definition(x, labels, {**arrays, name: p})

        desired = central_difference(loss, arrays[name], direction, 1e-6)
        assert_close(np.sum(gradient * direction), desired, scale=size(gradient) * gradient.size + 1e-2, tol=1e-7)


@pytest.mark.claim("FPN-Asm2.1")
def test_the_projection_is_the_nearest_and_touches_nothing_else():
    network, _, _ = small()
    params = {name: 3 * p for name, p in network.params.items()}
    found = network.projected(params)
    assert network.bounded == ("fc_u.0.weight",)
    for name, p in params.items():
        if name not in network.bounded:
            assert found[name] is p
    W, nearest = params["fc_u.0.weight"], found["fc_u.0.weight"]
    assert np.linalg.norm(nearest, 2) <= 1 + 1e-14
    assert_close(fixed_point.theory.clipped(nearest), nearest, scale=1.0, tol=1e-14)
    rng = np.random.default_rng(3)
    for _ in range(50):  # <W - P W, V - P W> <= 0 for every V of the ball: the projection on a convex set
        V = rng.normal(size=W.shape)
        V /= max(1.0, np.linalg.norm(V, 2))
        assert np.sum((W - nearest) * (V - nearest)) <= 1e-12


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fpn_mnist", {"gamma": 1.0}, "gamma must lie in"),
        ("fpn_mnist", {"gamma": "half"}, "gamma must lie in"),
        ("fpn_mnist", {"latent": 2.5}, "latent must be an integer >= 1; got 2.5"),
        ("fpn_mnist", {"image": (28, 28)}, r"image must be \(channels, height, width\).*got \(28, 28\)"),
        ("fpn_mnist", {"image": (1, 9, 28)}, "sides >= 10"),
        ("fpn_svhn", {"image": (3, 15, 32)}, "sides >= 16"),
        ("fpn_cifar10", {"image": (3, 21, 22)}, "sides >= 22"),
        ("fpn_resnet56", {"image": (3, 30, 32)}, "divisible by 4"),
        ("fpn_mnist_dense", {"hidden": 0}, "hidden must be an integer >= 1"),
    ],
)
def test_bad_sizes_are_refused(name, options, message):
    with pytest.raises(errors.HypothesisError, match=message):
        getattr(networks, name)(np.random.default_rng(0), **options)


@pytest.mark.parametrize(("name", "side"), [("fpn_mnist", 10), ("fpn_svhn", 16), ("fpn_cifar10", 22)])
def test_the_smallest_images_go_through(name, side):
    network = getattr(networks, name)(np.random.default_rng(0), (2, side, side), 3, latent=2)
    assert network.explicit(np.ones((1, 2, side, side))).shape == (1, 3)
