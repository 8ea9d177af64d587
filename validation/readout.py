"""MON appendix D.1: the readouts of the dense network and of the single convolution, and gradients through them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .. import activations
from ..losses import cross_entropy
from ..networks import MonNetwork, mon_conv, mon_fc
from . import problems
from .verdict import Verdict, compare, largest


def predict_count(n: int, d: int, classes: int = 10) -> int:
    """A, B, U, b, W_o, b_o."""
    return 2 * n * n + n * d + n + classes * n + classes


def measure_count(n: int, d: int) -> int:
    """Entries of all arrays of the network."""
    return sum(np.asarray(p).size for p in mon_fc(np.random.default_rng(0), d, hidden=n).params.values())


def dense_network(seed: int, size: float) -> list[Verdict]:
    """Logits W_o z* + b_o: the printed parameter count, and the gradient of every parameter."""
    claim = "MON-AppD.1-readout"
    return [
        compare(claim, "parameters at n = 87, d = 784 against Table D1", measure_count(87, 784), "==", 84313),
        compare(
            claim, "parameters at n = 5, d = 7 against the formula", measure_count(5, 7), "==", predict_count(5, 7)
        ),
        compare(
            claim,
            "gradient of every parameter along random directions against central differences",
            largest(_directional(seed, problems.count(18, size))),
            "<=",
            1e-6,
        ),
        compare(
            claim,
            "single convolution: features against means over 4 x 4, rest left out",
            largest(_pooled(seed)),
            "<=",
            1e-14,
        ),
        compare(claim, "single convolution: the same gradients", largest(_convolution(seed)), "<=", 1e-6),
    ]


def directional_error(
    network: MonNetwork, x: np.ndarray, labels: np.ndarray, rng: np.random.Generator, h: float = 1e-6
) -> Iterator[tuple[float, str]]:
    """Relative error of <gradient, direction>, one random direction for each parameter."""
    options = {"tol": 1e-12, "max_iter": 20000}
    grads = network.gradients(x, labels, **options).grads
    for name, value in network.params.items():
        direction = rng.normal(size=np.shape(value))
        ends = [
            cross_entropy(
                network.replace(**{name: np.asarray(value) + s * h * direction}).logits(x, **options), labels
            )[0]
            for s in (1, -1)
        ]
        measured, found = (ends[0] - ends[1]) / (2 * h), float(np.sum(grads[name] * direction))
        scale = float(np.linalg.norm(grads[name]) * np.linalg.norm(direction)) / np.sqrt(max(direction.size, 1))
        yield abs(found - measured) / max(abs(measured), scale, 1e-2), name


def _directional(seed: int, trials: int) -> Iterator[tuple[float, str]]:
    for k in range(trials):
        rng = np.random.default_rng(seed + k)
        activation = problems.ACTIVATIONS[k % len(problems.ACTIVATIONS)]
        network = mon_fc(rng, 4, hidden=5, classes=3, m=0.5, activation=activation, dtype=np.float64)
        x, labels = rng.normal(size=(6, 4)), rng.integers(0, 3, 6)
        for error, name in directional_error(network, x, labels, rng):
            yield error, f"{name}, {activation!r}, seed {seed + k}"


def _pooled(seed: int) -> Iterator[tuple[float, str]]:
    for side in range(2, 13):
        rng = np.random.default_rng(seed + side)
        network = mon_conv(rng, (1, side, side), 2, dtype=np.float64)
        z = rng.normal(size=(3, 2, side + 2, side + 2))
        whole = (side + 2) // 4
        means = [
            z[:, c, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].mean(axis=(1, 2))
            for c in range(2)
            for i in range(whole)
            for j in range(whole)
        ]
        logits = np.transpose(means) @ network.readout_weight.T + network.readout_bias
        yield float(np.abs(network.readout(z) - logits).max()), f"side {side} and its border, seed {seed + side}"


def _convolution(seed: int) -> Iterator[tuple[float, str]]:
    rng = np.random.default_rng(seed)
    network = mon_conv(rng, (2, 4, 6), 2, classes=3, activation=activations.tanh, dtype=np.float64)
    x, labels = rng.normal(size=(3, 2, 4, 6)), rng.integers(0, 3, 3)
    for error, name in directional_error(network, x, labels, rng):
        yield error, f"{name}, images 4 x 6, seed {seed}"


__all__ = ["dense_network"]
