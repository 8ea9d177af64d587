"""The worst case of an inequality, searched for: a random sample, then local ascent from the worst of it.

A case is a vector of numbers, normal at first, that `problem` and its like turn into a problem whose spectrum is under
control; what is climbed is measured over bound, so that 1 is equality.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .. import activations
from ..operators import MonotoneDense
from . import problems
from .verdict import Extreme

__all__ = ["PROBLEM", "climb", "contraction", "gap", "positive", "problem"]

SAMPLE, EVALUATIONS = 200, 600
PROBLEM = 7  # numbers that make a `problem`
STEP, GROWTH = 0.3, 1.5  # of the normal steps: the first length, the factor after a success; its fourth root back


def climb(ratio: Callable[[np.ndarray], float], dimension: int, seed: int, size: float) -> Extreme:
    """The largest ratio that was met, and where: in the sample and after the ascent, with the seed of both."""
    rng = np.random.default_rng([seed, 41])
    sample = [(ratio(v), v) for v in rng.normal(size=(problems.count(SAMPLE, size), dimension))]
    first, v = max(sample, key=lambda pair: _order(pair[0]))
    best, step, evaluations = first, STEP, problems.count(EVALUATIONS, size)
    for _ in range(evaluations):
        # a success lengthens the steps, four failures undo that: about one in five succeeds
        moved = v + step * rng.normal(size=dimension)
        found = ratio(moved)
        better = _order(found) > _order(best)
        best, v, step = (found, moved, step * GROWTH) if better else (best, v, step * GROWTH**-0.25)
    return Extreme(best, f"at random {first:.6f}, after ascent {best:.9f}, seed {seed}", len(sample) + evaluations)


def _order(value: float) -> float:
    """NaN is worse than anything."""
    return math.inf if math.isnan(value) else value


def positive(x: float) -> float:
    """A number from 0.05 to 5: smooth and increasing, 0.5 at 0."""
    return float(0.5 * 10 ** np.tanh(x))


def gap(v: np.ndarray, m: float) -> np.ndarray:
    """G from its n^2 entries, shifted along I so that the least eigenvalue of its symmetric part is m."""
    n = math.isqrt(len(v))
    M = v.reshape(n, n)
    return np.asarray(M + (m - np.linalg.eigvalsh((M + M.T) / 2)[0]) * np.eye(n))


def problem(v: np.ndarray) -> problems.Problem:
    """n = 2, relu, one sample: m, G and the pre-activation of the solution from seven numbers."""
    m, pre = positive(v[0]), 1 + v[5:7][None]
    G, z = gap(v[1:5], m), np.maximum(pre, 0)
    m *= 1 - 1e-12
    return problems.Problem(
        0,
        activations.relu,
        np.eye(2) - G,
        m,
        MonotoneDense.from_weight(np.eye(2) - G, m),
        pre - z @ (np.eye(2) - G).T,
        pre,
        z,
    )


def contraction(v: np.ndarray, gamma: float) -> np.ndarray:
    """K from its n^2 entries, scaled to ``||K|| = gamma``."""
    K = v.reshape(math.isqrt(len(v)), -1)
    return np.asarray(K * (gamma / np.linalg.norm(K, 2)))
