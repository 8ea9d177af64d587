"""GREEDY sections I and II: CONE maps, Perron eigenvalues, Theorem 1, the infinity-norm ball, the model's gradients."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import scipy.optimize

from .. import activations, well_posed
from ..networks import ImplicitModel
from . import oracles, problems
from .verdict import DROPPED, PRINTED, Extreme, Verdict, columns, compare, largest

Map = Callable[[np.ndarray], np.ndarray]
RADII = (0.0, 0.3, 0.9, 0.99)  # Perron eigenvalues
CYCLE = np.array([[0.0, 1.0], [1.0, 0.0]])


def matrix(rng: np.random.Generator, n: int, rho: float) -> np.ndarray:
    """Entries of both signs, some zero, Perron eigenvalue rho."""
    A = rng.normal(size=(n, n)) * (rng.uniform(size=(n, n)) < 0.8)
    return np.asarray(A * (rho / max(_rho(A), 0.1)))


def _rho(A: np.ndarray) -> float:
    return float(np.abs(np.linalg.eigvals(np.abs(A))).max())


def cone(seed: int, size: float) -> list[Verdict]:
    """Definition 2 and Assumption 1: which activations are CONE maps."""
    claim, steep, softmax = "GREEDY-Def2", _leaky(1.01), _softmax
    return [
        compare(claim, "largest |phi_i(x) - phi_i(y)|/|x_i - y_i|, nine activations", _cone(seed, size), "<=", 1),
        compare(claim, "...of relu", _ratio(activations.relu, seed, size), "==", 1, slack=1e-9),
        compare(claim, "...of a leaky relu of slope 1.01", _ratio(steep, seed, size), "<=", 1, form=DROPPED),
        compare(
            claim, "...of softmax, whose entries see each other", _ratio(softmax, seed, size), "<=", 1, form=DROPPED
        ),
    ]


def _leaky(slope: float) -> Map:
    return lambda x: np.where(x > 0, x, slope * x)


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def _cone(seed: int, size: float) -> Extreme:
    return largest(
        (_ratio(activation, seed, size), f"{activation!r}, seed {seed}") for activation in problems.ACTIVATIONS
    )


def _ratio(phi: Map, seed: int, size: float) -> float:
    rng = np.random.default_rng(seed)
    x = 3 * rng.normal(size=(problems.count(4000, size), 4))
    y = x + 10 ** rng.uniform(-14, 1, (len(x), 1)) * rng.normal(size=x.shape)
    y[::2, 0] = x[::2, 0]
    return well_posed.cone_ratio(phi, x, y)


def perron(seed: int, size: float) -> list[Verdict]:
    """The Perron eigenvalue of |A|: an eigenvalue, and at least the modulus of every other."""
    claim = "GREEDY-SecI-perron"
    below, above, width, eigen = columns(_perron(seed, problems.count(300, size)))
    others = np.sort(np.abs(np.linalg.eigvals(CYCLE)))
    return [
        compare(
            claim, "[[0, 1], [1, 0]]: its modulus less the other's", others[1] - others[0], ">=", 1e-9, form=PRINTED
        ),
        compare(
            claim, "largest modulus of an eigenvalue of |A| less the upper end", largest(below), "<=", 0, slack=1e-12
        ),
        compare(claim, "...lower end less the largest modulus", largest(above), "<=", 0, slack=1e-12),
        compare(claim, "width of the interval over its upper end", largest(width), "<=", 1e-13),
        compare(claim, "smallest singular value of |A| - perron(A) I", largest(eigen), "<=", 1e-12),
    ]


def _perron(seed: int, trials: int) -> Iterator[tuple[tuple[float, ...], str]]:
    for k in range(trials):
        rng = np.random.default_rng(seed + k)
        n = 2 + k % 9
        A = rng.normal(size=(n, n)) * (rng.uniform(size=(n, n)) < 0.9)
        A[0], A[:, 0] = A[0] + 0.1, A[:, 0] + 0.1  # irreducible
        low, high = well_posed.perron_interval(A)
        spectral, gap = _rho(A), np.abs(A) - high * np.eye(n)
        singular = float(np.linalg.svd(gap, compute_uv=False)[-1])
        yield (spectral - high, low - spectral, (high - low) / high, singular), f"n = {n}, seed {seed + k}"


def norm(seed: int, size: float) -> list[Verdict]:
    """The Perron eigenvalue and the infinity norm; convexity of the two sets."""
    claim = "GREEDY-SecII-norm"
    one = np.array([[0.0, 4.0], [0.0, 0.0]])
    room = [(well_posed.norm_inf(A) - well_posed.perron(A), str(A.tolist())) for A in (np.eye(1) / 2, 0 * one)]
    over, middle, signs = columns(_norms(seed, problems.count(400, size)))
    return [
        *(compare(claim, f"||A||_inf - perron(A), A = {where}", gap, ">=", 1e-9, form=PRINTED) for gap, where in room),
        compare(claim, "||A||_inf less the largest |(A s)_i| over signs s", largest(signs), "<=", 0, slack=1e-13),
        compare(claim, "perron(A) over ||A||_inf", largest(over), "<=", 1, slack=1e-13),
        compare(claim, "[[0, 4], [0, 0]]: perron", well_posed.perron(one), "==", 0),
        compare(claim, "...and its transpose", well_posed.perron(one.T), "==", 0),
        compare(
            claim,
            "...of their midpoint: A_PF is not convex",
            well_posed.perron((one + one.T) / 2),
            "==",
            2,
            slack=1e-13,
        ),
        compare(
            claim, "norm of a midpoint of two matrices of norm .99: A_inf is", largest(middle), "<=", 0.99, slack=1e-13
        ),
    ]


def _norms(seed: int, trials: int) -> Iterator[tuple[tuple[float, ...], str]]:
    for k in range(trials):
        rng = np.random.default_rng(seed + k)
        n = 1 + k % 7
        A, E = (M * 0.99 / well_posed.norm_inf(M) for M in rng.normal(size=(2, n, n)))
        signs = np.array(list(itertools.product([-1, 1], repeat=n)))
        norm, middle = well_posed.norm_inf(A), well_posed.norm_inf((A + E) / 2)
        yield (well_posed.perron(A) / norm, middle, abs(norm - np.abs(signs @ A.T).max())), f"n = {n}, seed {seed + k}"


def restriction(seed: int, size: float) -> list[Verdict]:
    """The constraint ``||A||_inf < 1``: is it a relaxation of ``perron(A) < 1``?"""
    claim = "GREEDY-SecII-relaxation"
    trials, upper = problems.count(300, size), np.array([[0.0, 5.0], [0.0, 0.0]])
    inside = ((well_posed.perron(A), where) for A, where in _in_the_ball(seed, trials))
    rim = well_posed.norm_inf(well_posed.project(3 * CYCLE, 0.95))
    return [
        compare(claim, "[[0, 5], [0, 0]]: ||A||_inf", well_posed.norm_inf(upper), "<=", 1, form=PRINTED),
        compare(claim, "...though perron", well_posed.perron(upper), "==", 0),
        compare(claim, "perron(A) of projected matrices, radius .95", largest(inside), "<=", 0.95, slack=1e-13),
        compare(claim, "||A||_inf of a projected matrix that was outside", rim, "==", 0.95, slack=1e-14),
    ]


def _in_the_ball(seed: int, trials: int) -> Iterator[tuple[np.ndarray, str]]:
    for k in range(trials):
        n = 1 + k % 9
        yield well_posed.project(np.random.default_rng(seed + k).normal(size=(n, n)), 0.95), f"n = {n}, seed {seed + k}"


def theorem_1(seed: int, size: float) -> list[Verdict]:
    """Theorem 1: one solution, to which Picard's iteration converges from any start, entry by entry like |A|^t."""
    claim = "GREEDY-Thm1"
    solved, steps = columns(_theorem_1(seed, problems.count(144, size)))
    x = np.array([[0.0]])
    states = [float(s[0, 0]) for s in itertools.islice(well_posed.picard(-2 + x, 1 + x, activations.relu, x), 1000)]
    return [
        compare(claim, "||x - x*||_inf of Picard's answer, asked for 1e-10", largest(solved), "<=", 1.001e-10),
        compare(claim, "|x(t) - x*| less |A|^t |x(0) - x*|, five steps", largest(steps), "<=", 0, slack=1e-9),
        compare(
            claim,
            "A = -2, relu: well-posed, |x(1000) - x(999)| of Picard",
            abs(states[-1] - states[-2]),
            "<=",
            1e-6,
            form=DROPPED,
            worst=f"it runs {states[0]:g}, {states[1]:g}, {states[2]:g}, ...; x* = 1/3",
        ),
    ]


