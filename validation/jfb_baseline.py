r"""The papers' Jacobian-based baseline along one training run: what its gradient is worth [JFB-Tab2].

    python validation/jfb_baseline.py [--epochs 4] [--batch-norm]

JFB's network with one latent block on the digits of scikit-learn, trained by jfb; the latent space is without batch
norm, as in the papers' Jacobian-based runs, unless asked for. Before training and after every epoch, on one batch of
100 images, the gradient of the mean loss by CG on the normal equations to an absolute .1 (the papers' rule, the batch
being one state: no sample's residual is above its norm), by CG to 1e-4 of its right side, and by jfb: steps of CG,
angle and relative error against the implicit gradient to 1e-8.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

import implicitref as ir

fp = ir.fixed_point
RULES: dict[str, Any] = {
    "CG to .1": fp.implicit("cgnr", tol=0.1, stop="absolute"),
    "CG to 1e-4 of g": fp.implicit("cgnr", tol=1e-4),
    "jfb": fp.jfb,
}
EXACT = fp.implicit("anderson", tol=1e-8)


def gradient(network: Any, x: np.ndarray, labels: np.ndarray, rule: Any) -> tuple[np.ndarray, int]:
    """All gradients end to end, in training mode at the fixed point, and the products with dT/du and its transpose."""
    found = network.training_pass(x.astype(np.float64), labels, rule, tol=1e-8, max_iter=1000)
    return np.concatenate([found.grads[name].ravel() for name in sorted(found.grads)]), found.products


def judged(network: Any, x: np.ndarray, labels: np.ndarray) -> dict[str, dict[str, float]]:
    """For every rule: steps (of CG, 0 for jfb), angle in degrees and relative error against the implicit gradient."""
    exact, _ = gradient(network, x, labels, EXACT)
    size, rows = float(np.linalg.norm(exact)), {}
    for name, rule in RULES.items():
        p, products = gradient(network, x, labels, rule)
        cosine = float(p @ exact / np.linalg.norm(p)) / size
        error = float(np.linalg.norm(p - exact)) / size
        # two products a step, two for the first residual and its transpose
        steps = max(products // 2 - 1, 0)
        rows[name] = {"steps": steps, "angle_degrees": math.degrees(math.acos(min(1.0, cosine))), "error": error}
    return rows


def along_training(epochs: int = 4, batch_norm: bool = False, seed: int = 0) -> Iterator[dict[str, Any]]:
    """What `judged` says of the initial network and after every epoch, with the test accuracy."""
    data, rng = ir.datasets.load("digits"), np.random.default_rng(seed)
    network = ir.networks.jfb_mnist(rng, data.shape, data.classes, blocks=1, batch_norm=batch_norm)
    x, labels = data.x_train[:100].reshape(-1, *network.image), data.y_train[:100]
    yield {"epoch": 0, **judged(network, x, labels)}
    recipe = ir.training.FixedPointRecipe(epochs=epochs, batch=100, learning_rate=2e-3, tol=1e-3)
    for state in ir.training.train(ir.training.start(network, rng), data, recipe, learner=ir.training.jfb.LEARNER):
        record = state.history[-1]
        yield {"epoch": record.epoch, "accuracy": record.test_accuracy, **judged(state.network, x, labels)}


def main() -> None:
    """Print a row an epoch as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-norm", action="store_true", help="in the latent space")
    options = parser.parse_args()
    print(json.dumps(list(along_training(options.epochs, options.batch_norm)), indent=2))


if __name__ == "__main__":
    main()
