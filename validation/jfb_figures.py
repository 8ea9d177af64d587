r"""Figures 5 and 6 of JFB in small form: loss and accuracy against time, the same network and images for every rule.

One layer ``z* = tanh(W z* + U x + b)`` of 64 units, linear readout, on the digits of scikit-learn; W is kept at
``||W||_2 <= gamma = .9``, so that Assumption 2.1 holds. The rules start from the same weights and see the same batches.
Figure 5: Jacobian-free, the implicit rule to 1e-4, and CG on the normal equations to an absolute .1, as the paper's
authors ran it [JFB-Tab2]. Figure 6: Neumann of order 1, 2, 5, 10. The time is the processor's, of training alone: what
else the machine does and the evaluation after every epoch do not count. Drawn by ``implicitref reproduce jfb-figure-5``
and ``jfb-figure-6``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

import implicitref as ir
from implicitref.plotting.style import line_style
from implicitref.training import optimisers

from .verdict import Verdict, compare

fp = ir.fixed_point
GAMMA, UNITS, BATCH, TOL = 0.9, 64, 50, 1e-4
RULES: dict[str, Any] = {
    "jfb": fp.jfb,
    **{f"neumann:{k}": fp.neumann(k) for k in (1, 2, 5, 10)},
    "implicit": fp.implicit(tol=TOL),
    "cg to .1": fp.implicit("cgnr", stop="absolute", tol=0.1),
}
COMPARED = ("jfb", "implicit", "cg to .1")  # of Figure 5
TRUNCATED = ("jfb", "neumann:1", "neumann:2", "neumann:5", "neumann:10")  # of Figure 6
EPOCHS = 20
LABELS = {"loss": "training loss (mean cross-entropy)", "accuracy": "test accuracy (share)"}
Params = dict[str, np.ndarray]
Curves = dict[str, list[dict[str, float]]]


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
    """Seconds of processor time in training, training loss and test accuracy, after every epoch."""
    rng = np.random.default_rng(seed)
    x, x_test = (a.astype(np.float64) for a in (data.x_train, data.x_test))
    params = start(rng, x.shape[1], data.classes)
    state, seconds = optimisers.adam_init(params), 0.0
    for epoch in range(1, epochs + 1):
        order, began = rng.permutation(len(x)), time.process_time()
        for i in range(0, len(x), BATCH):
            chosen = order[i : i + BATCH]
            params, state = step(params, state, rule, x[chosen], data.y_train[chosen])
        seconds += time.process_time() - began
        value, _, _, _ = loss(params, x, data.y_train)
        right = loss(params, x_test, data.y_test)[2].argmax(axis=1) == data.y_test
        yield {"epoch": epoch, "seconds": seconds, "loss": value, "accuracy": float(right.mean())}


def curves(names: Sequence[str], seed: int = 0, epochs: int = EPOCHS, tell: Any = None) -> Curves:
    """The curve of every rule, one after another, by name."""
    data, found = ir.datasets.load("digits"), {}
    for name in names:
        if tell:
            tell(f"training by {name}")
        found[name] = list(curve(RULES[name], data, seed, epochs))
    return found


def seconds_an_epoch(points: Sequence[dict[str, float]]) -> float:
    """Of the fastest."""
    return float(np.min(np.diff([0.0, *(p["seconds"] for p in points)])))


def records(found: Curves) -> list[dict[str, Any]]:
    """A line a rule and epoch."""
    return [{"rule": name, **point} for name, points in found.items() for point in points]


def verdicts(claim: str, found: Curves) -> list[Verdict]:
    """What both figures are to show: Jacobian-free is faster than the slowest rule, as accurate up to three points."""
    ours, others = found["jfb"], {name: points for name, points in found.items() if name != "jfb"}
    slowest = max(others, key=lambda name: seconds_an_epoch(others[name]))
    ratio = seconds_an_epoch(ours) / seconds_an_epoch(others[slowest])
    best = max(points[-1]["accuracy"] for points in others.values())
    return [
        compare(claim, f"seconds an epoch over those of {slowest}, the slowest", ratio, "<=", 1),
        compare(claim, "accuracy of the best of the others less jfb's", best - ours[-1]["accuracy"], "<=", 0.03),
    ]


def draw(figure: Any, found: Curves) -> None:
    """Loss and accuracy against time, one line a rule."""
    for axes, key in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for i, (name, points) in enumerate(found.items()):
            x, y = ([p[k] for p in points] for k in ("seconds", key))
            axes.plot(x, y, label=name, **line_style(i, len(points)))
        axes.set(xlabel="seconds of processor time", ylabel=LABELS[key], yscale="log" if key == "loss" else "linear")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", title="rule", frameon=False)


__all__ = ["COMPARED", "TRUNCATED", "curve", "curves", "draw", "records", "seconds_an_epoch", "verdicts"]
