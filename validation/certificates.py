"""Certificates C1, C2, C3 and B1: computable bounds on the distance to a solution, never violated and attained."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from .. import activations, mon
from ..operators import MonotoneDense
from ..splitting import certificates, peaceman_rachford, rates
from . import adversary, oracles, problems
from .verdict import DROPPED, Verdict, columns, compare, largest

Ratios = Callable[[np.ndarray], tuple[float, float]]
BATCH = 16
OPERATORS = 160  # times BATCH problems for each of the four certificates: 10,240 in all


def ratio(error: np.ndarray, bound: np.ndarray) -> np.ndarray:
    """True error over bound, sample by sample; 1e-13 stands for rounding."""
    return np.linalg.norm(error, axis=1) / (bound + 1e-13)


def _points(seed: int, size: float) -> Iterator[tuple[problems.Problem, np.ndarray, float, np.random.Generator]]:
    """Problems with points at distances from 1e-6 to 10 from the solution's pre-activation, and a step."""
    for p in problems.ensemble(seed, problems.count(OPERATORS, size), batch=BATCH):
        rng = np.random.default_rng([p.seed, 13])
        away = 10 ** rng.uniform(-6, 1, (BATCH, 1)) * rng.normal(size=p.z.shape)
        yield p, away, 10 ** rng.uniform(-1, 1), rng


def scalar(m: float) -> tuple[MonotoneDense, np.ndarray, np.ndarray]:
    """n = 1, W = 1 - m, relu, z* = 5: every certificate is attained there."""
    return problems.interior(np.array([[m]]), m, 5.0)


def c1(seed: int, size: float) -> list[Verdict]:
    """C1: y = sigma(w), e = w - (Wy + b): ||y - z*|| <= ||e||/m, and a ball of half that radius."""
    claim = "NEW-cert-C1"
    own, raw, ball, ellipsoid = columns(_c1(seed, size))
    W, b, z = scalar(0.3)
    inclusion, w = mon.forward_inclusion(W, b, activations.relu), z + 0.5
    _, bound = certificates.distance(inclusion, 1.0, w)
    centre, radius = certificates.ball(inclusion, 1.0, w)
    return [
        compare(claim, "||y - z*|| over the certified distance", largest(own), "<=", 1, slack=1e-9),
        compare(claim, "||y - z*|| over ||e||/m, written out in NumPy", largest(raw), "<=", 1, slack=1e-9),
        compare(claim, "||y - e/(2m) - z*|| over ||e||/(2m)", largest(ball), "<=", 1, slack=1e-9),
        compare(
            claim,
            "n = 2, error over certified distance: ascent from the worst of a sample",
            adversary.climb(_c1_worst, adversary.PROBLEM + 2, seed, size),
            "<=",
            1,
            slack=1e-9,
        ),
        compare(claim, "d'Sd - e'd at d = y - z*, relative", largest(ellipsoid), "<=", 0, slack=1e-9),
        compare(claim, "n = 1, W = 0.7, relu: error over bound", 0.5 / bound[0], "==", 1, slack=1e-9),
        compare(claim, "...and for the ball", abs(centre - z)[0, 0] / radius[0], "==", 1, slack=1e-9),
        compare(
            claim, "without the division by m: ||y - z*|| over ||e||", 0.5 / (0.3 * bound[0]), "<=", 1, form=DROPPED
        ),
    ]


def _c1(seed: int, size: float) -> Iterator[tuple[tuple, str]]:
    for p, away, _, _ in _points(seed, size):
        name, w = repr(p.activation), p.pre + away
        inclusion = mon.forward_inclusion(p.W, p.b, p.activation)
        m = p.m + (3 if name == "sigmoid" else 0)
        y = oracles.sigma(name, w)
        e, d = w - (y @ p.matrix.T + p.b), y - p.z
        z, bound = certificates.distance(inclusion, 1.0, w)
        centre, radius = certificates.ball(inclusion, 1.0, w)
        S = (p.G + p.G.T) / 2
        inner = (np.sum(d @ S * d, axis=1) - np.sum(e * d, axis=1)) / (np.linalg.norm(e, axis=1) ** 2 / p.m + 1e-26)
        yield (
            (
                ratio(z - p.z, bound),
                ratio(d, np.linalg.norm(e, axis=1) / m),
                ratio(centre - p.z, radius),
                np.where(np.linalg.norm(e, axis=1) > 1e-5, inner, 0),
            ),
            str(p),
        )


