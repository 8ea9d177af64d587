"""What GREEDY section V says of its experiments: parameter counts, the constant that a ReLU model needs, smoothness."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import datasets, sequential
from ..networks import implicit_model
from ..sequential import BlockTriangularModel, counts
from .block_triangular import triangle
from .sequential_tables import rmse
from .verdict import PRINTED, Verdict, compare, largest

__all__ = ["capacity", "constant", "smoothness"]

INTERPOLATION, IMAGES = (1, 25, 25, 25, 25, 1), (784, 64, 32, 16, 10)
PRINTED_RMSE = 0.29  # Table I


# ------------------------------------------------------------------------------------------------
# capacity: a formula, and entries counted in arrays


def capacity(seed: int, size: float) -> list[Verdict]:
    """The capacities of section V, from the arrays of the models themselves."""
    claim, rng = "GREEDY-SecV-capacity", np.random.default_rng(seed)
    small, large = sequential.partition(30, 10), sequential.partition(32, 16)
    return [
        compare(claim, "feed-forward 1-25-25-25-25-1: weights", _weights(INTERPOLATION)[0], "==", 1900, form=PRINTED),
        compare(claim, "feed-forward 1-25-25-25-25-1: weights", _weights(INTERPOLATION)[0], "==", 1925),
        compare(claim, "...and with biases", sum(_weights(INTERPOLATION)), "==", 2026),
        compare(claim, "...by formula", counts.layered(INTERPOLATION, biases=True), "==", 2026),
        compare(claim, "feed-forward 784-64-32-16-10: weights", _weights(IMAGES)[0], "==", 52_896),
        compare(claim, "implicit, n = 30, p = q = 1", _entries(implicit_model(rng, 30, 1, 1)), "==", 960),
        compare(claim, "implicit, n = 32, p = 784, q = 10", _entries(implicit_model(rng, 32, 784, 10)), "==", 26_432),
        compare(claim, "ten blocks of 3, p = q = 1: share of 960", _strict(rng, small, 1, 1) / 960, "<=", 0.5),
        compare(claim, "...by formula", counts.strict(small, 1, 1).total, "==", _strict(rng, small, 1, 1)),
        compare(claim, "sixteen blocks of 2, p = 784, q = 10", _strict(rng, large, 784, 10), "==", 25_888),
        compare(claim, "...by formula", counts.strict(large, 784, 10).total, "==", 25_888),
    ]


def _weights(widths: tuple[int, ...]) -> tuple[int, int]:
    """Weights and biases of scikit-learn's network, counted in its arrays after a step on random numbers."""
    from sklearn.neural_network import MLPRegressor

    rng = np.random.default_rng(0)
    model = MLPRegressor(hidden_layer_sizes=widths[1:-1], random_state=0)
    model.partial_fit(rng.normal(size=(2, widths[0])), rng.normal(size=(2, widths[-1])).squeeze())
    return sum(w.size for w in model.coefs_), sum(b.size for b in model.intercepts_)


def _entries(model: Any) -> int:
    return sum(np.size(p) for p in model.params.values())


def _strict(rng: np.random.Generator, sizes: tuple[int, ...], p: int, q: int) -> int:
    model = random_model(rng, sizes, p, q)
    return int(np.count_nonzero(model.A)) + model.B.size + model.C.size


def random_model(rng: np.random.Generator, sizes: tuple[int, ...], p: int, q: int) -> BlockTriangularModel:
    """A block-triangular ReLU model with all its entries normal."""
    n = sum(sizes)
    return BlockTriangularModel(triangle(rng, sizes), rng.normal(size=(n, p)), rng.normal(size=(q, n)), sizes)


# ------------------------------------------------------------------------------------------------
# the constant: a ReLU model is positively homogeneous, y(t u) = t y(u) for t > 0, for all A, B, C. With one input,
# y(u) is y(1) u for u > 0 and y(-1) |u| for u < 0: two numbers, and least squares finds the best of all models.


