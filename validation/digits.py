"""Real input: a small dense MON trained on scikit-learn's digits, every test image solved to a certified 1e-6."""

from __future__ import annotations

import dataclasses

import numpy as np

from .. import datasets, mon, training
from ..networks import MonNetwork, mon_fc
from ..splitting import rates
from .readout import directional_error
from .verdict import Verdict, compare, largest

ID = "digits"
TOL = 1e-6
RECIPE = training.Recipe(epochs=12, batch=32, learning_rate=5e-3, schedule="one-cycle", tol=1e-2)


def trained(seed: int, hidden: int = 40) -> tuple[MonNetwork, datasets.Dataset]:
    """The network after a few epochs in float32, its parameters then in float64."""
    data = datasets.load("digits")
    rng = np.random.default_rng(seed)
    state = training.start(mon_fc(rng, data.x_train.shape[1], hidden=hidden, classes=data.classes), rng)
    for last in training.train(state, data, RECIPE):
        state = last
    wide = {name: np.asarray(p, dtype=np.float64) for name, p in state.network.params.items()}
    W = state.network.W.replace(**{name: wide.pop(name) for name in state.network.W.params})
    return dataclasses.replace(state.network, W=W, **wide), data


def real_input(seed: int, size: float) -> list[Verdict]:
    """Train, solve, certify, compare the two splittings, differentiate."""
    network, data = trained(seed)
    x, labels = data.x_test.astype(np.float64), data.y_test
    injection = network.inject(x)
    one, two = (
        mon.equilibrium(network.W, injection, network.activation, method=method, tol=TOL, max_iter=20000)
        for method in ("peaceman-rachford", "forward-backward")
    )
    accuracy = float(np.mean(network.readout(one.z).argmax(axis=1) == labels))
    same = float(np.mean(network.readout(one.z).argmax(axis=1) == network.readout(two.z).argmax(axis=1)))
    defect = one.z - np.maximum(one.z @ np.asarray(network.W.to_dense()).T + injection, 0)
    rng = np.random.default_rng([seed, 14])
    gradient = largest((e, f"{name}, seed {seed}") for e, name in directional_error(network, x[:16], labels[:16], rng))
    m, L = rates.constants(rates.gap(network.W))
    count = len(x)
    return [
        compare(ID, f"accuracy on {count} test images, {one.iterations} iterations", accuracy, ">=", 0.95),
        compare(ID, "certified ||z - z*||, largest of all test images, float64", max(one.bound), "<=", TOL),
        compare(
            ID,
            "fixed-point defect ||z - relu(Wz + Ux + b)||, in NumPy",
            np.linalg.norm(defect, axis=1).max(),
            "<=",
            (1 + L) * TOL,
        ),
        compare(
            ID,
            f"forward-backward ({two.iterations} iterations) against Peaceman-Rachford: distance",
            np.linalg.norm(one.z - two.z, axis=1).max(),
            "<=",
            2 * TOL,
        ),
        compare(ID, "...and the share of images that both classify alike", same, "==", 1),
        compare(ID, "gradient of every parameter against central differences", gradient, "<=", 1e-6),
        compare(ID, f"strong monotonicity of the trained I - W (L = {L:.2f}) minus m = 1", m - 1, ">=", 0, slack=1e-9),
    ]


__all__ = ["real_input"]
