r"""Figures 5 and 6 of JFB in small form: loss and accuracy against time, the same network and images for every rule.

    python validation/jfb_figures.py [--epochs 20] [--svg figure.svg]

One layer ``z* = tanh(W z* + U x + b)`` of 64 units, linear readout, on the digits of scikit-learn; W is kept at
``||W||_2 <= gamma = .9``, so that Assumption 2.1 holds. The rules start from the same weights and see the same batches:
Jacobian-free, Neumann 1, 2, 5, 10, the implicit rule to 1e-4, and CG on the normal equations to an absolute .1, as the
paper's authors ran it [JFB-Tab2]. The time is that of training alone, without the evaluation after every epoch.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import implicitref as ir
from implicitref.training import optimisers

fp = ir.fixed_point
GAMMA, UNITS, BATCH, TOL = 0.9, 64, 50, 1e-4
RULES: dict[str, Any] = {
    "jfb": fp.jfb,
    **{f"neumann:{k}": fp.neumann(k) for k in (1, 2, 5, 10)},
    "implicit": fp.implicit(tol=TOL),
    "cg to .1": fp.implicit("cgnr", stop="absolute", tol=0.1),
}
Params = dict[str, np.ndarray]


def layer(params: Params) -> fp.OneLayer:
    """T with its weight."""
    return fp.OneLayer(params["W"], params["U"], params["b"], ir.activations.tanh)


def start(rng: np.random.Generator, inputs: int, classes: int) -> Params:
    """Weights of the usual scale, W rescaled."""
    shapes = {"W": (UNITS, UNITS), "U": (UNITS, inputs), "S": (classes, UNITS)}
    params = {name: rng.normal(size=shape) / np.sqrt(shape[1]) for name, shape in shapes.items()}
    return contractive({**params, "b": np.zeros(UNITS), "c": np.zeros(classes)})


def contractive(params: Params) -> Params:
    """The same with ``||W||_2 <= gamma``."""
    W = params["W"]
    return {**params, "W": np.asarray(fp.theory.rescaled(W, fp.theory.spectral_norm(W), GAMMA))}


def loss(params: Params, x: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Mean cross-entropy, the fixed points, logits, and the gradient at the logits."""
    z = fp.iterate(layer(params), x, np.zeros((len(x), UNITS)), tol=TOL).z
    logits = z @ params["S"].T + params["c"]
    value, dy = ir.losses.cross_entropy(logits, labels)
    return value, z, logits, dy


def step(params: Params, state: Any, rule: Any, x: np.ndarray, labels: np.ndarray) -> tuple[Params, Any]:
    """One step of Adam along what the rule takes for the gradient."""
    _, z, _, dy = loss(params, x, labels)
    grads = fp.gradients(layer(params), z, x, dy @ params["S"], rule)
    grads = {**grads, "S": dy.T @ z, "c": dy.sum(axis=0)}
    moved, state = optimisers.adam_step(params, {name: grads[name] for name in params}, state, 2e-3)
    return contractive(moved), state


def curve(rule: Any, data: Any, seed: int, epochs: int) -> Iterator[dict[str, float]]:
    """Seconds of training, training loss and test accuracy, after every epoch."""
    rng = np.random.default_rng(seed)
    x, x_test = (a.astype(np.float64) for a in (data.x_train, data.x_test))
    params = start(rng, x.shape[1], data.classes)
    state, seconds = optimisers.adam_init(params), 0.0
    for epoch in range(1, epochs + 1):
        order, began = rng.permutation(len(x)), time.perf_counter()
        for i in range(0, len(x), BATCH):
            chosen = order[i : i + BATCH]
            params, state = step(params, state, rule, x[chosen], data.y_train[chosen])
        seconds += time.perf_counter() - began
        value, _, _, _ = loss(params, x, data.y_train)
        right = loss(params, x_test, data.y_test)[2].argmax(axis=1) == data.y_test
        yield {"epoch": epoch, "seconds": seconds, "loss": value, "accuracy": float(right.mean())}


def figures(seed: int = 0, epochs: int = 20) -> dict[str, list[dict[str, float]]]:
    """The curve of every rule."""
    data = ir.datasets.load("digits")
    return {name: list(curve(rule, data, seed, epochs)) for name, rule in RULES.items()}


def draw(curves: dict[str, list[dict[str, float]]], path: str) -> None:
    """Loss and accuracy against time, one line a rule."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    for axes, key in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for name, points in curves.items():
            axes.plot([p["seconds"] for p in points], [p[key] for p in points], label=name)
        axes.set(xlabel="seconds of training", ylabel=key, yscale="log" if key == "loss" else "linear")
    axes.legend()
    figure.savefig(path)


def main() -> None:
    """Print the curves as JSON; draw them if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--svg", type=Path, help="where to draw them")
    options = parser.parse_args()
    curves = figures(options.seed, options.epochs)
    print(json.dumps(curves, indent=2))
    if options.svg:
        draw(curves, str(options.svg))


if __name__ == "__main__":
    main()
