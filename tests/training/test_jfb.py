"""Training of fixed point networks away from the host, with another library in the place of CuPy."""

from __future__ import annotations

import dataclasses
import sys
import types

import numpy as np
import pytest

from implicitref import datasets, networks, training
from implicitref.commands.common import on_device


@pytest.fixture
def torch(monkeypatch):
    torch = pytest.importorskip("torch")
    cupy = types.ModuleType("cupy")
    cupy.ndarray = type("ndarray", (), {})
    cupy.cuda = types.SimpleNamespace(is_available=lambda: True)
    cupy.zeros = lambda count, dtype: torch.zeros(count, dtype=getattr(torch, np.dtype(dtype).name))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return torch


def few_digits():
    data = datasets.load("digits")
    parts = {"x_train": 100, "y_train": 100, "x_test": 20, "y_test": 20}
    return dataclasses.replace(data, **{name: getattr(data, name)[:count] for name, count in parts.items()})


def test_a_training_on_a_device_is_the_training_on_the_host(torch):
    data, recipe, states = few_digits(), training.FixedPointRecipe(epochs=1, batch=50, rule="neumann:2"), {}
    for device in ("cpu", "gpu"):
        rng = np.random.default_rng(0)
        network = on_device(device, networks.jfb_mnist(rng, data.shape, data.classes, blocks=1))
        (states[device],) = training.train(training.start(network, rng), data, recipe, learner=training.jfb.LEARNER)
    moved = states["gpu"].network
    assert all(isinstance(array, torch.Tensor) for array in {**moved.params, **moved.buffers}.values())
    losses = {device: state.history[0].loss for device, state in states.items()}
    assert abs(losses["gpu"] - losses["cpu"]) < 1e-4


def test_images_are_judged_on_the_device_of_the_network(torch):
    data, seen = few_digits(), []
    network = networks.jfb_mnist(np.random.default_rng(0), data.shape, data.classes, blocks=1).following(torch.zeros(1))

    def readout(z):
        seen.append(type(z))
        return network.S(z)

    watched = types.SimpleNamespace(image=network.image, params=network.params, solve=network.solve, S=readout)
    state = types.SimpleNamespace(network=watched)
    assert 0 <= training.jfb.LEARNER.accuracy(state, data, training.FixedPointRecipe()) <= 1
    assert seen == [torch.Tensor]
