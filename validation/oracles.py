"""Second sources, written with NumPy and SciPy alone: nothing here calls the code that is checked."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import scipy.optimize
import scipy.special


def _f_tanh(z: np.ndarray) -> np.ndarray:
    return (scipy.special.xlogy(1 + z, 1 + z) + scipy.special.xlogy(1 - z, 1 - z) - z * z) / 2


def _f_sigmoid(z: np.ndarray) -> np.ndarray:
    return scipy.special.xlogy(z, z) + scipy.special.xlogy(1 - z, 1 - z) - z * z / 2


def _f_elu(z: np.ndarray) -> np.ndarray:
    return np.where(
        z >= 0, 0.0, scipy.special.xlogy(np.minimum(z, 0) + 0.7, 1 + np.minimum(z, 0) / 0.7) - z - z * z / 2
    )


# name: (sigma, its derivative, f, domain of f)
TABLE: dict[str, tuple[Callable, Callable, Callable, tuple[float, float]]] = {
    "relu": (lambda x: np.maximum(x, 0), lambda x: 1.0 * (x > 0), np.zeros_like, (0.0, np.inf)),
    "leaky_relu(0.1)": (
        lambda x: np.where(x > 0, x, 0.1 * x),
        lambda x: np.where(x > 0, 1.0, 0.1),
        lambda z: 4.5 * np.minimum(z, 0) ** 2,
        (-np.inf, np.inf),
    ),
    "tanh": (np.tanh, lambda x: 1 / np.cosh(x) ** 2, _f_tanh, (-1.0, 1.0)),
    "sigmoid": (
        scipy.special.expit,
        lambda x: scipy.special.expit(x) * scipy.special.expit(-x),
        _f_sigmoid,
        (0.0, 1.0),
    ),
    "softplus": (
        lambda x: np.logaddexp(0, x),
        scipy.special.expit,
        lambda z: scipy.special.spence(1 - np.exp(-z)),
        (0.0, np.inf),
    ),
    "elu(0.7)": (
        lambda x: np.where(x > 0, x, 0.7 * np.expm1(np.minimum(x, 0))),
        lambda x: np.where(x > 0, 1.0, 0.7 * np.exp(np.minimum(x, 0))),
        _f_elu,
        (-0.7, np.inf),
    ),
    "arctan": (
        np.arctan,
        lambda x: 1 / (1 + x * x),
        lambda z: -np.log(np.cos(z)) - z * z / 2,
        (-np.pi / 2 + 1e-12, np.pi / 2 - 1e-12),
    ),
    "hardtanh": (lambda x: np.clip(x, -1, 1), lambda x: 1.0 * (abs(x) < 1), np.zeros_like, (-1.0, 1.0)),
    "soft_threshold(0.5)": (
        lambda x: np.sign(x) * np.maximum(abs(x) - 0.5, 0),
        lambda x: 1.0 * (abs(x) > 0.5),
        lambda z: 0.5 * abs(z),
        (-np.inf, np.inf),
    ),
}

KINKS = {"relu": (0.0,), "leaky_relu(0.1)": (0.0,), "elu(0.7)": (0.0,), "hardtanh": (-1.0, 1.0)} | {
    "soft_threshold(0.5)": (-0.5, 0.5)
}


def sigma(name: str, x: np.ndarray) -> np.ndarray:
    """The activation called `name`."""
    return TABLE[name][0](x)


def slope(name: str, x: np.ndarray) -> np.ndarray:
    """Its derivative away from kinks."""
    return TABLE[name][1](x)


def prox_objective(name: str, z: float, x: float, alpha: float) -> float:
    """(x - z)^2/2 + alpha f(z), MON eq. 4."""
    return float((x - z) ** 2 / 2 + alpha * TABLE[name][2](np.float64(z)))


def prox(name: str, x: float, alpha: float) -> float:
    """The argmin of `prox_objective` by bounded minimisation: no derivative, no formula for the prox."""
    low, high = TABLE[name][3]
    reach = abs(x) + 4 * alpha + 4
    bounds = max(low, -reach), min(high, reach)
    found = scipy.optimize.minimize_scalar(
        lambda z: prox_objective(name, z, x, alpha), bounds=bounds, method="bounded", options={"xatol": 1e-13}
    )
    ends = [z for z in (low, high) if np.isfinite(z)]
    return float(min([found.x, 0.0 if low <= 0 else found.x, *ends], key=lambda z: prox_objective(name, z, x, alpha)))


def equilibrium(name: str, W: np.ndarray, b: np.ndarray, pre: np.ndarray) -> np.ndarray:
    """Pre-activation p with ``p = W sigma(p) + b`` by Newton's method with dense solves, from a nearby `pre`."""
    identity = np.eye(len(b))
    for _ in range(30):
        step = np.linalg.solve(identity - W * slope(name, pre), pre - W @ sigma(name, pre) - b)
        pre = pre - step
        if np.linalg.norm(step) < 1e-15 * (1 + np.linalg.norm(pre)):
            break
    return pre


def relu_equilibria(W: np.ndarray, b: np.ndarray) -> Iterator[np.ndarray]:
    """Every solution of ``z = relu(W z + b)``, by trying all 2^n active sets."""
    for active in itertools.product([False, True], repeat=len(b)):
        on = np.array(active)
        z = np.zeros(len(b))
        z[on] = np.linalg.solve(np.eye(on.sum()) - W[np.ix_(on, on)], b[on])
        if np.all(z[on] > 0) and np.all((W @ z + b)[~on] <= 0):
            yield z


def relu_symmetric(W: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``z = relu(W z + b)`` for symmetric W: the minimiser of z'(I - W)z/2 - b'z over z >= 0, by SciPy's nnls."""
    R = np.linalg.cholesky(np.eye(len(b)) - W).T
    return scipy.optimize.nnls(R, np.linalg.solve(R.T, b))[0]


def adjoint(W: np.ndarray, jac: np.ndarray, v: np.ndarray) -> np.ndarray:
    """``u* = (I - JW)^-T v`` by a dense solve."""
    return np.linalg.solve((np.eye(len(v)) - jac[:, None] * W).T, v)


def central_difference(f: Callable[[np.ndarray], float], x: np.ndarray, h: float = 2e-5) -> np.ndarray:
    """Gradient of a scalar function by central differences of fourth order, entry by entry."""
    gradient = np.empty(x.size)
    for i in range(x.size):
        e = np.zeros(x.size)
        e[i] = h
        e = e.reshape(x.shape)
        gradient[i] = (8 * (f(x + e) - f(x - e)) - (f(x + 2 * e) - f(x - 2 * e))) / (12 * h)
    return gradient.reshape(x.shape)
