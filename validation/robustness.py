"""Certified radii under attack: does a point inside one ever change class, and how far are they from the truth?

    OPENBLAS_NUM_THREADS=1 python -m implicitref.validation.robustness

A MONClassifier is trained on scikit-learn's digits. Every test image is moved to 0.999 of its radius, in random
directions and, against every other class, by projected ascent along the gradient of the margin, which the adjoint
equation gives exactly. Beyond the radius the same ascent looks for the nearest point of another class: the ratio of its
distance to the radius bounds what the certificate gives away.
"""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

import numpy as np

from .. import mon
from ..estimators.targets import settled
from .verdict import Verdict, compare

__all__ = ["attacked", "main", "ratios", "robust"]

ID, INSIDE, TOL = "NEW-sensitivity", 0.999, 1e-8
STEPS = 4  # of the ascent
FACTORS = np.geomspace(0.5, 16, 31)  # of the radius; those below 1 are to find nothing


class Attack(NamedTuple):
    """How many points were tried, how many of them had another class, and the largest share of a radius used."""

    tries: int
    changed: int
    share: float


def trained(seed: int, epochs: int, weight_decay: float = 0.1) -> tuple[Any, np.ndarray]:
    """A classifier, and test images that it never saw."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    from ..estimators import MONClassifier

    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, _ = train_test_split(x, y, random_state=seed, stratify=y)
    model = MONClassifier(max_iter=epochs, weight_decay=weight_decay, random_state=seed)
    return model.fit(x_train, y_train), x_test


def margin_gradients(model: Any, x: np.ndarray, of: np.ndarray, over: np.ndarray) -> np.ndarray:
    """Gradient by x of the logit of class `over` less that of class `of`, by Theorem 3."""
    network = model.network_
    solution = settled(network, model._scaled(x), "peaceman-rachford", TOL)
    jac = network.activation.derivative(network.activation.root(solution.u, solution.alpha))
    weight = network.readout_weight
    dpre = mon.adjoint(network.W, jac, network.ends.features_vjp(network.W, weight[over] - weight[of]), tol=TOL).z
    return np.asarray(network.ends.inject_vjp(network.W, network.U, dpre))


def unit(step: np.ndarray) -> np.ndarray:
    """Rows of length 1; zero rows stay."""
    length = np.linalg.norm(step, axis=1, keepdims=True)
    return np.asarray(step / np.where(length > 0, length, 1.0))


def ascents(model: Any, x: np.ndarray, labels: np.ndarray, reach: np.ndarray, steps: int = STEPS) -> Any:
    """Points at distance `reach` of every x, step by step, towards every other class in turn."""
    k = len(model.classes_)
    for shift in range(1, k):
        over, point = (labels + shift) % k, x
        for _ in range(steps):
            away = point - x + reach[:, None] * unit(margin_gradients(model, point, labels, over))
            point = x + reach[:, None] * unit(away)
            yield point


def attacked(model: Any, x: np.ndarray, tries: int, seed: int, factor: float = INSIDE) -> Attack:
    """Points at `factor` times the radius: half of the tries by ascent, for as many samples as that takes."""
    rng, changed, done, share = np.random.default_rng([seed, 1]), 0, 0, 0.0
    k = len(model.classes_)
    count = min(len(x), -(-tries // (2 * STEPS * (k - 1))))
    x = x[:count]
    radius, labels = model.certified_radius(x), model.predict(x)
    reach = factor * radius
    draws = range(-(-tries // (2 * count)))
    random = (x + reach[:, None] * unit(rng.normal(size=x.shape)) for _ in draws)
    numbers = np.searchsorted(model.classes_, labels)
    for points in (*ascents(model, x, numbers, reach), *random):
        certain = radius > 0
        moved = np.linalg.norm(points - x, axis=1)
        changed += int(np.count_nonzero((model.predict(points) != labels) & certain))
        done, share = done + int(certain.sum()), max(share, float(np.max(moved[certain] / radius[certain])))
    return Attack(done, changed, share)


def ratios(model: Any, x: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """For every x the smallest factor at which the ascent finds another class; inf where none does."""
    radius, labels = model.certified_radius(x), model.predict(x)
    numbers, found = np.searchsorted(model.classes_, labels), np.full(len(x), np.inf)
    for factor in factors:
        left = np.flatnonzero(np.isinf(found) & (radius > 0))
        if not left.size:
            break
        for points in ascents(model, x[left], numbers[left], factor * radius[left], steps=3):
            found[left[model.predict(points) != labels[left]]] = factor
    return found


def robust(seed: int, size: float) -> list[Verdict]:
    """The verdicts; the size scales epochs, tries and images."""
    model, x = trained(seed, max(3, round(25 * size)))
    attack = attacked(model, x, max(500, round(10_000 * size)), seed)
    beyond = ratios(model, x[: max(20, round(100 * size))], FACTORS)
    return [
        compare(
            ID, f"points at {INSIDE} of the radius with another class, {attack.tries} tries", attack.changed, "<=", 0
        ),
        compare(ID, "the largest share of a radius that was tried", attack.share, "<=", 1.0),
        compare(ID, "the smallest distance of another class over the radius", float(beyond.min()), ">=", 1.0),
        compare(ID, "its median, which says how much the certificate gives away", float(np.median(beyond)), "<=", 16.0),
    ]


def main() -> int:
    """Print what an attack with the given number of tries finds; 1 where a class changes inside a radius."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    failures = 0
    for decay in (0.1, 2.0):
        model, x = trained(options.seed, 25, decay)
        radius = model.certified_radius(x)
        attack = attacked(model, x, options.tries, options.seed)
        beyond = ratios(model, x[:100], FACTORS)
        print(f"weight decay {decay:g}: median radius {np.median(radius):.3g}, scale of the inputs {model.scale_:.3g}")
        print(f"  {attack.changed} of {attack.tries} points at {attack.share:.4f} of the radius have another class")
        least, median = beyond.min(), float(np.median(beyond))
        print(
            f"  nearest point of another class found: {least:.3g} radii at least, {median:.3g} in the median",
            flush=True,
        )
        failures += attack.changed
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
