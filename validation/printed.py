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


# ------------------------------------------------------------------------------------------------
# Appendices B and C


def fourier_basis(s: int) -> Array:
    """MON appendix B: (F_s)_ij = omega^((i - 1)(j - 1))/s."""
    return np.exp(2j * np.pi * (np.outer(np.arange(s), np.arange(s)) % s) / s) / s


def equation_28(F: Array, DA: Array, DB: Array, m: float, alpha: float) -> Array:
    """MON eq. 28 and (B5), in the convention D = F A F*: no alpha at D_B."""
    inner = (1 + alpha * m) * np.eye(len(DA)) + alpha * DA.conj().T @ DA - DB + DB.conj().T
    return F.conj().T @ inner @ F


def equation_c8(A11: Array, A21: Array, B11: Array, m: float, alpha: float) -> Array:
    """MON (C8): B11 - B11' with the sign that it has in W, not in I - W."""
    return (1 + alpha * m) * np.eye(len(A11)) + alpha * (A11.T @ A11 + A21.T @ A21 + B11 - B11.T)


def proposition_c1(F1: Array, F2: Array, A: Array, B: Array, SJ: Array, n2: int, factor: float) -> Array:
    """MON (C9), (C10) with the factor s^2 r^2: K acts on each of the n2 output channels alone.

    K is s^2 x s^2 as printed while D_B D_A^-1 D_B* is n2 s^2 x n2 s^2: its diagonal block is taken for each channel.
    """
    DA, DB = F1 @ A @ F1.conj().T, F2 @ B @ F1.conj().T
    X, pixels = np.linalg.inv(DA), len(SJ)
    gram = (DB @ X @ DB.conj().T).reshape(n2, pixels, n2, pixels)
    K = np.zeros((n2, pixels, n2, pixels), complex)
    for c in range(n2):
        core = factor * np.eye(SJ.shape[1]) + SJ.T @ gram[c, :, c] @ SJ
        K[c, :, c] = SJ @ np.linalg.inv(core) @ SJ.T
    return F1.conj().T @ (X - X @ DB.conj().T @ K.reshape(n2 * pixels, -1) @ DB @ X) @ F1


def equation_c17(r: int, s: int) -> Array:
    """MON (C17): ones on the diagonal where i mod r = 1."""
    return np.diag([1.0 * (i % r == 1) for i in range(1, s + 1)])


def equation_c24(S: Array, J: Array) -> Array:
    """MON (C24), last line, without its factor: S J J' S'."""
    return S @ J @ J.T @ S.T


# ------------------------------------------------------------------------------------------------
# FPN and JFB: J = I - dT/du as in (9), not transposed; low, high the extreme eigenvalues of (M'M)^-1


def equation_16(M: Array, J: Array, gradient: Array) -> Array:
    """FPN eq. 16, JFB eq. 19: p = (M diag(I, J) M^+) dl/dTheta, J in the lower block."""
    c = M.shape[1] - len(J)
    core = np.eye(M.shape[1])
    core[c:, c:] = J
    return M @ core @ np.linalg.pinv(M) @ gradient


def equation_43(M: Array, J: Array, v: Array) -> Array:
    """FPN eqs. 41 to 43: dl/dTheta = M diag(I, J)^-1 v with the J of (9)."""
    c = M.shape[1] - len(J)
    return M @ np.concatenate([v[:c], np.linalg.solve(J, v[c:])])


def equation_56(low: float, high: float, gamma: float, w: Array) -> float:
    """FPN eqs. 56, 62b: the bound -2 (lambda_- - gamma lambda_+) ||w||^2 on <dl/dTheta, p>."""
    return float(-2 * (low - gamma * high) * (w @ w))


def equation_61(low: float, high: float, gamma: float, w: Array, gradient: Array) -> float:
    """FPN eq. 61: how far p may move."""
    return float((low - gamma * high) * (w @ w) / np.linalg.norm(gradient))


def equation_64(low: float, high: float, gamma: float, w: Array) -> float:
    """FPN eq. 64: the bound -(lambda_- - gamma lambda_+) ||w||^2 on <p(u), dl/dTheta>."""
    return equation_56(low, high, gamma, w) / 2
