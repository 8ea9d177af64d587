"""Certificate G1, entry by entry; and exactly when a relu model is well-posed: what GREEDY Theorem 1 leaves open."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from .. import activations, well_posed
from . import adversary, oracles, problems
from .verdict import DROPPED, Verdict, columns, compare, largest
from .well_posedness import RADII, matrix

Fractions = list[list[Fraction]]


def certificate_g1(seed: int, size: float) -> list[Verdict]:
    """G1: |x - x*| <= (I - |A|)^-1 |x - phi(A x + b)|, never violated, attained; the same for the adjoint."""
    claim = "NEW-cert-G1"
    bounded, adjoint, loose = columns(_bounds(seed, problems.count(144, size)))
    attained, attained_adjoint = columns(_attained(seed, problems.count(60, size)))
    two, one = np.array([[2.0]]), np.ones((1, 1))
    return [
        compare(claim, "|x - x*| over (I - |A|)^-1 |x - phi(A x + b)|, any x", largest(bounded), "<=", 1, slack=1e-9),
        compare(claim, "...of the adjoint equation", largest(adjoint), "<=", 1, slack=1e-9),
        compare(
            claim,
            "n = 2, the larger of both: ascent from the worst of a sample",
            adversary.climb(_g1, 11, seed, size),
            "<=",
            1,
            slack=1e-9,
        ),
        compare(
            claim,
            "the package's bound less the formula in NumPy, relative: what rounding costs",
            largest(loose),
            "<=",
            1e-9,
        ),
        compare(claim, "attained for A >= 0 and phi = id: bound over error less 1", largest(attained), "<=", 1e-11),
        compare(claim, "...of the adjoint equation, J = I", largest(attained_adjoint), "<=", 1e-11),
        compare(
            claim,
            "A = [[2]], relu, b = 0, x = 1: |x - x*| against the formula, perron = 2",
            1.0,
            "<=",
            float(np.linalg.solve(1 - two, np.abs(one - activations.relu(2 * one)))[0, 0]),
            form=DROPPED,
        ),
    ]


def _bounds(seed: int, trials: int) -> Iterator[tuple[tuple[np.ndarray, ...], str]]:
    for k in range(trials):
        rng, activation = np.random.default_rng(seed + k), problems.ACTIVATIONS[k % len(problems.ACTIVATIONS)]
        n, rho = 1 + k % 6, RADII[(k // len(problems.ACTIVATIONS)) % len(RADII)]
        A, pre = matrix(rng, n, rho), problems.preactivations(rng, repr(activation), (3, n), True)
        exact = oracles.sigma(repr(activation), pre)
        b, away = pre - exact @ A.T, 10 ** rng.uniform(-6, 1, (3, 1)) * rng.normal(size=(3, n))
        bound = well_posed.bound(A, exact + away, b, activation)
        residual = np.abs(exact + away - oracles.sigma(repr(activation), (exact + away) @ A.T + b))
        formula = np.linalg.solve(np.eye(n) - np.abs(A), residual.T).T
        jac, g = rng.uniform(size=(2, 3, n))
        q = np.stack([j * np.linalg.solve(np.eye(n) - A.T * j, v) for j, v in zip(jac, g, strict=True)])
        adjoint = well_posed.adjoint_bound(A, q + away, jac, g)
        room = 1e-13 / (1 - rho)
        rows = np.abs(away) / (bound + room), np.abs(away) / (adjoint + room), (bound - formula) / (1 + formula)
        yield rows, f"{activation!r}, n = {n}, perron {rho}, seed {seed + k}"


def _g1(v: np.ndarray) -> float:
    """n = 2, relu and its adjoint: the largest entry of error over bound, from eleven numbers."""
    A = v[:4].reshape(2, 2)
    A = A * (0.9 * np.tanh(abs(v[4])) / max(abs(np.linalg.eigvals(np.abs(A)))))
    pre, jac, g, away = v[None, 5:7], (1 + np.tanh(v[None, 5:7])) / 2, v[None, 7:9], v[None, 9:11]
    x = np.maximum(pre, 0)
    q = jac * np.linalg.solve(np.eye(2) - A.T * jac, g[0])[None]
    bounds = (
        well_posed.bound(A, x + away, pre - x @ A.T, activations.relu),
        well_posed.adjoint_bound(A, q + away, jac, g),
    )
    return float(max((np.abs(away) / (bound + 1e-12)).max() for bound in bounds))


def _attained(seed: int, trials: int) -> Iterator[tuple[tuple[np.ndarray, np.ndarray], str]]:
    for k in range(trials):
        rng, n = np.random.default_rng(seed + k), 1 + k % 6
        A, x, ones = np.abs(matrix(rng, n, 0.9)), rng.normal(size=(1, n)), np.ones((1, n))
        away, back = (np.linalg.solve(np.eye(n) - M, rng.uniform(size=n))[None] for M in (A, A.T))
        bound = well_posed.bound(A, x + away, x - x @ A.T, activations.leaky_relu(1.0))
        adjoint = well_posed.adjoint_bound(A, x + back, ones, x - x @ A)
        yield (np.abs(bound / away - 1), np.abs(adjoint / back - 1)), f"n = {n}, seed {seed + k}"


# ------------------------------------------------------------------------------------------------
# relu


def relu_models(seed: int, size: float) -> list[Verdict]:
    """One solution for every b if and only if I - A is a P-matrix: minors as fractions, all 2^n active sets."""
    claim = "NEW-relu-wellposed"
    mismatches, well = columns(_minors(seed, problems.count(1000, size)))
    one, two = columns(_counted(seed, problems.count(300, size)))
    perron, monotone = columns(_sufficient(seed, problems.count(300, size)))
    share = float(np.mean([value for value, _ in well]))
    answer = float(well_posed.relu_well_posed(np.array([[-2.0]])))
    at_one, at_two = (_solutions(np.array([[1 - a]]), b) for a, b in ((1.0, 1.0), (2.0, -1.0)))
    return [
        compare(claim, "against the signs of all minors as fractions, n = 3: mismatches", largest(mismatches), "==", 0),
        compare(claim, "...both answers occur: distance of the share of yes from 1/2", abs(share - 0.5), "<=", 0.45),
        compare(
            claim, "P-matrix, n <= 4: |number of solutions - 1| by all active sets, five b each", largest(one), "==", 0
        ),
        compare(claim, "no P-matrix: residual of two different solutions for one b", largest(two), "<=", 1e-9),
        compare(claim, "perron(A) = .99: not well-posed", largest(perron), "==", 0),
        compare(claim, "I - A >= I/10, norm up to 30: not well-posed", largest(monotone), "==", 0),
        compare(claim, "not necessary, A = [[-2]] with perron 2: well-posed", answer, "==", 1),
        compare(claim, "A = [[1]], just outside, b = 1: solutions", at_one, ">=", 1, form=DROPPED),
        compare(claim, "A = [[2]], b = -1: solutions", at_two, "<=", 1, form=DROPPED),
    ]


def _minors(seed: int, trials: int) -> Iterator[tuple[tuple[float, float], str]]:
    for k in range(trials):
        A = np.random.default_rng(seed + k).integers(-3, 4, size=(3, 3)) / 2
        G = [[Fraction(x) for x in row] for row in np.eye(3) - A]
        truth = all(_determinant([[G[i][j] for j in S] for i in S]) > 0 for S in _subsets(3))
        yield (float(well_posed.relu_well_posed(A) != truth), float(truth)), f"seed {seed + k}"


def _subsets(n: int) -> list[tuple[int, ...]]:
    return [S for r in range(1, n + 1) for S in itertools.combinations(range(n), r)]


def _determinant(rows: Fractions) -> Fraction:
    if not rows:
        return Fraction(1)
    tails = [row[1:] for row in rows]
    return sum(
        ((-1) ** i * row[0] * _determinant(tails[:i] + tails[i + 1 :]) for i, row in enumerate(rows)), Fraction(0)
    )


def _counted(seed: int, trials: int) -> Iterator[tuple[tuple[float, float], str]]:
    for k in range(trials):
        rng, n = np.random.default_rng(seed + k), 1 + k % 4
        A = 1.5 * rng.normal(size=(n, n)) / n**0.5
        G, where = np.eye(n) - A, f"n = {n}, seed {seed + k}"
        if well_posed.relu_well_posed(A):
            yield (max(abs(_solutions(G, b) - 1.0) for b in rng.normal(size=(5, n))), 0.0), where
        else:
            yield (0.0, _two(A, G)), where


def _solutions(G: np.ndarray, b: np.ndarray | float) -> int:
    """How many z solve ``z = relu((I - G) z + b)``; a singular block of G[S, S] has none for almost every b."""
    try:
        return len(list(oracles.relu_equilibria(np.eye(len(G)) - G, np.atleast_1d(b))))
    except np.linalg.LinAlgError:
        return 0


def _two(A: np.ndarray, G: np.ndarray) -> float:
    """Residual of two solutions for one b; infinite if they are none or not different.

    A minor <= 0 gives G[S, S] a real eigenvalue <= 0: with its vector z, 0 outside S, ``z_i (G z)_i <= 0``, so that z+
    and z- both solve the equation with ``b = G z+ - (G z)+ = G z- - (G z)-``.
    """
    signs = ((S, np.linalg.det(G[np.ix_(S, S)])) for S in _subsets(len(G)))
    S = next((list(S) for S, minor in signs if minor <= 1e-12), None)
    if S is None:
        return np.inf
    values, vectors = np.linalg.eig(G[np.ix_(S, S)])
    z = np.zeros(len(G))
    z[S] = vectors[:, np.argmin(np.where(np.abs(values.imag) < 1e-12, values.real, np.inf))].real
    up, down = np.maximum(z, 0), np.maximum(-z, 0)
    b = G @ up - np.maximum(G @ z, 0)
    residual = max(np.abs(np.maximum(A @ x + b, 0) - x).max() for x in (up, down))
    return float(residual) if np.abs(z).max() > 0.1 else np.inf


def _sufficient(seed: int, trials: int) -> Iterator[tuple[tuple[float, float], str]]:
    for k in range(trials):
        rng, n = np.random.default_rng(seed + k), 1 + k % 7
        G = problems.gap(rng, n, 0.1, 30.0)
        answers = [well_posed.relu_well_posed(A) for A in (matrix(rng, n, 0.99), np.eye(n) - G)]
        yield (float(not answers[0]), float(not answers[1])), f"n = {n}, seed {seed + k}"


__all__ = ["certificate_g1", "relu_models"]
