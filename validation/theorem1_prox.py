"""MON Theorem 1 and the activations as proximal maps; what the equilibrium obeys besides."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import scipy.optimize

from .. import activations, mon
from ..operators import MonotoneDense
from ..splitting import certificates
from . import adversary, oracles, problems
from .verdict import DROPPED, Verdict, columns, compare, largest

ALPHAS = (1e-3, 0.05, 0.3, 1.0, 4.0, 50.0)
TOL = 1e-11


def fixed_points(seed: int, size: float) -> list[Verdict]:
    """Theorem 1: zeros of A + B and fixed points of (1) are the same, for every step alpha."""
    claim = "MON-Thm1"
    forth, back, again = columns(_both_ways(seed, problems.count(54, size)))
    enumerated = largest(_enumerated(seed, problems.count(30, size)))
    stationary, image = hard_threshold()
    return [
        compare(claim, "every zero of A + B is a fixed point: ||z - sigma(Wz + b)||", largest(forth), "<=", 20 * TOL),
        compare(
            claim,
            "every fixed point is a zero, any alpha: ||z - R_B(z - alpha A z)||/(1 + alpha)",
            largest(back),
            "<=",
            1e-12,
        ),
        compare(claim, "one solution at alpha = 0.2, 1, 4 (distance to z*)", largest(again), "<=", TOL),
        compare(claim, "relu: all 2^n active sets tried give one solution, this one", enumerated, "<=", 1e-10),
        compare(claim, "relu, symmetric W: z* against SciPy's nnls", _symmetric(seed, size), "<=", 1e-10),
        compare(
            claim,
            "hard threshold, f not convex, n = 1, W = 0, b = 1/2: the stationary point 1/2 is a fixed point",
            image,
            "==",
            stationary,
            form=DROPPED,
        ),
    ]


def _both_ways(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for p in problems.ensemble(seed, trials, smallest=0.1):
        inclusion, name = mon.forward_inclusion(p.W, p.b, p.activation), repr(p.activation)
        solved = [mon.equilibrium(p.W, p.b, p.activation, alpha=a, tol=TOL, max_iter=50000).z for a in (0.2, 1.0, 4.0)]
        defects = [z - oracles.sigma(name, z @ p.matrix.T + p.b) for z in solved]
        steps = [(p.z - inclusion.B.prox(p.z - a * inclusion.A(p.z), a)) / (1 + a) for a in ALPHAS]
        errors = [z - p.z for z in solved]
        yield tuple(np.linalg.norm(x, axis=-1) for x in (defects, steps, errors)), str(p)


def _enumerated(seed: int, trials: int) -> Iterator[tuple[float, str]]:
    for k in range(trials):
        p = problems.draw(seed + k, activations.relu, 0.3, n=1 + k % 6, batch=1)
        solutions = list(oracles.relu_equilibria(p.matrix, p.b[0]))
        z = mon.equilibrium(p.W, p.b, p.activation, tol=TOL, max_iter=20000).z[0]
        yield (np.linalg.norm(solutions[0] - z) if len(solutions) == 1 else math.inf), str(p)


def _symmetric(seed: int, size: float):
    def samples() -> Iterator[tuple[float, str]]:
        for k in range(problems.count(20, size)):
            p = problems.draw(seed + k, activations.relu, 0.3, n=5, batch=1)
            W = (p.matrix + p.matrix.T) / 2
            z = mon.equilibrium(MonotoneDense.from_weight(W, p.m), p.b, p.activation, tol=TOL, max_iter=20000).z[0]
            yield np.linalg.norm(oracles.relu_symmetric(W, p.b[0]) - z), str(p)

    return largest(samples())


def hard_threshold() -> tuple[float, float]:
    """F = 1/2 where z != 0, else 0: z = b = 1/2 makes b - z = 0 a (limiting) subgradient, but prox(1/2) = 0."""
    z = 0.5
    return z, z if z * z / 2 > 0.5 else 0.0


def proxes(seed: int, size: float) -> list[Verdict]:
    """Section 3.2: nine activations are exactly prox^1_f, not only close to a prox."""
    excess, slopes = columns(_brute_force(seed, (1.0,), problems.count(30, size)))
    return [
        compare("MON-Sec3.2-prox", "objective (4) at sigma(x) above its minimum", largest(excess), "<=", 1e-13),
        compare("MON-Sec3.2-prox", "difference quotients lie in [0, 1]: distance", largest(slopes), "<=", 1e-12),
    ]


def _brute_force(seed: int, alphas: tuple[float, ...], points: int) -> Iterator[tuple[tuple, str]]:
    rng = np.random.default_rng(seed)
    for activation in problems.ACTIVATIONS:
        name = repr(activation)
        for alpha in alphas:
            x = np.sort(3 * rng.normal(size=points))
            z = activation.prox(x, alpha)
            excess = [
                oracles.prox_objective(name, z_i, x_i, alpha)
                - oracles.prox_objective(name, oracles.prox(name, x_i, alpha), x_i, alpha)
                for x_i, z_i in zip(x, z, strict=True)
            ]
            dx, dz = np.diff(x), np.diff(z)
            outside = np.maximum(-dz, dz - dx)
            scaled = np.array(excess) / (1 + alpha + x * x)
            yield (scaled, outside), f"{name}, alpha = {alpha:g}, seed {seed}"


def prox_alpha(seed: int, size: float) -> list[Verdict]:
    """prox^alpha_f(x) = sigma(w), w the root of ``alpha w + (1 - alpha) sigma(w) = x``."""
    claim = "NEW-prox-alpha"
    excess, slopes = columns(_brute_force(seed, (1e-3, 0.05, 0.5, 4.0, 100.0), problems.count(10, size)))
    equation, moreau, derivative, steps = columns(_roots(seed, problems.count(400, size)))
    return [
        compare(claim, "objective (4) at prox^alpha(x) above its minimum, relative", largest(excess), "<=", 1e-13),
        compare(claim, "difference quotients lie in [0, 1]: distance", largest(slopes), "<=", 1e-12),
        compare(claim, "backward error of alpha w + (1 - alpha) sigma(w) = x", largest(equation), "<=", 1e-14),
        compare(claim, "sigma(p + (x - p)/alpha) = p at p = prox^alpha(x)", largest(moreau), "<=", 1e-12),
        compare(
            claim, "derivative against central differences, alpha from 0.01 to 100", largest(derivative), "<=", 1e-6
        ),
        compare(claim, "Newton steps, alpha from 1e-6 to 1e6, |x| to 1e8", largest(steps), "<=", 25),
    ]


def _roots(seed: int, points: int) -> Iterator[tuple[tuple, str]]:
    rng = np.random.default_rng(seed)
    x = np.concatenate([3 * rng.normal(size=points), rng.choice([-1, 1], points) * 10 ** rng.uniform(-8, 8, points)])
    for activation in problems.ACTIVATIONS:
        name = repr(activation)
        for alpha in 10.0 ** np.arange(-6, 7):
            w, p = activation.root(x, alpha), activation.prox(x, alpha)
            s = oracles.sigma(name, w)
            scale = (alpha + abs(1 - alpha)) * abs(w) + abs(x)  # what rounding of w alone does
            equation = abs(alpha * w + (1 - alpha) * s - x) / scale
            moreau = abs(oracles.sigma(name, p + (x - p) / alpha) - p) / ((1 + abs(x)) * (1 + 1 / alpha))
            steps = 0 if activation.closed_root else activations.newton(activation.sigma, activation.slope, x, alpha)[1]
            slope = _derivative_error(activation, x[:points], alpha) if 1e-2 <= alpha <= 1e2 else np.zeros(points)
            yield (equation, moreau, slope, steps), f"{name}, alpha = {alpha:g}, seed {seed}"


def _derivative_error(activation, x: np.ndarray, alpha: float) -> np.ndarray:
    h = 2e-6
    difference = (activation.prox(x + h, alpha) - activation.prox(x - h, alpha)) / (2 * h)
    w = activation.root(x, alpha)
    near = [abs(w - kink) < 1e-4 * (1 + 1 / alpha) for kink in oracles.KINKS.get(repr(activation), ())]
    error = abs(difference - activation.derivative(x, alpha))
    return np.where(np.any(near, axis=0) if near else False, 0.0, error)


NOT_PROX = {
    "gelu": lambda x: x * scipy.special.ndtr(x),
    "silu": lambda x: x * scipy.special.expit(x),
    "mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0))),
    "elu(2)": lambda x: np.where(x > 0, x, 2 * np.expm1(np.minimum(x, 0))),
}


def not_prox(seed: int, size: float) -> list[Verdict]:
    """GELU, SiLU, Mish, SELU and ELU with a > 1 have slopes outside [0, 1]: no f makes them prox^1_f."""
    verdicts = [
        compare("NEW-not-prox", f"{name} has difference quotients in [0, 1]: distance", value, "<=", 0, form=DROPPED)
        for name, value in ((name, outside(sigma)) for name, sigma in NOT_PROX.items())
    ]
    refused = sum(_refused(name) for name in NOT_PROX)
    return [*verdicts, compare("NEW-not-prox", "of these five, refused with the reason", refused, "==", 5)]


def outside(sigma) -> float:
    """How far the difference quotients of sigma on a grid leave [0, 1]."""
    x = np.linspace(-8, 8, 4001)
    quotients = np.diff(sigma(x)) / np.diff(x)
    return float(max(-quotients.min(), quotients.max() - 1))


def _refused(name: str) -> bool:
    try:
        activations.elu(2.0) if name == "elu(2)" else activations.get(name)
    except activations.HypothesisError as error:
        return "NEW-not-prox" in str(error)
    return False


def strong_prox(seed: int, size: float) -> list[Verdict]:
    """sigma c-Lipschitz with c < 1: f is (1/c - 1)-strongly convex, and m + 1/c - 1 may stand for m."""
    claim = "NEW-strong-prox"
    return [
        compare(claim, "sigmoid is (1/4)-Lipschitz: f is mu-convex with mu", activations.sigmoid.strong, "==", 3),
        compare(claim, "...and mu enters the inclusion: modulus of A + B minus m", _added(), "==", 3, slack=1e-12),
        compare(
            claim,
            "sigmoid, m from -2.7 to 1: one solution from every start (largest distance)",
            largest(_many_starts(seed, problems.count(40, size))),
            "<=",
            1e-8,
        ),
        compare(claim, "n = 1, W = 5 (m = -4): number of solutions", _solutions(5.0), "<=", 1, form=DROPPED),
    ]


def _added() -> float:
    p = problems.draw(0, activations.sigmoid, 0.5, n=3)
    return mon.forward_inclusion(p.W, p.b, p.activation).m - p.W.m


def _many_starts(seed: int, trials: int) -> Iterator[tuple[float, str]]:
    for k in range(trials):
        rng = np.random.default_rng(seed + k)
        m = -2.7 + 3.7 * k / trials
        W = np.eye(4) - problems.gap(rng, 4, m)
        pre = 2 * rng.normal(size=4)
        b = pre - W @ oracles.sigma("sigmoid", pre)
        ends = [
            scipy.optimize.root(lambda p, W=W, b=b: p - W @ oracles.sigma("sigmoid", p) - b, 10 * rng.normal(size=4))
            for _ in range(4)
        ]
        found = [oracles.sigma("sigmoid", end.x) for end in ends if end.success]
        distances = [abs(z - oracles.sigma("sigmoid", pre)).max() for z in found]
        yield max(distances, default=math.inf), f"seed {seed + k}"  # a root must be found at all


def _solutions(W: float) -> int:
    z = np.linspace(1e-9, 1 - 1e-9, 100001)
    sign = np.sign(oracles.sigma("sigmoid", W * z - W / 2) - z + 1e-12)
    return int(np.sum(sign[1:] != sign[:-1]))


def sensitivity(seed: int, size: float) -> list[Verdict]:
    """z* is (1/m)-Lipschitz in the injection."""
    ratio, inner = columns(_changes(seed, problems.count(180, size)))
    return [
        compare("NEW-sensitivity", "||change of z*||/bound", largest(ratio), "<=", 1, slack=1e-9),
        compare(
            "NEW-sensitivity",
            "n = 2, the same: ascent from the worst of a sample",
            adversary.climb(_change, adversary.PROBLEM + 2, seed, size),
            "<=",
            1,
            slack=1e-9,
        ),
        compare("NEW-sensitivity", "<G dz, dz> - <db, dz>, relative", largest(inner), "<=", 0, slack=1e-12),
        compare("NEW-sensitivity", "n = 1, relu, W = 1 - m: attained", _attained(0.3), "==", 1, slack=1e-12),
    ]


def _changes(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for p in problems.ensemble(seed, trials):
        rng = np.random.default_rng([p.seed, 1])
        other = p.pre + 10 ** rng.uniform(-6, 1, (len(p.pre), 1)) * rng.normal(size=p.pre.shape)
        dz = oracles.sigma(repr(p.activation), other) - p.z
        db = other - p.pre - dz @ p.matrix.T
        inner = np.sum((dz @ p.G.T - db) * dz, axis=1) / (1e-300 + np.linalg.norm(db, axis=1) ** 2)
        bound = certificates.sensitivity(p.W.m, db)
        yield (np.linalg.norm(dz, axis=1) / (bound + 1e-300), inner * p.m), str(p)


def _change(v: np.ndarray) -> float:
    p = adversary.problem(v)
    other = p.pre + v[None, -2:]
    dz = np.maximum(other, 0) - p.z
    bound = certificates.sensitivity(p.W.m, other - p.pre - dz @ p.matrix.T)[0]
    return float(np.linalg.norm(dz) / (bound + 1e-300))


def _attained(m: float) -> float:
    W = MonotoneDense.from_weight(np.array([[1 - m]]), m)
    z = [mon.equilibrium(W, np.array([[b]]), activations.relu, tol=1e-13).z for b in (1.0, 1.5)]
    return float(z[1][0, 0] - z[0][0, 0]) / float(certificates.sensitivity(m, np.array([[0.5]]))[0])


def homogeneity(seed: int, size: float) -> list[Verdict]:
    """relu and leaky relu: z*(t b) = t z*(b) for t > 0; odd activations: z*(-b) = -z*(b)."""
    scaled, odd = largest(_scaled(seed, problems.count(30, size))), largest(_odd(seed, problems.count(30, size)))
    shifted = problems.draw(seed, activations.tanh, 0.5, n=3)
    doubled = mon.equilibrium(shifted.W, 2 * shifted.b, shifted.activation, tol=TOL).z
    return [
        compare("NEW-homogeneity", "||z*(t b) - t z*(b)||/(1 + t ||z*||), t from 1e-3 to 1e3", scaled, "<=", 1e-10),
        compare("NEW-homogeneity", "odd activations: ||z*(-b) + z*(b)||", odd, "<=", 1e-10),
        compare(
            "NEW-homogeneity",
            "tanh, which is not homogeneous: ||z*(2b) - 2 z*(b)||",
            np.linalg.norm(doubled - 2 * shifted.z),
            "<=",
            1e-10,
            form=DROPPED,
            worst=str(shifted),
        ),
    ]


def _scaled(seed: int, trials: int) -> Iterator[tuple[np.ndarray, str]]:
    for k in range(trials):
        p = problems.draw(seed + k, problems.ACTIVATIONS[k % 2], 0.3, n=4)
        t = 10.0 ** (k % 7 - 3)
        z = mon.equilibrium(p.W, t * p.b, p.activation, tol=TOL * max(1.0, t), max_iter=20000).z
        yield np.linalg.norm(z - t * p.z, axis=1) / (1 + t * np.linalg.norm(p.z, axis=1)), f"t = {t:g}, {p}"


def _odd(seed: int, trials: int) -> Iterator[tuple[np.ndarray, str]]:
    odd = (activations.tanh, activations.arctan, activations.hardtanh, activations.soft_threshold(0.5))
    for k in range(trials):
        p = problems.draw(seed + k, odd[k % 4], 0.3, n=4)
        z = mon.equilibrium(p.W, -p.b, p.activation, tol=TOL, max_iter=20000).z
        yield np.linalg.norm(z + p.z, axis=1), str(p)


__all__ = ["fixed_points", "homogeneity", "not_prox", "prox_alpha", "proxes", "sensitivity", "strong_prox"]