def _theorem_1(seed: int, trials: int) -> Iterator[tuple[tuple[np.ndarray, ...], str]]:
    for k in range(trials):
        rng, activation = np.random.default_rng(seed + k), problems.ACTIVATIONS[k % len(problems.ACTIVATIONS)]
        n, rho = 1 + k % 6, RADII[(k // len(problems.ACTIVATIONS)) % len(RADII)]
        A, pre = matrix(rng, n, rho), problems.preactivations(rng, repr(activation), (3, n), True)
        exact = oracles.sigma(repr(activation), pre)
        b, away = pre - exact @ A.T, 10 ** rng.uniform(-6, 1, (3, 1)) * rng.normal(size=(3, n))
        found = well_posed.solve(A, b, activation, tol=1e-10, start=100 * away, max_iter=10_000)
        error, over = np.abs(away), []
        for x in itertools.islice(well_posed.picard(A, b, activation, exact + away), 5):
            error = error @ np.abs(A).T
            over.append((np.abs(x - exact) - error) / (1 + error))
        where = f"{activation!r}, n = {n}, perron {rho}, seed {seed + k}"
        yield (np.abs(found.z - exact) - 1e-13 / (1 - rho), np.stack(over)), where


def no_feedthrough(seed: int, size: float) -> list[Verdict]:
    """Assumption 2: is a relu model with D = 0 and no constant input a universal approximator?"""
    claim, trials = "GREEDY-Asm2", problems.count(100, size)
    at_zero, homogeneous = columns(_homogeneous(seed, trials))
    return [
        compare(
            claim,
            "distance of yhat(0) from the function 1, the nearest of all",
            1 - largest(at_zero).value,
            "<=",
            0.5,
            form=PRINTED,
        ),
        compare(claim, "|yhat(t u) - t yhat(u)|/t, relu", largest(homogeneous), "<=", 1e-9),
        compare(claim, "inputs augmented by 1: 40 samples of a function interpolated", _interpolated(seed), "<=", 1e-9),
    ]


def _homogeneous(seed: int, trials: int) -> Iterator[tuple[tuple[float, float], str]]:
    for k in range(trials):
        rng, n = np.random.default_rng(seed + k), 1 + k % 6
        model = ImplicitModel(matrix(rng, n, 0.9), *(rng.normal(size=shape) for shape in ((n, 1), (1, n))))
        u, t = rng.normal(size=(4, 1)), 10 ** rng.uniform(-2, 2)
        y = model.predict(np.vstack([u, 0 * u]), tol=1e-11)
        scaled = model.predict(t * u, tol=1e-11 * t)
        yield (float(np.abs(y[4:]).max()), float(np.abs(scaled / t - y[:4]).max())), f"n = {n}, seed {seed + k}"


def _interpolated(seed: int) -> float:
    # one hinge relu(u - u_i) a sample, left of it: a triangular system for C
    rng = np.random.default_rng(seed)
    u = np.linspace(-5, 5, 40)
    y, knots = rng.uniform(-1, 1, 40), np.concatenate([[-6.0], u[:-1]])
    B = np.stack([np.ones(40), -knots], axis=1)
    hinges = np.maximum(u[:, None] - knots, 0)
    model = ImplicitModel(np.zeros((40, 40)), B, np.linalg.solve(hinges, y)[None])
    return float(np.abs(model.predict(np.stack([u, np.ones(40)], axis=1))[:, 0] - y).max())


def gradients(seed: int, size: float) -> list[Verdict]:
    """The gradient of (4): one more fixed-point equation, in the transposed matrix."""
    claim = "GREEDY-Eq4"
    differenced, dense, descent = columns(_gradients(seed, problems.count(54, size)))
    return [
        compare(claim, "A, B, C, D against central differences, relative", largest(differenced), "<=", 1e-7),
        compare(claim, "adjoint state against J (I - A'J)^-1 g, dense, relative", largest(dense), "<=", 1e-11),
        compare(
            claim, "increase of the loss in a projected step of length 1e-4", largest(descent), "<=", 0, slack=1e-10
        ),
    ]


def _gradients(seed: int, trials: int) -> Iterator[tuple[tuple[np.ndarray, ...], str]]:
    for k in range(trials):
        rng, activation = np.random.default_rng(seed + k), problems.ACTIVATIONS[k % len(problems.ACTIVATIONS)]
        n, d, q = 1 + k % 4, 2, 2
        A, pre = (
            well_posed.project(rng.normal(size=(n, n)), 0.9),
            problems.preactivations(rng, repr(activation), (2, n), False),
        )
        z, x, target = oracles.sigma(repr(activation), pre), np.eye(2), rng.normal(size=(2, q))
        params = {"A": A, "B": (pre - z @ A.T).T, "C": rng.normal(size=(q, n)), "D": rng.normal(size=(q, d))}
        model = ImplicitModel(**params, activation=activation, radius=0.9)
        found = model.gradients(x, target, tol=1e-12)
        slopes = oracles.slope(repr(activation), found.forward.z @ A.T + x @ params["B"].T)
        g = found.prediction - target
        dense = [j * np.linalg.solve(np.eye(n) - A.T * j, v @ model.C / 2) for j, v in zip(slopes, g, strict=True)]
        moved = model.replace(**model.projected({name: p - 1e-4 * found.grads[name] for name, p in params.items()}))
        descent = moved.gradients(x, target, tol=1e-11).loss - found.loss
        yield (
            (
                _differenced(model, x, target, pre, found.grads),
                np.abs(found.backward.z - dense) / (1 + np.abs(dense).max()),
                np.asarray(descent),
            ),
            f"{activation!r}, n = {n}, seed {seed + k}",
        )


def _differenced(
    model: ImplicitModel, x: np.ndarray, target: np.ndarray, pre: np.ndarray, grads: dict[str, np.ndarray]
) -> np.ndarray:
    def loss(name: str, value: np.ndarray) -> float:
        p = {**model.params, name: value}
        z = [
            oracles.equilibrium(repr(model.activation), p["A"], u @ p["B"].T, at) for u, at in zip(x, pre, strict=True)
        ]
        y = oracles.sigma(repr(model.activation), np.stack(z)) @ p["C"].T + x @ p["D"].T
        return float(((y - target) ** 2).sum() / 2 / len(x))

    errors = []
    for name, gradient in grads.items():
        desired = oracles.central_difference(lambda v, name=name: loss(name, v), model.params[name])  # type: ignore[misc]
        errors.append(np.abs(gradient - desired).max() / (1 + np.abs(desired).max()))
    return np.array(errors)


def projection(seed: int, size: float) -> list[Verdict]:
    """Remark 4: the projection on the ball, and what it costs."""
    claim = "GREEDY-Rem4"
    gap, bisection, again, firm = columns(_projections(seed, problems.count(300, size)))
    programmes = _programmes(seed, problems.count(20, size))
    small, large = (_halvings(seed, n) for n in (4, 256))
    return [
        compare(
            claim,
            "O(n^3) for n^2 a halving: halvings at n = 256 over those at n = 4",
            large / small,
            ">=",
            64,
            form=PRINTED,
            worst=f"{large} and {small}",
        ),
        compare(claim, "variational inequality: <A - P, Y - P> over the ball", largest(gap), "<=", 1e-12),
        compare(claim, "row by row a quadratic programme (SLSQP)", largest(programmes), "<=", 1e-10),
        compare(claim, "sorting against bisection", largest(bisection), "<=", 1e-13),
        compare(claim, "P(P(A)) - P(A)", largest(again), "<=", 1e-13),
        compare(claim, "||P(A) - P(E)||^2 - <P(A) - P(E), A - E>", largest(firm), "<=", 0, slack=1e-12),
    ]


def _projections(seed: int, trials: int) -> Iterator[tuple[tuple[float, ...], str]]:
    for k in range(trials):
        rng, n = np.random.default_rng(seed + k), 1 + k % 12
        radius = 10 ** rng.uniform(-1, 1)
        A, E = rng.normal(size=(2, n, n))
        A[rng.uniform(size=(n, n)) < 0.2] = 1.0  # ties
        p, q = well_posed.project(A, radius), well_posed.project(E, radius)
        outside = max(well_posed.norm_inf(p) - radius, 0.0)
        gap = (radius * np.abs(A - p).max(axis=1) - ((A - p) * p).sum(axis=1)).max() + outside
        bisection = np.abs(well_posed.project_by_bisection(A, radius) - p).max()
        again = np.abs(well_posed.project(p, radius) - p).max()
        firm = ((p - q) ** 2).sum() - ((p - q) * (A - E)).sum()
        yield (gap / (1 + radius), bisection, again, firm), f"n = {n}, radius {radius:.3g}, seed {seed + k}"


def _programmes(seed: int, trials: int) -> Iterator[tuple[np.ndarray, str]]:
    for k in range(trials):
        rng, n = np.random.default_rng(seed + k), 1 + k % 4
        A = rng.normal(size=(n, n))
        desired = np.stack([_nearest(a) for a in A])
        yield np.abs(well_posed.project(A, 1.0) - desired), f"n = {n}, seed {seed + k}"


def _nearest(a: np.ndarray) -> np.ndarray:
    signs = np.where(a < 0, -1.0, 1.0)  # the solution has the signs of a
    found = scipy.optimize.minimize(
        lambda v: ((v - abs(a)) ** 2).sum() / 2,
        np.zeros(len(a)),
        jac=lambda v: v - abs(a),
        bounds=[(0, None)] * len(a),
        constraints={"type": "ineq", "fun": lambda v: 1 - v.sum(), "jac": lambda v: -np.ones(len(a))},
        method="SLSQP",
        options={"ftol": 1e-16},
    )
    return np.asarray(signs * found.x)


def _halvings(seed: int, n: int) -> int:
    """How many halvings a bisection of tau takes to 1e-12 for all rows of a random matrix."""
    magnitude = np.abs(np.random.default_rng(seed).normal(size=(n, n)))
    low, high = np.zeros(n), magnitude.max(axis=1)
    for halvings in itertools.count():
        if (high - low).max() <= 1e-12:
            return halvings
        tau = (low + high) / 2
        long = np.clip(magnitude - tau[:, None], 0, None).sum(axis=1) > 0.95
        low, high = np.where(long, tau, low), np.where(long, high, tau)
    raise AssertionError("unreachable")


__all__ = [
    "cone",
    "gradients",
    "no_feedthrough",
    "norm",
    "perron",
    "projection",
    "restriction",
    "theorem_1",
]
