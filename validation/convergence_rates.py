"""Contraction factors of forward-backward and Peaceman-Rachford: exact, over the class, attained; the best step."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from .. import activations, mon
from ..operators import MonotoneDense
from ..splitting import forward_backward, peaceman_rachford, rates
from . import adversary, problems
from .verdict import DROPPED, Verdict, columns, compare, largest

GENERATORS = {"forward-backward": forward_backward, "peaceman-rachford": peaceman_rachford}


def measure(p: problems.Problem, method: str, alpha: float, start: np.ndarray, steps: int = 12) -> np.ndarray:
    """The largest factor by which a step brings u (of forward-backward: z) nearer to its limit, a sample each."""
    inclusion = mon.forward_inclusion(p.W, p.b, p.activation)
    target = p.z if method == "forward-backward" else p.auxiliary(alpha)
    distance, worst = np.linalg.norm(start - target, axis=1), np.zeros(len(p.z))
    for state, _ in zip(GENERATORS[method](inclusion, alpha, start), range(steps), strict=False):
        moved = np.linalg.norm((state.z if method == "forward-backward" else state.u) - target, axis=1)
        worst = np.maximum(worst, np.where(distance > 1e-4, moved / np.maximum(distance, 1e-300), 0))
        distance = moved
    return worst


def predict(m: float, L: float, method: str, alpha: float) -> float:
    """The class factor, written out once more: for G = [[m, -s], [s, m]] with m^2 + s^2 = L^2 it is exact."""
    eigenvalue = complex(m, math.sqrt(max(L * L - m * m, 0.0)))
    factor = abs(1 - alpha * eigenvalue)
    return factor if method == "forward-backward" else factor / abs(1 + alpha * eigenvalue)


def attained(method: str, m: float, s: float, alpha: float) -> tuple[float, float]:
    """Measured factor of one step on the 2 x 2 example with interior equilibrium, and the package's class bound."""
    G = problems.rotation(m, s)
    W, b, z = problems.interior(G, m, 9.0)
    p = problems.Problem(0, activations.relu, np.eye(2) - G, m, W, b, z, z)
    measured = measure(p, method, alpha, z + np.array([[0.6, -0.3]]), steps=1)[0]
    bound = rates.forward_backward_class if method == "forward-backward" else rates.peaceman_rachford_class
    return float(measured), bound(m, math.hypot(m, s), alpha)


def _one_step(method: str, v: np.ndarray) -> float:
    p, centre = adversary.problem(v), adversary.positive(v[-3])
    L = p.lipschitz
    alpha, bound = {
        "forward-backward": (centre * p.m / L**2, rates.forward_backward_class),
        "peaceman-rachford": (2 * centre / L, rates.peaceman_rachford_class),
    }[method]
    target = p.z if method == "forward-backward" else p.auxiliary(alpha)
    return float(measure(p, method, alpha, target + v[None, -2:], steps=1)[0]) / bound(p.m, L, alpha)


def _attained(method: str) -> Iterator[tuple[float, str]]:
    for m, s in ((0.1, 1.0), (0.5, 2.0), (1.0, 0.5), (2.0, 2.0)):
        for fraction in (0.3, 1.0, 1.7):
            alpha = fraction * m / (m * m + s * s) if method == "forward-backward" else fraction / math.hypot(m, s)
            measured, bound = attained(method, m, s, alpha)
            yield abs(measured - bound), f"m = {m}, s = {s}, alpha = {alpha:.3g}, not random"