def best_halves(u: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The best predictions of any ReLU model without a constant input, on inputs and targets (batch, 1)."""
    halves = np.concatenate([np.maximum(u, 0), np.maximum(-u, 0)], axis=1)
    coefficients, *_ = np.linalg.lstsq(halves, y, rcond=None)
    return np.asarray(halves @ coefficients)


def least_rmse(u: np.ndarray, y: np.ndarray) -> float:
    """The least RMSE of any ReLU model without a constant input, on inputs and targets (batch, 1)."""
    return rmse(best_halves(u, y), y)


def constant(seed: int, size: float) -> list[Verdict]:
    """No ReLU model interpolates f_1 without a constant among its inputs; with one it does."""
    claim, task = "GREEDY-SecV-bias", datasets.interpolation("smooth", seed)
    bound, trials = least_rmse(task.x_test, task.y_test), max(3, int(100 * size))
    plain, augmented = (_fitted(task, seed, change) for change in (np.asarray, sequential.augment))
    least = compare(claim, "p = 1: least test RMSE on f_1 of any model", bound, "<=", PRINTED_RMSE, form=PRINTED)
    return [
        least,
        compare(claim, "p = 1: least test RMSE on f_1 of any model", bound, ">=", 1.594),
        compare(claim, "|y(u) - (y(1) u_+ + y(-1) u_-)|, relative", largest(_halves(seed, trials)), "<=", 1e-10),
        compare(claim, "test RMSE, trained without the constant", _rmse(plain, task, np.asarray), ">=", bound),
        compare(claim, "test RMSE, trained with it", _rmse(augmented, task, sequential.augment), "<=", PRINTED_RMSE),
    ]


def _fitted(task: datasets.Interpolation, seed: int, change: Any) -> BlockTriangularModel:
    return sequential.fit(change(task.x_train), task.y_train, 30, 10, random_state=seed)


def _rmse(model: BlockTriangularModel, task: datasets.Interpolation, change: Any) -> float:
    return rmse(model.predict(change(task.x_test)), task.y_test)


def _halves(seed: int, trials: int) -> Iterator[tuple[np.ndarray, str]]:
    """How far random models, with blocks and without structure, are from two half lines through 0."""
    u = np.linspace(-5, 5, 21)[:, None]
    for trial in range(trials):
        rng = np.random.default_rng([seed, trial])
        for kind, model in (("blocks", random_model(rng, (3, 3, 3), 1, 1)), ("dense", implicit_model(rng, 9, 1, 1))):
            right, left = (_predict(model, np.array([[side]])) for side in (1.0, -1.0))
            lines = np.maximum(u, 0) * right + np.maximum(-u, 0) * left
            yield np.abs(_predict(model, u) - lines) / np.abs(lines).max(), f"{kind}, seed {seed}, trial {trial}"


def _predict(model: Any, u: np.ndarray) -> np.ndarray:
    exact = {} if isinstance(model, BlockTriangularModel) else {"tol": 1e-12}
    return np.asarray(model.predict(u, **exact))


# ------------------------------------------------------------------------------------------------
# smoothness of f_1


def smoothness(seed: int, size: float) -> list[Verdict]:
    """f_1, called smooth, has a kink at 0 and none elsewhere."""
    claim, h = "GREEDY-Eq14", 1e-6
    u = np.random.default_rng(seed).uniform(-5, 5, max(10, int(1000 * size)))
    elsewhere = np.abs(_slope(u, h) - _slope(u, -h))[np.abs(u) > h]
    left, right = _slope(np.zeros(1), -h)[0], _slope(np.zeros(1), h)[0]
    return [
        compare(claim, "jump of the slope at 0", abs(right - left), "<=", 1e-3, form=PRINTED),
        compare(claim, "slope left of 0", left, "==", 2.5, slack=1e-4),
        compare(claim, "slope right of 0", right, "==", -2.5, slack=1e-4),
        compare(claim, "jump of the slope elsewhere", largest([(elsewhere, f"seed {seed}")]), "<=", 1e-3),
    ]


def _slope(u: np.ndarray, h: float) -> np.ndarray:
    return (datasets.damped_cosine(u + h) - datasets.damped_cosine(u)) / h
