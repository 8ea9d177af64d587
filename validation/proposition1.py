"""MON Proposition 1: which W are monotone, its factors, and the weight-normalised form of appendix D.2."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..operators import MonotoneDense
from ..operators.dense import weight
from . import appendix_b, appendix_c, problems
from .verdict import PRINTED, Verdict, columns, compare, largest


def modulus(W: np.ndarray) -> float:
    """The largest m with ``I - W >= m I``: the smallest eigenvalue of the symmetric part of I - W."""
    return float(np.linalg.eigvalsh(np.eye(len(W)) - (W + W.T) / 2)[0])


def both_halves(seed: int, size: float) -> list[Verdict]:
    """``I - W >= m I`` if and only if W = (1 - m)I - A'A + B - B'."""
    claim = "MON-Prop1"
    formula, below, symmetric = columns(_from_factors(seed, problems.count(200, size)))
    back, skew = columns(_from_weight(seed, problems.count(200, size)))
    return [
        compare(claim, "operator against (5) entry by entry, m from -2 to 3", largest(formula), "<=", 1e-13),
        compare(claim, "if: m - lambda_min of the symmetric part of I - W", largest(below), "<=", 0, slack=1e-12),
        compare(claim, "(6): symmetric part of I - W minus (mI + A'A)", largest(symmetric), "<=", 1e-13),
        compare(claim, "only if: W - weight(factors of W)", largest(back), "<=", 1e-12),
        compare(claim, "only if, B strictly upper triangular instead of W/2", largest(skew), "<=", 1e-12),
        compare(claim, "A = 0: lambda_min = m, so no larger m can be claimed", _tight(), "==", 0.5, slack=1e-15),
    ]


def _from_factors(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for k in range(trials):
        rng = np.random.default_rng(seed + k)
        n, m = 1 + k % 6, rng.uniform(-2, 3)
        A, B = rng.normal(size=(2, n, n))
        W = weight(A, B, m) if m <= 0 else MonotoneDense(A, B, m).to_dense()
        expected = [[(1 - m) * (i == j) - A[:, i] @ A[:, j] + B[i, j] - B[j, i] for j in range(n)] for i in range(n)]
        symmetric = np.eye(n) - (W + W.T) / 2 - m * np.eye(n) - A.T @ A
        yield (abs(W - expected), m - modulus(W), abs(symmetric)), f"n = {n}, m = {m:.3g}, seed {seed + k}"


def _from_weight(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for k in range(trials):
        rng = np.random.default_rng(seed + k)
        n, m = 1 + k % 6, rng.uniform(0.05, 2)
        W = np.eye(n) - problems.gap(rng, n, m)
        found = MonotoneDense.from_weight(W, m * (1 - 1e-14))
        upper = found.replace(B=np.triu(W - W.T, 1) / 2)
        # B - B' only fixes the skew part: the strict upper triangle of (W - W') does as well as W/2
        skew = np.asarray(upper.to_dense())
        yield (abs(found.to_dense() - W), abs(skew - W)), f"n = {n}, m = {m:.3g}, seed {seed + k}"


def _tight() -> float:
    return modulus(MonotoneDense(np.zeros((2, 2)), np.array([[0.0, 3.0], [0.0, 0.0]]), 0.5).to_dense())


def cholesky(seed: int, size: float) -> list[Verdict]:
    """Section 3.3: a lower triangular A is a factor of A'A, though not its Cholesky factor."""
    claim = "MON-Sec3.3-cholesky"
    A = np.array([[1.0, 0.0], [1.0, 1.0]])
    return [
        compare(
            claim,
            "n = 2, A = [[1, 0], [1, 1]]: distance from A to the Cholesky factor of A'A",
            abs(np.linalg.cholesky(A.T @ A) - A).max(),
            "<=",
            1e-12,
            form=PRINTED,
        ),
        compare(
            claim,
            "lower A with positive diagonal is flip(Cholesky(flip A'A))': distance",
            largest(_flipped(seed, problems.count(100, size))),
            "<=",
            1e-9,
        ),
    ]


def _flipped(seed: int, trials: int) -> Iterator[tuple[np.ndarray, str]]:
    for k in range(trials):
        rng = np.random.default_rng(seed + k)
        n = 1 + k % 6
        A = np.tril(rng.normal(size=(n, n)), -1) + np.diag(rng.uniform(0.5, 2, n))
        factor = np.linalg.cholesky((A.T @ A)[::-1, ::-1])[::-1, ::-1].T
        yield abs(factor - A), f"n = {n}, seed {seed + k}"


def weight_norm(seed: int, size: float) -> list[Verdict]:
    """Appendix D.2: g A'A/||A||^2 and h B/||B|| keep ``I - W >= m I`` for g >= 0 only."""
    claim = "MON-AppD.2-weightnorm"
    formula, below = columns(_normalised(seed, problems.count(200, size)))
    one, zero = np.ones((1, 1)), np.zeros((1, 1))
    return [
        compare(claim, "operator against the formula", largest(formula), "<=", 1e-13),
        compare(claim, "m + min(g, 0) - lambda_min(I - W)", largest(below), "<=", 0, slack=1e-12),
        compare(claim, "n = 1, m = 1, g = -3: I - W", modulus(weight(one, zero, 1.0, -3.0)), ">=", 1, form=PRINTED),
        compare(claim, "g = -3 is refused (1 = yes)", _refused(one), "==", 1),
        compare(
            claim,
            "convolutions, with the norms of their kernels: relative error",
            appendix_b.normalised(seed, problems.count(40, size)),
            "<=",
            1e-13,
        ),
        compare(claim, "tiers, kernel by kernel", appendix_c.normalised(seed, problems.count(28, size)), "<=", 1e-13),
    ]


def _normalised(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for k in range(trials):
        rng = np.random.default_rng(seed + k)
        n, m, g, h = 1 + k % 6, rng.uniform(0.05, 2), rng.uniform(-3, 3), rng.normal()
        A, B = rng.normal(size=(2, n, n))
        W = MonotoneDense(A, B, m, g, h).to_dense() if g >= 0 else weight(A, B, m, g, h)
        expected = (1 - m) * np.eye(n) - g * A.T @ A / np.sum(A**2) + h * (B - B.T) / np.sqrt(np.sum(B**2))
        yield (abs(W - expected), m + min(g, 0) - modulus(W)), f"n = {n}, g = {g:.3g}, seed {seed + k}"


def _refused(A: np.ndarray) -> bool:
    try:
        MonotoneDense(A, A, 1.0, -3.0)
    except ValueError as error:
        return "MON-AppD.2-weightnorm" in str(error)
    return False


__all__ = ["both_halves", "cholesky", "weight_norm"]
