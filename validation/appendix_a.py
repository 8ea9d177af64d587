"""MON appendix A: monotone operators, resolvents, the two splittings."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.optimize

from .. import activations, mon
from ..splitting import forward_backward, peaceman_rachford, rates
from . import problems
from .verdict import DROPPED, PRINTED, Verdict, columns, compare, largest


def strong(seed: int, size: float) -> list[Verdict]:
    """A(x) = Gx + h is strongly monotone with parameter m iff G + G' >= 2 m I; mI is printed."""
    claim, m = "MON-AppA-strong", 1.0
    G = np.array([[m / 2]])  # G + G' = m
    ratio, attained = columns(_quotients(seed, problems.count(200, size)))
    return [
        compare(claim, "n = 1, G = 1/2: G + G' = 1, and <Gx, x>/||x||^2 is", G[0, 0], ">=", m, form=PRINTED),
        compare(claim, "G + G' >= 2mI: m - <Gx, x>/||x||^2", largest(ratio), "<=", 0, slack=1e-12),
        compare(
            claim, "...and no larger m: the quotient at the lowest eigenvector minus m", largest(attained), "<=", 1e-12
        ),
    ]


def _quotients(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for k in range(trials):
        rng = np.random.default_rng(seed + k)
        G = problems.gap(rng, 1 + k % 6, rng.uniform(-1, 2))
        m, vectors = np.linalg.eigvalsh(G + G.T)[0] / 2, np.linalg.eigh(G + G.T)[1]
        x = rng.normal(size=(20, len(G)))
        quotient = np.sum(x @ G.T * x, axis=1) / np.sum(x * x, axis=1)
        yield (m - quotient, abs(vectors[:, 0] @ G @ vectors[:, 0] - m)), f"n = {len(G)}, seed {seed + k}"


def subdifferential(seed: int, size: float) -> list[Verdict]:
    """The subdifferential of a closed convex proper f is maximal monotone; the converse is false."""
    claim = "MON-AppA-subdifferential"
    onto, monotone = columns(_minty(seed, problems.count(200, size)))
    # f = -sqrt(x) for x > 0, f(0) = 5: convex, not closed; df = {-1/(2 sqrt x)} on x > 0, empty at 0
    y = np.concatenate([-(10.0 ** np.arange(-3, 4)), 10.0 ** np.arange(-3, 4)])
    solved = [scipy.optimize.brentq(lambda t, y=y: t**3 - y * t - 0.5, 1e-9, 1 + 2 * abs(y) + 2) for y in y]
    residual = [abs(t * t - 1 / (2 * t) - y_i) / (1 + abs(y_i)) for t, y_i in zip(solved, y, strict=True)]
    jump = 5.0 - -np.sqrt(0.0)
    return [
        compare(claim, "if: I + alpha df is onto (Minty), residual at prox", largest(onto), "<=", 1e-12),
        compare(claim, "if: df is monotone, -min <dy, dx>", largest(monotone), "<=", 0, slack=1e-12),
        compare(claim, "f = -sqrt(x), f(0) = 5: I + df is onto, so df is maximal; residual", max(residual), "<=", 1e-6),
        compare(claim, "...so f is closed: f(0) - lim f(x)", jump, "<=", 0, form=PRINTED),
    ]


def _minty(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    rng = np.random.default_rng(seed)
    for activation in problems.ACTIVATIONS:
        for alpha in (0.2, 1.0, 4.0):
            x = 3 * rng.normal(size=trials)
            p = activation.prox(x, alpha)
            g = (x - p) / alpha  # the element of df(p); sigma(p + g) = p says so
            yield (
                (abs(activation(p + g) - p), -(g[1:] - g[:-1]) * (p[1:] - p[:-1])),
                f"{activation!r}, alpha = {alpha}, seed {seed}",
            )


def cayley(seed: int, size: float) -> list[Verdict]:
    """Resolvents and Cayley operators are nonexpansive; Cayley contracts only where A is Lipschitz as well."""
    claim = "MON-AppA-cayley"
    B, resolvent, reflected, identity = columns(_nonexpansive(seed, problems.count(120, size)))
    slopes = [_cubic_slope(x) for x in (1.0, 1e2, 1e4, 1e6)]
    return [
        compare(claim, "Cayley of df: ||C x - C y||/||x - y||", largest(B), "<=", 1, slack=1e-9),
        compare(claim, "resolvent of A: its factor times 1 + alpha m", largest(resolvent), "<=", 1, slack=1e-9),
        compare(
            claim, "Cayley of A, A Lipschitz: factor over the class bound", largest(reflected), "<=", 1, slack=1e-9
        ),
        compare(claim, "C_A = (I - alpha G)(I + alpha G)^-1: distance", largest(identity), "<=", 1e-12),
        compare(
            claim,
            "A = N_{0}, strongly monotone: factor of C_A below 1",
            abs(_normal_cone_cayley(3.0) - _normal_cone_cayley(1.0)) / 2,
            "<=",
            1 - 1e-12,
            form=PRINTED,
        ),
        compare(
            claim,
            "A(x) = x + x^3, alpha = 1: |slope of C_A| at x = 1e6 within 1 - 1e-3",
            abs(slopes[-1]),
            "<=",
            1 - 1e-3,
            form=PRINTED,
        ),
    ]


def _normal_cone_cayley(x: float) -> float:
    """2 R - I for A = N_{0}, the normal cone of {0}, strongly monotone with every m: R projects on {0}."""
    return 2 * min(max(x, 0.0), 0.0) - x


def _cubic_slope(x: float) -> float:
    r = scipy.optimize.brentq(lambda r: 2 * r + r**3 - x, 0, x)  # resolvent: r + A(r) = x
    return 2 / (2 + 3 * r * r) - 1


def _nonexpansive(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for p in problems.ensemble(seed, trials):
        rng = np.random.default_rng([p.seed, 7])
        alpha, inclusion = 10 ** rng.uniform(-1, 1), mon.forward_inclusion(p.W, p.b, p.activation)
        x, y = 3 * rng.normal(size=(2, *p.z.shape))
        apart = np.linalg.norm(x - y, axis=1)
        C_B, R_A, C_A = inclusion.cayley_B(alpha), inclusion.resolvent_A(alpha), inclusion.cayley_A(alpha)
        factors = [np.linalg.norm(f(x) - f(y), axis=1) / apart for f in (C_B, R_A, C_A)]
        bound = rates.peaceman_rachford_class(p.m, p.lipschitz, alpha)
        identity = np.eye(len(p.G))
        exact = np.linalg.solve(identity + alpha * p.G, identity - alpha * p.G)  # the two factors commute
        distance = np.linalg.norm(C_A(x) - C_A(y) - (x - y) @ exact.T, axis=1) / apart
        yield (factors[0], factors[1] * (1 + alpha * p.m), factors[2] / max(bound, 1e-15), distance), str(p)


def affine_resolvent(seed: int, size: float) -> list[Verdict]:
    """Eq. A6: for A(x) = Gx + h the resolvent is (I + alpha G)^-1 (x - alpha h)."""

    def samples() -> Iterator[tuple[np.ndarray, str]]:
        for p in problems.ensemble(seed, problems.count(120, size)):
            rng = np.random.default_rng([p.seed, 8])
            alpha, x = 10 ** rng.uniform(-2, 2), rng.normal(size=p.z.shape)
            found = mon.forward_inclusion(p.W, p.b, p.activation).resolvent_A(alpha)(x)
            residual = found + alpha * (found @ p.G.T - p.b) - x
            yield np.linalg.norm(residual, axis=1) / ((1 + alpha) * (1 + np.linalg.norm(p.b, axis=1))), str(p)

    return [compare("MON-EqA6", "y + alpha A(y) - x at y = R_A(x), relative", largest(samples()), "<=", 1e-13)]


def forward_backward_a9(seed: int, size: float) -> list[Verdict]:
    """Eq. A9: forward-backward converges linearly for alpha < 2m/L^2, which suffices but is not necessary."""
    claim = "MON-EqA9"
    G = np.diag([1.0, 10.0])
    factor, step = columns(_forward_steps(seed, problems.count(120, size)))
    return [
        compare(claim, "alpha = 1.9 m/L^2: ||I - alpha G||", largest(factor), "<=", 1 - 1e-9),
        compare(claim, "one step: ||z+ - z*||/||z - z*|| over that factor", largest(step), "<=", 1, slack=1e-9),
        compare(
            claim,
            "not necessary: G = diag(1, 10), alpha = 0.19 > 0.02: factor",
            rates.forward_backward(G, 0.19),
            "<=",
            0.9,
            slack=1e-12,
        ),
    ]


def _forward_steps(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for p in problems.ensemble(seed, trials):
        alpha = 1.9 * p.m / p.lipschitz**2
        start = p.z + np.random.default_rng([p.seed, 9]).normal(size=p.z.shape)
        state = next(forward_backward(mon.forward_inclusion(p.W, p.b, p.activation), alpha, start))
        factor = rates.forward_backward(p.G, alpha)
        ratio = np.linalg.norm(state.z - p.z, axis=1) / np.linalg.norm(start - p.z, axis=1)
        yield (factor, ratio / factor), str(p)


def peaceman_rachford_a10(seed: int, size: float) -> list[Verdict]:
    """Eq. A10: Peaceman-Rachford converges linearly for every alpha, for A strongly monotone and Lipschitz."""
    claim = "MON-EqA10"
    factor, step = columns(_reflections(seed, problems.count(120, size)))
    u = 1.0
    for _ in range(1000):
        u = _normal_cone_cayley(u)  # B = 0: C_B = I
    return [
        compare(claim, "factor of C_A, alpha from 0.01 to 100", largest(factor), "<=", 1 - 1e-9),
        compare(claim, "one step: ||u+ - u*||/||u - u*|| over that factor", largest(step), "<=", 1, slack=1e-9),
        compare(
            claim,
            "A = N_{0} (strongly monotone, not Lipschitz), B = 0: |x_1000|, zero at 0",
            abs(u),
            "<=",
            1e-6,
            form=PRINTED,
        ),
        compare(
            claim, "m = 0, G = [[0, -1], [1, 0]]: ||u_1000 - u*||/||u_0 - u*||", _rotating(), "<=", 1e-6, form=DROPPED
        ),
    ]


def _reflections(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for p in problems.ensemble(seed, trials):
        rng = np.random.default_rng([p.seed, 10])
        alpha = 10 ** rng.uniform(-2, 2)
        target = p.auxiliary(alpha)
        start = target + rng.normal(size=target.shape)
        state = next(peaceman_rachford(mon.forward_inclusion(p.W, p.b, p.activation), alpha, start))
        factor = rates.peaceman_rachford(p.G, alpha)
        ratio = np.linalg.norm(state.u - target, axis=1) / np.linalg.norm(start - target, axis=1)
        yield (factor, ratio / max(factor, 1e-12)), f"alpha = {alpha:.3g}, {p}"


def _rotating() -> float:
    G, target = problems.rotation(0.0, 1.0), np.array([5.0, 5.0])
    b, V = G @ target, np.linalg.inv(np.eye(2) + G)
    u = target + np.array([1.0, 0.0])
    for _ in range(1000):
        half = 2 * activations.relu(u) - u
        u = 2 * V @ (half + b) - half
    return float(np.linalg.norm(u - target))


__all__ = [
    "affine_resolvent",
    "cayley",
    "forward_backward_a9",
    "peaceman_rachford_a10",
    "strong",
    "subdifferential",
]