def _factors(method: str, seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for p in problems.ensemble(seed, trials):
        rng = np.random.default_rng([p.seed, 11])
        m, L = p.m, p.lipschitz
        scale = m / L**2 if method == "forward-backward" else 1 / L
        alpha = scale * 10 ** rng.uniform(-0.7, 0.25)
        exact, bound = {
            "forward-backward": (rates.forward_backward, rates.forward_backward_class),
            "peaceman-rachford": (rates.peaceman_rachford, rates.peaceman_rachford_class),
        }[method]
        start = p.z + 10 * rng.normal(size=p.z.shape)
        factor = exact(p.G, alpha)
        if method == "forward-backward":
            factor /= 1 + alpha * p.activation.strong
        measured = measure(p, method, alpha, start)
        ratio = (exact(p.G, alpha) + 1e-15) / (bound(m, L, alpha) + 1e-15)
        again = abs(bound(m, L, alpha) - predict(m, L, method, alpha))
        yield (measured - factor, ratio, again), f"alpha = {alpha:.3g}, {p}"


def rate_fb(seed: int, size: float) -> list[Verdict]:
    """Forward-backward contracts z by ||I - alpha G||, at most sqrt(1 - 2 alpha m + alpha^2 L^2)."""
    return _rate("NEW-rate-fb", "forward-backward", seed, size)


def rate_pr(seed: int, size: float) -> list[Verdict]:
    """Peaceman-Rachford contracts u by ||(I - alpha G)(I + alpha G)^-1||, at most sqrt(1 - 4am/(1 + 2am + a^2 L^2))."""
    claim = "NEW-rate-pr"
    printed_h, closer = columns(_pencils(seed, problems.count(150, size)))
    loose = rates.peaceman_rachford_class(0.5, 2.0, 0.5)
    weaker = math.sqrt(1 - 4 * 0.5 * 0.5 / (1 + 0.5 * 2.0) ** 2)
    return [
        *_rate(claim, "peaceman-rachford", seed, size),
        compare(
            claim,
            "exact factor^2 against (h - 2)/(h + 2), h = lambda_max(S^-1(I/a + a G'G))",
            largest(printed_h),
            "<=",
            1e-9,
        ),
        compare(claim, "||z - z*|| over ||u - u*||", largest(closer), "<=", 1, slack=1e-12),
        compare(
            claim,
            "m = 1/2, L = 2, alpha = 1/2: the bound with (1 + alpha L)^2 is loose, class bound is",
            loose,
            "<=",
            weaker,
        ),
    ]


def _rate(claim: str, method: str, seed: int, size: float) -> list[Verdict]:
    over, ratio, again = columns(_factors(method, seed, problems.count(270, size)))
    return [
        compare(claim, "measured contraction of 12 steps minus the exact factor", largest(over), "<=", 0, slack=1e-9),
        compare(claim, "exact factor over class bound", largest(ratio), "<=", 1, slack=1e-9),
        compare(
            claim,
            "n = 2, contraction of one step over class bound: ascent from the worst of a sample",
            adversary.climb(lambda v: _one_step(method, v), adversary.PROBLEM + 3, seed, size),
            "<=",
            1,
            slack=1e-9,
        ),
        compare(
            claim, "class bound against |.| of the worst eigenvalue m + i sqrt(L^2 - m^2)", largest(again), "<=", 1e-9
        ),
        compare(
            claim,
            "G = [[m, -s], [s, m]], interior z*: |measured - class bound|",
            largest(_attained(method)),
            "<=",
            1e-9,
        ),
    ]


def _pencils(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for p in problems.ensemble(seed, trials, smallest=0.1):
        rng = np.random.default_rng([p.seed, 12])
        alpha = 10 ** rng.uniform(-1, 1) / p.lipschitz
        S = (p.G + p.G.T) / 2
        h = np.linalg.eigvals(np.linalg.solve(S, np.eye(len(S)) / alpha + alpha * p.G.T @ p.G)).real.max()
        own = rates.peaceman_rachford_h(p.G, alpha)
        difference = max(abs(rates.peaceman_rachford(p.G, alpha) ** 2 - (h - 2) / (h + 2)), abs(own - h) / h)
        u, target = p.z + rng.normal(size=p.z.shape), p.auxiliary(alpha)
        closer = np.linalg.norm(p.activation.prox(u, alpha) - p.z, axis=1) / np.linalg.norm(u - target, axis=1)
        yield (difference, closer), str(p)


def best_alpha(seed: int, size: float) -> list[Verdict]:
    """1/L is best for m and L, sqrt(beta/m) for m and beta; the exact factors have one minimum, found by search."""
    claim = "NEW-best-alpha"
    class_pr, class_fb, pr, fb, symmetric, valleys, sharper, off = columns(_searches(seed, problems.count(60, size)))
    p = problems.draw(seed, activations.relu, 0.3, n=6, batch=1)
    return [
        compare(
            claim,
            "Peaceman-Rachford: class bound at 1/L minus sqrt((L - m)/(L + m))",
            largest(class_pr),
            "<=",
            0,
            slack=1e-12,
        ),
        compare(
            claim,
            "forward-backward: class bound at m/L^2 minus sqrt(1 - m^2/L^2)",
            largest(class_fb),
            "<=",
            0,
            slack=1e-12,
        ),
        compare(
            claim,
            "Peaceman-Rachford: iterations at the found step over the best of 400 steps",
            largest(pr),
            "<=",
            1 + 1e-6,
        ),
        compare(claim, "forward-backward: the same", largest(fb), "<=", 1 + 1e-6),
        compare(claim, "exact factors, both: minima along 400 steps", largest(valleys), "==", 1),
        compare(
            claim,
            "symmetric G: (sqrt L - sqrt m)/(sqrt L + sqrt m) at 1/sqrt(m L), distance",
            largest(symmetric),
            "<=",
            1e-9,
        ),
        compare(
            claim,
            "exact factors over the class bounds with sqrt(m/beta) for L",
            largest(sharper),
            "<=",
            1,
            slack=1e-9,
        ),
        compare(
            claim,
            "sqrt(beta/m) by products with W and W' against 1/sqrt(m L) of S, and against 1/L of m I and the skew part",
            largest(off),
            "<=",
            1e-6,
        ),
        compare(
            claim,
            "Peaceman-Rachford at 8 times the best step takes fewer iterations: ratio",
            _iterations(p, 8.0) / _iterations(p, 1.0),
            "<=",
            1,
            form=DROPPED,
            worst=str(p),
        ),
    ]


def _iterations(p: problems.Problem, factor: float) -> int:
    alpha = factor * rates.best_alpha(p.W, "peaceman-rachford")
    return mon.equilibrium(p.W, p.b, p.activation, alpha=alpha, tol=1e-9, max_iter=50000).iterations


def _searches(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for k in range(trials):
        rng = np.random.default_rng(seed + k)
        n, m = 2 + k % 5, 10 ** rng.uniform(-1, 0.3)
        G = problems.gap(rng, n, m)
        L = float(np.linalg.norm(G, 2))
        grid = np.geomspace(1e-2 / L, 1e2 / L, 400)
        own = rates.best_peaceman_rachford(G), rates.best_forward_backward(G)
        exact = rates.peaceman_rachford, rates.forward_backward
        found = [f(G, alpha) for f, alpha in zip(exact, own, strict=True)]
        along = [np.array([f(G, alpha) for alpha in grid]) for f in exact]
        searched = [factors.min() for factors in along]
        counts = [math.log(s) / math.log(f) for s, f in zip(searched, found, strict=True)]
        class_pr = rates.peaceman_rachford_class(m, L, 1 / L) - math.sqrt((L - m) / (L + m))
        class_fb = rates.forward_backward_class(m, L, m / L**2) - math.sqrt(1 - (m / L) ** 2)
        S = (G + G.T) / 2
        low, high = np.sqrt(np.linalg.eigvalsh(S)[[0, -1]])
        symmetric = rates.peaceman_rachford(S, 1 / (low * high)) - (high - low) / (high + low)
        least = [b(m, L, a * s) - b(m, L, s) for a in (0.9, 1.1) for b, s in _class_steps(m, L)]
        worst = max(0.0, -min(least))
        yield (
            (
                abs(class_pr) + worst,
                abs(class_fb) + worst,
                counts[0],
                counts[1],
                abs(symmetric),
                [_minima(f) for f in along],
                _sharper(G, m, rng),
                _off(G, m),
            ),
            f"n = {n}, m = {m:.3g}, L = {L:.3g}, seed {seed + k}",
        )


def _sharper(G: np.ndarray, m: float, rng: np.random.Generator) -> float:
    """The larger of both exact factors over its class bound with sqrt(m/beta) for L."""
    inverse = np.linalg.inv(G)
    beta = float(np.linalg.eigvalsh(inverse + inverse.T)[0]) / 2
    pairs = (
        (rates.peaceman_rachford, rates.peaceman_rachford_class, math.sqrt(beta / m) * 10 ** rng.uniform(-1, 1)),
        (rates.forward_backward, rates.forward_backward_class, 2 * beta * rng.uniform(0.05, 0.95)),
    )
    return max(exact(G, alpha) / bound(m, math.sqrt(m / beta), alpha) for exact, bound, alpha in pairs)


def _off(G: np.ndarray, m: float) -> float:
    """How far the step by cocoercivity is from the one of theory, relatively, where theory knows it."""
    S = (G + G.T) / 2
    turned = m * np.eye(len(G)) + (G - G.T) / 2
    known = ((S, math.sqrt(m * np.linalg.norm(S, 2))), (turned, np.linalg.norm(turned, 2)))
    operators = [MonotoneDense.from_weight(np.eye(len(G)) - H, m * (1 - 1e-9)) for H, _ in known]
    steps = [rates.effective_lipschitz(W, m, "peaceman-rachford") for W in operators]
    return max(abs(float(step / length) - 1) for step, (_, length) in zip(steps, known, strict=True))


def _minima(values: np.ndarray) -> int:
    """How often a sequence turns from falling to rising, rounding aside."""
    steps = np.diff(values)
    signs = np.sign(steps[abs(steps) > 1e-12])
    return int(np.sum((signs[:-1] < 0) & (signs[1:] > 0)))


def _class_steps(m: float, L: float) -> list[tuple]:
    return [(rates.peaceman_rachford_class, 1 / L), (rates.forward_backward_class, m / L**2)]


__all__ = ["best_alpha", "rate_fb", "rate_pr"]
