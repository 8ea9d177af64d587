r"""A network that others trained, solved sample by sample, on the MNIST test images; what the theory assumes of it.

    python validation/jfb_weights.py WEIGHTS.npz MNIST.npz [--count 10000]

Accuracy, logits of an image alone, in its batch and in a permuted one; then, for a few images, ``||dT/du||_2``,
spectral radius, coercivity, kappa(M'M) with condition (15), and the angle between Jacobian-free and implicit gradient
[JFB-Asm2.1, JFB-Thm3.1].
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
from typing import Any

import numpy as np

import implicitref as ir

BATCH, APPLICATIONS = 100, (1, 2, 5, 10)


def load(weights: str, images: str, count: int | None = None) -> tuple[Any, np.ndarray, np.ndarray]:
    """The network, normalised test images, labels."""
    with np.load(weights, allow_pickle=False) as w, np.load(images, allow_pickle=False) as data:
        x = (data["x_test"][:count, None] / 255 - w["__meta__.norm_mean"]) / w["__meta__.norm_std"]
        return ir.networks.jfb_network(w), x.astype(np.float32), data["y_test"][:count].astype(np.int64)


def accuracy(network: Any, x: np.ndarray, labels: np.ndarray, tol: float = 1e-4) -> dict[str, Any]:
    """How many are right, in batches of 100, float32, every sample solved until its own residual is below tol."""
    right, residual, steps = 0, 0.0, 0
    for i in range(0, len(x), BATCH):
        solution = network.solve(x[i : i + BATCH], tol=tol)
        right += int(np.sum(network.S(solution.z).argmax(axis=1) == labels[i : i + BATCH]))
        residual, steps = max(residual, float(solution.residuals[-1].max())), max(steps, solution.iterations)
    return {"right": right, "of": len(x), "largest_residual": residual, "iterations": steps}


def applications(network: Any, x: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Per cent right after k applications of T to 0: 92.58, 98.08, 99.19, 99.35 tell this T from its neighbours."""
    right = dict.fromkeys(APPLICATIONS, 0)
    for i in range(0, len(x), BATCH):
        v = network.data_map(x[i : i + BATCH])
        z = np.zeros_like(v)
        for k in range(1, max(APPLICATIONS) + 1):
            z = network.latent(z, v)
            if k in right:
                right[k] += int(np.sum(network.S(z).argmax(axis=1) == labels[i : i + BATCH]))
    return {str(k): 100 * count / len(x) for k, count in right.items()}


def batches(network: Any, x: np.ndarray) -> dict[str, float]:
    """The largest difference of logits: alone or permuted, against a batch of 100."""
    x = x[:BATCH]
    together, order = network.logits(x), np.random.default_rng(0).permutation(len(x))
    alone = np.concatenate([network.logits(x[i : i + 1]) for i in range(len(x))])
    return {
        "alone": float(np.abs(alone - together).max()),
        "permuted": float(np.abs(network.logits(x[order]) - together[order]).max()),
    }


def jacobian(network: Any, x: np.ndarray) -> dict[str, float]:
    """Norm, spectral radius and coercivity of dT/du at the fixed point of one image, dense, in float64."""
    v = network.data_map(x.astype(np.float64))
    z = network.solve(x.astype(np.float64), tol=1e-8).z
    K = ir.fixed_point.maps.dense_jacobian(network.latent, z, v)[0]
    symmetric = np.eye(len(K)) - (K + K.T) / 2
    return {
        "norm": float(np.linalg.norm(K, 2)),
        "spectral_radius": float(np.abs(np.linalg.eigvals(K)).max()),
        "coercivity": float(np.linalg.eigvalsh(symmetric)[0]),
    }


def conditioning(network: Any, x: np.ndarray, gamma: float) -> dict[str, Any]:
    """kappa(M'M) of T's block of M at the fixed point of one image, dense, in float64, and condition (15) [JFB-Eq18].

    M = dT/dtheta, (p, n), theta the parameters of Q and R: one adjoint for every entry of T, eigenvalues of M'M. gamma
    is the factor that the network was built with; for the measured ||dT/du|| > 1 no kappa meets (15).
    """
    wide = x.astype(np.float64)
    M = ir.fixed_point.theory.parameter_jacobian(network.T, network.solve(wide, tol=1e-8).z, wide)
    low, high = np.linalg.eigvalsh(M.T @ M)[[0, -1]]
    kappa = float(high / low)
    return {
        "shape_of_M": M.shape,
        "kappa": kappa,
        "eigenvalues": [float(low), float(high)],
        "condition_15": kappa <= 1 / gamma,
        "threshold": ir.fixed_point.theory.descent_threshold(gamma),
    }


def angle(network: Any, x: np.ndarray, labels: np.ndarray) -> float:
    """Degrees between the Jacobian-free and the implicit gradient of all parameters."""
    wide = x.astype(np.float64)
    grads = [network.gradients(wide, labels, rule, tol=1e-8)[0] for rule in ("jfb", "implicit")]
    p, q = (np.concatenate([g[name].ravel() for name in sorted(g)]) for g in grads)
    return math.degrees(math.acos(float(p @ q / np.linalg.norm(p) / np.linalg.norm(q))))


def main() -> None:
    """Print everything as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights")
    parser.add_argument("images")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--jacobians", type=int, default=1, help="images whose Jacobian is formed, 50 MB each")
    options = parser.parse_args()
    network, x, labels = load(options.weights, options.images, options.count)
    found: dict[str, Any] = {"accuracy": accuracy(network, x, labels), "logits_differ_by": batches(network, x)}
    found["right_after_applications"] = applications(network, x, labels)
    found["jacobian"] = [jacobian(network, x[i : i + 1]) for i in range(options.jacobians)]
    gamma = next(layer.factor for layer in network.R.layers.values() if hasattr(layer, "factor"))
    found["conditioning"] = conditioning(network, x[:1], gamma)
    found["angle_degrees"] = angle(network, x[:BATCH], labels[:BATCH])
    judged = importlib.import_module(f"{ir.claims.validation().__name__}.jfb_baseline").judged
    found["gradients_in_training_mode"] = judged(network, x[:BATCH], labels[:BATCH])
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
