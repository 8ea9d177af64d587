r"""Weights that others trained, solved to a certified distance: every method, every step, on the MNIST test images.

    python validation/trained_weights.py WEIGHTS.npz MNIST.npz

The weights hold U, b, A, B, m, Wout, bout, mnist_mean, mnist_std; the images x_test, y_test. Everything in float64, to
a certified ``||z - z*|| <= 1e-6`` for every image. A method that does not converge ends in ConvergenceError; its
sentence is shown in place of a number.
"""

from __future__ import annotations

import argparse
import time
from typing import Any, NamedTuple

import numpy as np

import implicitref as ir

CASES: list[tuple[str, float | None]] = [
    ("peaceman-rachford", 0.25),
    ("peaceman-rachford", 0.5),
    ("peaceman-rachford", 1.0),
    ("peaceman-rachford", None),
    ("douglas-rachford", None),
    ("forward-backward", None),
    ("forward-backward", 0.25),
    ("forward-backward", 0.5),
    ("forward-backward", 1.0),
    ("picard", None),
]


class Row(NamedTuple):
    """One method and step on all images."""

    method: str
    alpha: float
    guaranteed: bool
    iterations: int
    right: int | None
    bound: float
    seconds: float
    reason: str


def load(weights: str, images: str, count: int | None = None) -> tuple[Any, np.ndarray, Any, np.ndarray]:
    """The operator, the injections of the test images, the readout, and the labels."""
    with np.load(weights, allow_pickle=False) as w, np.load(images, allow_pickle=False) as data:
        p = {name: w[name].astype(np.float64) for name in w}
        x = (data["x_test"][:count].reshape(-1, p["U"].shape[1]) / 255 - p["mnist_mean"]) / p["mnist_std"]
        labels = data["y_test"][:count]
    W = ir.operators.MonotoneDense(p["A"], p["B"], float(p["m"]))
    injection = ir.layers.affine(x, p["U"], p["b"])
    return W, injection, lambda z: ir.layers.affine(z, p["Wout"], p["bout"]), labels


def measure(weights: str, images: str, count: int | None = None, tol: float = 1e-6) -> list[Row]:
    """One row a case."""
    W, injection, readout, labels = load(weights, images, count)
    limit = ir.splitting.rates.forward_backward_limit(ir.splitting.rates.gap(W))
    rows = []
    for method, alpha in CASES:
        begin, right = time.perf_counter(), None
        try:
            solution = ir.mon.equilibrium(W, injection, ir.activations.relu, method=method, alpha=alpha, tol=tol)
            right = int(np.sum(np.argmax(readout(solution.z), axis=1) == labels))
        except ir.ConvergenceError as error:
            solution = error.solution
        seconds, a = time.perf_counter() - begin, solution.alpha
        guaranteed = a < limit if method in ("forward-backward", "picard") else True
        rows.append(
            Row(method, a, guaranteed, solution.iterations, right, solution.bound.max(), seconds, solution.reason)
        )
    return rows


def markdown(rows: list[Row]) -> str:
    """The table of the documentation."""
    lines = ["| method | alpha | guaranteed | iterations | right | certified distance |", "|---|---|---|---|---|---|"]
    for r in rows:
        right = "ConvergenceError" if r.right is None else f"{r.right:,}"
        guaranteed = "yes" if r.guaranteed else "no"
        lines.append(f"| {r.method} | {r.alpha:.4g} | {guaranteed} | {r.iterations} | {right} | {r.bound:.1e} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table, and the sentence of every failure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights")
    parser.add_argument("images")
    options = parser.parse_args()
    rows = measure(options.weights, options.images)
    print(markdown(rows))
    for row in rows:
        if row.right is None:
            print(f"\n{row.method}, alpha = {row.alpha:.4g}: {row.reason}")


if __name__ == "__main__":
    main()