def _c1_worst(v: np.ndarray) -> float:
    p = adversary.problem(v)
    y, bound = certificates.distance(mon.forward_inclusion(p.W, p.b, p.activation), 1.0, p.pre + v[None, -2:])
    return float(ratio(y - p.z, bound)[0])


def c2(seed: int, size: float) -> list[Verdict]:
    """C2, from z alone: r = z - R_B(z - alpha A z) bounds the distance of z and of z - r."""
    claim = "NEW-cert-C2"
    y_ratio, z_ratio = columns(_c2(seed, size))
    W, b, z = scalar(0.3)
    inclusion, alpha = mon.forward_inclusion(W, b, activations.relu), 0.8
    y, of_y, of_z = certificates.distance_from_state(inclusion, alpha, z + 0.5)
    return [
        compare(claim, "||z - r - z*|| over ||(I - alpha G) r||/(alpha m)", largest(y_ratio), "<=", 1, slack=1e-9),
        compare(
            claim,
            "||z - z*|| over (q + sqrt(q^2 - 4 alpha m ||r||^2))/(2 alpha m)",
            largest(z_ratio),
            "<=",
            1,
            slack=1e-9,
        ),
        *_climbed(claim, _c2_worst, 3, seed, size),
        compare(
            claim,
            "n = 1, W = 0.7, relu, alpha = 0.8: first, error over bound",
            abs(y - z)[0, 0] / of_y[0],
            "==",
            1,
            slack=1e-9,
        ),
        compare(claim, "...second", 0.5 / of_z[0], "==", 1, slack=1e-9),
    ]


def _c2(seed: int, size: float) -> Iterator[tuple[tuple, str]]:
    for p, away, alpha, _ in _points(seed, size):
        z = p.z + away
        y, of_y, of_z = certificates.distance_from_state(mon.forward_inclusion(p.W, p.b, p.activation), alpha, z)
        yield (ratio(y - p.z, of_y), ratio(z - p.z, of_z)), f"alpha = {alpha:.3g}, {p}"


def _climbed(claim: str, ratios: Ratios, extra: int, seed: int, size: float) -> list[Verdict]:
    """Each of two bounds by itself, for n = 2."""
    found = [adversary.climb(lambda v, i=i: ratios(v)[i], adversary.PROBLEM + extra, seed, size) for i in (0, 1)]
    names = "first", "second"
    return [
        compare(claim, f"n = 2, {name}: ascent from the worst of a sample", worst, "<=", 1, slack=1e-9)
        for name, worst in zip(names, found, strict=True)
    ]


def _c2_worst(v: np.ndarray) -> tuple[float, float]:
    p, alpha = adversary.problem(v), adversary.positive(v[-3])
    z, inclusion = p.z + v[None, -2:], mon.forward_inclusion(p.W, p.b, p.activation)
    y, of_y, of_z = certificates.distance_from_state(inclusion, alpha, z)
    return float(ratio(y - p.z, of_y)[0]), float(ratio(z - p.z, of_z)[0])


def c3(seed: int, size: float) -> list[Verdict]:
    """C3, after a Peaceman-Rachford step: e = Gz+ - b + (u+ - z+)/alpha; and from the last step's length."""
    claim = "NEW-cert-C3"
    own, raw, step = columns(_c3(seed, size))
    W, b, z = scalar(0.3)
    inclusion, alpha = mon.forward_inclusion(W, b, activations.relu), 0.8
    u = z + 0.5  # u* = z* because the equilibrium is interior
    state = next(peaceman_rachford(inclusion, alpha, u))
    _, bound = certificates.distance(inclusion, alpha, state.u)
    from_step = certificates.distance_from_step(rates.peaceman_rachford(np.array([[0.3]]), alpha), u, state.u)
    return [
        compare(claim, "||z+ - z*|| over the certified distance", largest(own), "<=", 1, slack=1e-9),
        compare(claim, "||z+ - z*|| over ||e||/m, written out in NumPy", largest(raw), "<=", 1, slack=1e-9),
        compare(claim, "||u+ - u*|| over rho/(1 - rho) ||u+ - u||", largest(step), "<=", 1, slack=1e-9),
        *_climbed(claim, _c3_worst, 3, seed, size),
        compare(
            claim, "n = 1, W = 0.7, relu: error over bound", abs(state.z - z)[0, 0] / bound[0], "==", 1, slack=1e-9
        ),
        compare(claim, "...and from the step", abs(state.u - z)[0, 0] / from_step[0], "==", 1, slack=1e-9),
    ]


