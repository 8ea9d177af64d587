"""Linear systems ``(I - K) w = g`` for a batch, K known by its products only: by LU where small, by GMRES beyond."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..arrays import norm

__all__ = ["inverse_norm", "solve"]

DENSE_UP_TO = 256  # entries of a state
INVERSE_STEPS = 3

Product = Callable[[np.ndarray], np.ndarray]  # (batch, ...) to the same, sample by sample


def solve(K: Product, g: np.ndarray) -> np.ndarray:
    """w with ``w - K w = g`` for every sample; NaN where the system is singular or GMRES does not converge.

    Examples
    --------
    >>> solve(lambda w: w / 2, np.array([[1.0, 3.0]]))
    array([[2., 6.]])
    """
    if math.prod(g.shape[1:]) <= DENSE_UP_TO:
        return _by_lu(K, g)
    return _by_gmres(K, g)


def matrices(K: Product, like: np.ndarray) -> np.ndarray:
    """K of every sample as a matrix, (batch, n, n)."""
    batch, n = like.shape[0], math.prod(like.shape[1:])
    columns = [K(np.broadcast_to(e.reshape(like.shape[1:]), like.shape)).reshape(batch, n) for e in np.eye(n)]
    return np.stack(columns, axis=-1)


def inverse_norm(K: Product, like: np.ndarray) -> float:
    """The largest ``||(I - K)^-1||_2`` of the batch: of small states exactly, of larger ones an estimate from below."""
    n = math.prod(like.shape[1:])
    if n <= DENSE_UP_TO:
        smallest = np.linalg.svd(np.eye(n) - matrices(K, like), compute_uv=False)[:, -1].min()
        return float(1 / smallest) if smallest > 0 else math.inf
    v, largest = np.random.default_rng(0).normal(size=like.shape), 0.0
    for _ in range(INVERSE_STEPS):
        w = solve(K, v)
        if not np.all(np.isfinite(w)):
            return math.inf
        gains = norm(w) / norm(v)
        largest, v = max(largest, float(np.max(gains))), w
    return largest


def _by_lu(K: Product, g: np.ndarray) -> np.ndarray:
    A = np.eye(math.prod(g.shape[1:])) - matrices(K, g)
    try:
        return np.asarray(np.linalg.solve(A, g.reshape(len(g), -1, 1)).reshape(g.shape))
    except np.linalg.LinAlgError:
        return np.full(g.shape, math.nan)


def _by_gmres(K: Product, g: np.ndarray) -> np.ndarray:
    from scipy.sparse.linalg import LinearOperator, gmres

    def product(w: np.ndarray) -> np.ndarray:
        return np.asarray(w - K(w.reshape(g.shape)).ravel())

    A = LinearOperator((g.size, g.size), matvec=product, dtype=np.float64)
    w, failed = gmres(A, g.ravel(), rtol=1e-13, restart=200, maxiter=3)
    off = np.linalg.norm(product(w) - g.ravel()) > 1e-10 * np.linalg.norm(g)
    return np.full(g.shape, math.nan) if failed and off else np.asarray(w.reshape(g.shape))
