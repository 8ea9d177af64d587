"""FPN and JFB section 2: contractions, Algorithm 1, Banach's theorem with its error, and maps that are none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .. import activations
from .. import fixed_point as fp
from ..fixed_point import examples, theory
from . import adversary, oracles, problems
from .verdict import DROPPED, PRINTED, Verdict, columns, compare, largest

FACTORS = (0.1, 0.5, 0.8, 0.95)


class Layer(NamedTuple):
    """``T = sigma(W z + x)`` with ``||W||_2 = gamma``, data x and fixed points z that were chosen first."""

    seed: int
    T: fp.OneLayer
    x: np.ndarray
    pre: np.ndarray
    z: np.ndarray
    gamma: float

    @property
    def name(self) -> str:
        """Of the activation."""
        return repr(self.T.activation)

    def __str__(self) -> str:
        return f"{self.name}, n = {len(self.T.W)}, gamma = {self.gamma:g}, seed {self.seed}"


def contractions(rng: np.random.Generator, count: int, n: int, gamma: float) -> np.ndarray:
    """Matrices with ``||K||_2 = gamma``, (count, n, n); about half of them multiples of orthogonal ones."""
    U, _, V = np.linalg.svd(rng.normal(size=(count, n, n)))
    s = rng.uniform(size=(count, n)) ** rng.choice([0.0, 1.0], size=(count, 1))
    s[:, 0] = 1
    return np.asarray(gamma * (U * s[:, None, :]) @ V)


def layers(seed: int, trials: int, *, batch: int = 4, kinks: bool = True, largest_n: int = 6) -> Iterator[Layer]:
    """Layers seed, seed + 1, ...: every activation, every factor, n = 1 to largest_n."""
    for k in range(trials):
        rng, activation = np.random.default_rng(seed + k), problems.ACTIVATIONS[k % len(problems.ACTIVATIONS)]
        n, gamma = 1 + k % largest_n, FACTORS[(k // len(problems.ACTIVATIONS)) % len(FACTORS)]
        W = contractions(rng, 1, n, gamma)[0]
        pre = problems.preactivations(rng, repr(activation), (batch, n), kinks)
        z = oracles.sigma(repr(activation), pre)
        yield Layer(
            seed + k, fp.OneLayer(W, np.eye(n), np.zeros(n), activation), pre - z @ W.T, pre, z, theory.spectral_norm(W)
        )


def _away(layer: Layer) -> np.ndarray:
    rng = np.random.default_rng([layer.seed, 21])
    return layer.z + 10 ** rng.uniform(-6, 1, (len(layer.z), 1)) * rng.normal(size=layer.z.shape)


def _length(a: np.ndarray) -> np.ndarray:
    return np.linalg.norm(a, axis=1)


def contraction(seed: int, size: float) -> list[Verdict]:
    """Assumption 2.1: which factors are proven, and that one from random directions is not."""
    claim = "JFB-Asm2.1"
    ratios, joint = columns(_ratios(seed, problems.count(180, size)))
    low, high, gram, chain = columns(_norms(seed, problems.count(60, size)))
    W = np.random.default_rng(seed).normal(size=(8, 8))
    return [
        compare(claim, "(9): ||T(z) - T(w)|| over gamma ||z - w||", largest(ratios), "<=", 1, slack=1e-9),
        compare(claim, "(8): the same in (z, x) over ||(W, U)||", largest(joint), "<=", 1, slack=1e-9),
        compare(claim, "power iteration: proven low over ||K||", largest(low), "<=", 1, slack=1e-12),
        compare(
            claim, "...||K|| over high, which holds with probability 1 - 1e-10", largest(high), "<=", 1, slack=1e-12
        ),
        compare(claim, "||W|| over the bound from products alone", largest(gram), "<=", 1, slack=1e-12),
        compare(claim, "two layers: measured ratio over the product of norms", largest(chain), "<=", 1, slack=1e-9),
        compare(claim, "||W|| after rescaling to gamma = .9 by the norm", _rescaled(W, True), "<=", 0.9, slack=1e-12),
        compare(claim, "...by a ratio from random directions", _rescaled(W, False), "<=", 0.9, form=DROPPED),
    ]


def _ratios(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for layer in layers(seed, trials):
        T, w = layer.T, _away(layer)
        y = layer.x + np.random.default_rng([layer.seed, 22]).normal(size=w.shape)
        measured = _over(theory.measured_ratio(T, layer.x, layer.z, w), T.gamma, layer.z - w)
        moved = np.hypot(_length(layer.z - w), _length(layer.x - y))
        both = np.linalg.norm(np.hstack([T.W, T.U]), 2) * moved
        yield (measured, _length(T(layer.z, layer.x) - T(w, y)) / both), str(layer)


def _over(ratio: np.ndarray, gamma: float, apart: np.ndarray) -> np.ndarray:
    # rounding of T, 1e-15 or so, counts for more the closer the two points are
    return ratio / (gamma + 1e-14 + 4e-15 / _length(apart))


def _norms(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for k in range(trials):
        rng = np.random.default_rng(seed + k)
        n = 1 + k % 12
        A, B = rng.normal(size=(2, n, n))
        exact, z = np.linalg.norm(A, 2), rng.normal(size=(2, 4, n))
        low, high = theory.norm_bounds(fp.linearise(fp.LinearMap(A, A, A[0]), z[0], z[0]), z[0], rng)
        two = fp.Map(lambda z, x, A=A, B=B: np.tanh(np.tanh(z @ A.T) @ B.T) + x, _unused, _unused)
        proven = theory.product_bound(theory.spectral_norm(A), theory.spectral_norm(B))
        chain = theory.measured_ratio(two, 0.0, z[0], z[1]) / proven
        yield (low / exact, exact / high, exact / theory.gram_bound(A), chain), f"n = {n}, seed {seed + k}"


def _unused(*arguments: np.ndarray) -> dict[str, np.ndarray]:
    raise AssertionError("only the values of this map are asked for.")


def _rescaled(W: np.ndarray, sound: bool) -> float:
    rng, n = np.random.default_rng(0), len(W)
    T = fp.OneLayer(W, np.eye(n), np.zeros(n))
    directions = theory.measured_ratio(T, np.zeros((500, n)), *rng.normal(size=(2, 500, n))).mean()
    return float(np.linalg.norm(theory.rescaled(W, theory.spectral_norm(W) if sound else directions, 0.9), 2))


def algorithm_1(seed: int, size: float) -> list[Verdict]:
    """Algorithm 1: how long it runs, how good its answer is."""
    claim, eps = "JFB-Alg1", 1e-6
    steps, errors, residuals = columns(_algorithm_1(seed, problems.count(144, size), eps))
    scalar = fp.LinearMap(np.array([[0.8]]), np.array([[1.0]]), np.array([0.0]))
    start = np.array([[(1 - 1e-9) * eps / 0.2]])
    stopped = fp.iterate(scalar, 0 * start, start, tol=eps / 0.2)
    picard, anderson = (_iterations(seed, method) for method in (None, "anderson"))
    return [
        compare(claim, "||T(u) - u|| where it stops, over eps", largest(residuals), "<=", 1, slack=1e-9),
        compare(claim, "applications of T less 1 + ceil(log(eps/r1)/log gamma)", largest(steps), "<=", 0),
        compare(claim, "||u - u*|| over eps/(1 - gamma)", largest(errors), "<=", 1, slack=1e-6),
        compare(claim, "T = .8 u: error over eps/(1 - gamma)", abs(stopped.z[0, 0]) / (eps / 0.2), "==", 1, slack=1e-6),
        compare(
            claim,
            "gamma = .95, n = 40, to 1e-6: Anderson's applications of T over Picard's",
            anderson / picard,
            "<=",
            0.6,
            worst=f"{anderson} and {picard}, seed {seed}",
        ),
    ]


def _algorithm_1(seed: int, trials: int, eps: float) -> Iterator[tuple[tuple, str]]:
    for layer in layers(seed, trials):
        # the printed rule, a residual below eps, is a certified distance below eps/(1 - gamma)
        gamma, start = layer.gamma, _away(layer)
        found = fp.iterate(layer.T, layer.x, start, tol=eps / (1 - gamma), gamma=gamma)
        bounds = [theory.iterations_bound(float(r), eps, gamma) for r in np.asarray(found.residuals)[0]]
        at_end = _length(layer.T(found.z, layer.x) - found.z)
        yield (found.steps - bounds, _length(found.z - layer.z) * (1 - gamma) / eps, at_end / eps), str(layer)


def _iterations(seed: int, acceleration: str | None) -> int:
    rng = np.random.default_rng(seed)
    W = 0.95 * problems.orthogonal(rng, 40) @ np.diag(np.linspace(0.05, 1, 40))
    W = (W + W.T) / 2
    T = fp.OneLayer(W * (0.95 / np.linalg.norm(W, 2)), np.eye(40), np.zeros(40), activations.leaky_relu(0.1))
    x = rng.normal(size=(8, 40))
    return fp.iterate(T, x, 0 * x, tol=1e-6, acceleration=acceleration).iterations


def theorem_2_1(seed: int, size: float) -> list[Verdict]:
    """Theorem 2.1: one fixed point, and the distance to it falls by gamma at every step."""
    claim = "JFB-Thm2.1"
    ratios, ahead, unique = columns(_theorem_2_1(seed, problems.count(72, size)))
    return [
        compare(claim, "||u_{k+1} - u*|| over gamma ||u_k - u*||, every step", largest(ratios), "<=", 1, slack=1e-6),
        compare(
            claim,
            "n = 2, tanh, the first: ascent from the worst of a sample",
            adversary.climb(_step, 9, seed, size),
            "<=",
            1,
            slack=1e-9,
        ),
        compare(claim, "||T(u) - u*|| over gamma r/(1 - gamma)", largest(ahead), "<=", 1, slack=1e-9),
        compare(claim, "from two starts: distance of the answers", largest(unique), "<=", 2e-10),
    ]


def _theorem_2_1(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for layer in layers(seed, trials):
        gamma, start = layer.gamma, _away(layer)
        states = [s.z for s, _ in zip(fp.picard_steps(layer.T, layer.x, start), range(12), strict=False)]
        errors = np.stack([_length(z - layer.z) for z in states])
        ratios = errors[1:] / (gamma * errors[:-1] + 1e-13)
        Tz = layer.T(start, layer.x)
        ahead = _length(Tz - layer.z) / (gamma / (1 - gamma) * _length(Tz - start) + 1e-13)
        one, two = (fp.iterate(layer.T, layer.x, s, tol=1e-10).z for s in (start, 10 * start + 1))
        yield (ratios, ahead, _length(one - two)), str(layer)


def certificate_f1(seed: int, size: float) -> list[Verdict]:
    """F1: r/(1 + gamma) <= ||u - u*|| <= r/(1 - gamma), r = ||T(u) - u||; whatever found u."""
    claim = "NEW-cert-F1"
    low, high, picard, anderson = columns(_certificate_f1(seed, problems.count(108, size)))
    (far, _), (_, near) = (theory.residual_interval(r, 0.9) for r in (1.9, 0.1))  # K = -.9 I, .9 I at distance 1
    return [
        compare(claim, "lower bound over ||u - u*||", largest(low), "<=", 1, slack=1e-9),
        compare(claim, "||u - u*|| over the upper bound", largest(high), "<=", 1, slack=1e-9),
        compare(
            claim, "||u - u*|| over the bound that Picard's iteration reports", largest(picard), "<=", 1, slack=1e-9
        ),
        compare(claim, "...Anderson's", largest(anderson), "<=", 1, slack=1e-9),
        compare(
            claim,
            "n = 2, tanh, the larger of both: ascent from the worst of a sample",
            adversary.climb(_interval, 9, seed, size),
            "<=",
            1,
            slack=1e-9,
        ),
        compare(claim, "K = -.9 I at distance 1: lower bound", far, "==", 1, slack=1e-12),
        compare(claim, "K = .9 I at distance 1: upper bound", near, "==", 1, slack=1e-12),
    ]


def _certificate_f1(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for layer in layers(seed, trials):
        u, x = _away(layer), layer.x
        distance = _length(u - layer.z)
        low, high = theory.residual_interval(_length(layer.T(u, x) - u), layer.gamma)
        solved = []
        for acceleration in (None, "anderson"):
            found = fp.iterate(layer.T, x, u, tol=1e-4, acceleration=acceleration)
            solved.append(_length(found.z - layer.z) / (found.bound + 1e-13))
        yield (low / (distance + 1e-13), distance / (high + 1e-13), *solved), str(layer)


def _interval(v: np.ndarray) -> float:
    """n = 2, tanh: the tighter of the two bounds, from nine numbers."""
    T, z, u = _small(v)
    distance, gamma = float(np.linalg.norm(u - z)), theory.spectral_norm(T.W)
    low, high = theory.residual_interval(_length(T(u, _data(T, z)) - u), gamma)
    return float(max(low[0] / (distance + 1e-13), distance / (high[0] + 1e-13)))


def _step(v: np.ndarray) -> float:
    """n = 2, tanh: ||T(u) - u*|| over gamma ||u - u*||, from nine numbers."""
    T, z, u = _small(v)
    moved = T(u, _data(T, z)) - z
    return float(np.linalg.norm(moved) / (theory.spectral_norm(T.W) * np.linalg.norm(u - z) + 1e-13))


def _small(v: np.ndarray) -> tuple[fp.OneLayer, np.ndarray, np.ndarray]:
    """A layer, its fixed point and another state."""
    W = adversary.contraction(v[:4], (1 + np.tanh(v[4])) / 2 * 0.95 + 0.02)
    z = np.tanh(v[None, 5:7])
    return fp.OneLayer(W, np.eye(2), np.zeros(2), activations.tanh), z, z + v[None, 7:9]


def _data(T: fp.OneLayer, z: np.ndarray) -> np.ndarray:
    """x with z = tanh(W z + x)."""
    return np.asarray(np.arctanh(z) - z @ np.asarray(T.W).T)


def mon_case(seed: int, size: float) -> list[Verdict]:
    """JFB section 1: is a MON a network with T = sigma(W u + Q(d)) that Algorithm 1 solves?"""
    claim = "JFB-Sec1-mon-case"
    plain, step, x, z_star = examples.mon_that_cycles()
    cycle = [float(s.z[0, 0]) for s, _ in zip(fp.picard_steps(plain, x, 0 * x), range(1000), strict=False)]
    fixed, ratios = columns(_mon_steps(seed, problems.count(108, size)))
    return [
        compare(
            claim,
            "W = -10, relu, x = 1 (I - W = 11): |T(u) - u| of T = relu(-10 u + 1) after 1000 steps of Algorithm 1",
            abs(cycle[-1] - cycle[-2]),
            "<=",
            1e-6,
            form=PRINTED,
            worst=f"it runs {cycle[0]:g}, {cycle[1]:g}, {cycle[2]:g}, {cycle[3]:g}, ...",
        ),
        compare(
            claim,
            "the same MON by its forward-backward step: distance from 1/11",
            abs(fp.iterate(step, x, 0 * x, tol=1e-12).z - z_star)[0, 0],
            "<=",
            1e-12,
            slack=1e-15,
        ),
        compare(claim, "forward-backward, Peaceman-Rachford: ||T(u*) - u*||", largest(fixed), "<=", 1e-11),
        compare(claim, "...||T(u) - T(w)|| over gamma ||u - w||", largest(ratios), "<=", 1, slack=1e-9),
        compare(
            claim,
            "conversely, ||W|| = gamma < 1: (1 - gamma) - lambda_min of the symmetric part of I - W",
            largest(_conversely(seed, problems.count(300, size))),
            "<=",
            0,
            slack=1e-12,
        ),
    ]


def _mon_steps(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for p in problems.ensemble(seed, trials, smallest=0.1):
        u, w = np.random.default_rng([p.seed, 23]).normal(size=(2, *p.z.shape))
        forward, splitting = fp.ForwardBackward(p.W, p.activation), fp.PeacemanRachford(p.W, p.activation)
        pairs = (forward, p.z), (splitting, p.auxiliary(splitting.alpha))  # type: ignore[arg-type]
        fixed = [_length(T(at, p.b) - at) / (1 + _length(at)) for T, at in pairs]
        ratios = [_over(theory.measured_ratio(T, p.b, u, w), T.gamma, u - w) for T, _ in pairs]
        yield (np.concatenate(fixed), np.concatenate(ratios)), str(p)


def _conversely(seed: int, trials: int) -> Iterator[tuple[float, str]]:
    for k in range(trials):
        gamma, n = FACTORS[k % len(FACTORS)], 1 + k % 6
        W = contractions(np.random.default_rng(seed + k), 1, n, gamma)[0]
        least = np.linalg.eigvalsh(np.eye(n) - (W + W.T) / 2)[0]
        yield theory.coercivity(gamma) - least, f"n = {n}, gamma = {gamma}, seed {seed + k}"


def toy(seed: int, size: float) -> list[Verdict]:
    """JFB (4), (5): y = d + y^5 for |d| <= 1/2."""
    claim, d = "JFB-Eq4", np.linspace(-0.5, 0.5, max(5, 2 * round(50 * size) + 1))[:, None]
    real = [np.sort_complex(_real_roots(value)) for value in d[:, 0]]
    found = fp.iterate(examples.toy(), d, 0 * d, tol=1e-15, max_iter=400).z[:, 0]
    smallest = np.array([roots[np.argmin(np.abs(roots))].real for roots in real])
    series = np.array([examples.toy_series(float(value)) for value in d[:, 0]])
    y = np.array([[0.9]])
    for _ in range(4):
        y = examples.toy()(y, 0.5)
    double = 5**-0.25  # y - y^5 has its maximum here
    where = [
        (abs(found - smallest), f"of {len(d)} values of d, not random"),
        (abs(found - series), f"of {len(d)} values of d, not random"),
    ]
    count = largest((len(roots), f"d = {value:g}, not random") for roots, value in zip(real, d[:, 0], strict=True))
    return [
        compare(claim, "number of real y with y = d + y^5, d in [-1/2, 1/2]", count, "==", 1, form=PRINTED),
        compare(claim, "(5) from 0, against the root of smallest modulus", largest(where[:1]), "<=", 1e-12),
        compare(claim, "(5) from 0, against sum_k C(5k, k) d^(4k+1)/(4k+1)", largest(where[1:]), "<=", 1e-14),
        compare(claim, "d = 1/2: y", found[-1], "==", 0.5506065793341349, slack=4e-15),
        compare(
            claim,
            "the largest d with three roots: 4/5^(5/4)",
            examples.TOY_LIMIT,
            "==",
            double - double**5,
            slack=1e-15,
        ),
        compare(claim, "d = 1/2 from y = .9, after four steps: |y|", abs(y[0, 0]), "<=", 1, form=DROPPED),
    ]


def _real_roots(d: float) -> np.ndarray:
    roots = np.roots([1, 0, 0, 0, -1, d])
    return np.asarray(roots[np.abs(roots.imag) < 1e-9])


__all__ = ["algorithm_1", "certificate_f1", "contraction", "mon_case", "theorem_2_1", "toy"]