def _c3(seed: int, size: float) -> Iterator[tuple[tuple, str]]:
    for p, away, alpha, _ in _points(seed, size):
        inclusion = mon.forward_inclusion(p.W, p.b, p.activation)
        target = p.auxiliary(alpha)
        state = next(peaceman_rachford(inclusion, alpha, target + away))
        _, bound = certificates.distance(inclusion, alpha, state.u)
        e = state.z @ p.G.T - p.b + (state.u - state.z) / alpha
        rho = rates.peaceman_rachford(p.G, alpha)
        step = certificates.distance_from_step(rho, target + away, state.u)
        yield (
            (
                ratio(state.z - p.z, bound),
                ratio(state.z - p.z, np.linalg.norm(e, axis=1) / p.m + 1e-12),
                ratio(state.u - target, step + 1e-12),
            ),
            f"alpha = {alpha:.3g}, {p}",
        )


def _c3_worst(v: np.ndarray) -> tuple[float, float]:
    p, alpha = adversary.problem(v), adversary.positive(v[-3])
    inclusion, target = mon.forward_inclusion(p.W, p.b, p.activation), p.auxiliary(alpha)
    u = target + v[None, -2:]
    state = next(peaceman_rachford(inclusion, alpha, u))
    step = certificates.distance_from_step(rates.peaceman_rachford(p.G, alpha), u, state.u)
    own = ratio(state.z - p.z, certificates.distance(inclusion, alpha, state.u)[1])
    return float(own[0]), float(ratio(state.u - target, step + 1e-12)[0])


def b1(seed: int, size: float) -> list[Verdict]:
    """B1, backward: e = q - v - W'Jq: ||Jq - u-tilde|| <= ||e||/m and ||q - u*|| <= (1 + ||W||/m)||e||."""
    claim = "NEW-cert-B1"
    own, raw, state = columns(_b1(seed, size))
    W, v, jac = MonotoneDense.from_weight(np.array([[0.7]]), 0.3), np.ones((1, 1)), np.ones((1, 1))
    inclusion, truth = mon.backward_inclusion(W, jac, v), 1 / 0.3
    q = np.array([[2.0]])
    _, bound = certificates.distance(inclusion, 1.0, q - v)
    second = certificates.adjoint_state_bound(inclusion, 0.7, q)
    return [
        compare(claim, "||Jq - u-tilde|| over the certified distance", largest(own), "<=", 1, slack=1e-9),
        compare(claim, "||Jq - u-tilde|| over ||e||/m, written out in NumPy", largest(raw), "<=", 1, slack=1e-9),
        compare(claim, "||q - u*|| over (1 + ||W||/m)||e||", largest(state), "<=", 1, slack=1e-9),
        *_climbed(claim, _b1_worst, 6, seed, size),
        compare(claim, "n = 1, W = 0.7, J = 1: first, error over bound", (truth - 2) / bound[0], "==", 1, slack=1e-9),
        compare(claim, "...second", (truth - 2) / second[0], "==", 1, slack=1e-9),
    ]


def _b1(seed: int, size: float) -> Iterator[tuple[tuple, str]]:
    for p, away, _, rng in _points(seed, size):
        jac = np.clip(rng.uniform(-0.5, 1.5, p.z.shape), 0, 1)
        v = rng.normal(size=p.z.shape)
        u_star = np.stack([oracles.adjoint(p.matrix, j, row) for j, row in zip(jac, v, strict=True)])
        inclusion, q = mon.backward_inclusion(p.W, jac, v), u_star + away
        found, bound = certificates.distance(inclusion, 1.0, q - v)
        e = q - v - (jac * q) @ p.matrix
        second = certificates.adjoint_state_bound(inclusion, float(np.linalg.norm(p.matrix, 2)), q)
        yield (
            (
                ratio(found - jac * u_star, bound),
                ratio(jac * (q - u_star), np.linalg.norm(e, axis=1) / p.m + 1e-12),
                ratio(q - u_star, second + 1e-12),
            ),
            str(p),
        )


def _b1_worst(v: np.ndarray) -> tuple[float, float]:
    p, jac, dz, away = adversary.problem(v), (1 + np.tanh(v[None, -6:-4])) / 2, v[None, -4:-2], v[None, -2:]
    u_star = oracles.adjoint(p.matrix, jac[0], dz[0])[None]
    inclusion, q = mon.backward_inclusion(p.W, jac, dz), u_star + away
    found, bound = certificates.distance(inclusion, 1.0, q - dz)
    second = certificates.adjoint_state_bound(inclusion, float(np.linalg.norm(p.matrix, 2)), q)
    return float(ratio(found - jac * u_star, bound)[0]), float(ratio(away, second + 1e-12)[0])


__all__ = ["b1", "c1", "c2", "c3"]
