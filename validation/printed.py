"""The formulas exactly as the paper prints them, for the counterexamples. None of them is used by the package."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Array = np.ndarray


def _relative_change(new: Array, old: Array) -> float:
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.linalg.norm(new - old) / np.linalg.norm(new))


def algorithm_1(
    W: Array, b: Array, sigma: Callable, alpha: float, tol: float | None = 0.0, max_iter: int = 1000
) -> Array:
    """MON Algorithm 1, with sigma where prox^alpha belongs; tol = None ignores the stopping rule."""
    z, err, k = np.zeros_like(b), 1.0, 0
    while (tol is None or err > tol) and k < max_iter:
        z_next = sigma((1 - alpha) * z + alpha * (W @ z + b))
        err, z, k = _relative_change(z_next, z), z_next, k + 1
    return z


def algorithm_2(
    W: Array, b: Array, sigma: Callable, alpha: float, tol: float | None = 0.0, max_iter: int = 1000
) -> Array:
    """MON Algorithm 2, with sigma where prox^alpha belongs and the stopping rule as printed (0/0 ends the loop)."""
    z, u, err, k = np.zeros_like(b), np.zeros_like(b), 1.0, 0
    V = np.linalg.inv(np.eye(len(b)) + alpha * (np.eye(len(b)) - W))
    while (tol is None or err > tol) and k < max_iter:
        u_half = 2 * z - u
        z_half = V @ (u_half + alpha * b)
        u = 2 * z_half - u_half
        z_next = sigma(u)
        err, z, k = _relative_change(z_next, z), z_next, k + 1
    return z


def equation_9(W: Array, b: Array, prox: Callable, alpha: float, iterations: int = 1000) -> Array:
    """MON eq. 9: the injection enters with a minus sign."""
    z, u = np.zeros_like(b), np.zeros_like(b)
    V = np.linalg.inv(np.eye(len(b)) + alpha * (np.eye(len(b)) - W))
    for _ in range(iterations):
        u_half = 2 * z - u
        z_half = V @ (u_half - alpha * b)
        u = 2 * z_half - u_half
        z = prox(u, alpha)
    return z


def resolvent_24(u: Array, jac: Array, v: Array, alpha: float) -> Array:
    """MON eq. 24, 25: (u + alpha v)/(1 + alpha (1 + D)), 0 where J = 0."""
    D = 1 / np.where(jac > 0, jac, 1) - 1
    return np.where(jac > 0, (u + alpha * v) / (1 + alpha * (1 + D)), 0)


def algorithm_3(W: Array, jac: Array, v: Array, alpha: float, iterations: int = 2000) -> Array:
    """MON Algorithm 3 with the printed denominator."""
    u = np.zeros_like(v)
    for _ in range(iterations):
        u = resolvent_24((1 - alpha) * u + alpha * W.T @ u, jac, v, alpha)
    return u


def algorithm_4(W: Array, jac: Array, v: Array, alpha: float, iterations: int = 2000) -> Array:
    """MON Algorithm 4 with the printed denominator."""
    z, u = np.zeros_like(v), np.zeros_like(v)
    V = np.linalg.inv(np.eye(len(v)) + alpha * (np.eye(len(v)) - W))
    for _ in range(iterations):
        u_half = 2 * z - u
        u = 2 * V.T @ u_half - u_half
        z = resolvent_24(u, jac, v, alpha)
    return z


def conjugate_gradient(M: Array, v: Array, iterations: int) -> Array:
    """The conjugate gradient method, which section 3.5 names for (17); it presumes a symmetric matrix."""
    u, r = np.zeros_like(v), v.copy()
    p = r
    for _ in range(iterations):
        Mp = M @ p
        step = (r @ r) / (p @ Mp)
        u, r_next = u + step * p, r - step * Mp
        p, r = r_next + (r_next @ r_next) / (r @ r) * p, r_next
    return u
