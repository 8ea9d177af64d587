"""MON Theorems 2 and 3 and the equations between them: derivatives through the equilibrium."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.optimize
import scipy.sparse.linalg

from .. import activations, mon
from ..splitting import certificates, solve
from . import oracles, printed, problems
from .algorithms import adjoint_problems
from .verdict import DROPPED, PRINTED, Verdict, columns, compare, largest


def relative(found: np.ndarray, truth: np.ndarray, floor: float = 1e-6) -> float:
    """Largest difference over the largest entry of the truth; over `floor` where all of them are smaller."""
    return float(abs(found - truth).max() / max(abs(truth).max(), floor))


def chain_rule(seed: int, size: float) -> list[Verdict]:
    """Eqs. 10, 13, 14: dz*/d(.) from differentiating the fixed-point equation, where sigma is differentiable."""
    whole, implicit = columns(_jacobians(seed, problems.count(54, size)))
    return [
        compare("MON-Eq10", "(14): (I - JW)^-1 J against central differences of z*", largest(whole), "<=", 1e-7),
        compare("MON-Eq10", "(13): dz* = J (W dz* + db), residual of the differences", largest(implicit), "<=", 1e-7),
    ]


def _jacobians(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    h = 1e-6
    for p in problems.ensemble(seed, trials, batch=1, kinks=False):
        name, b, pre = repr(p.activation), p.b[0], p.pre[0]
        columns_ = []
        for e in h * np.eye(len(b)):
            ends = [oracles.sigma(name, oracles.equilibrium(name, p.matrix, b + s * e, pre)) for s in (1, -1)]
            columns_.append((ends[0] - ends[1]) / (2 * h))
        measured, jac = np.stack(columns_, axis=1), p.activation.derivative(pre)
        through = jac[:, None] * (p.matrix @ measured + np.eye(len(b)))
        whole = mon.implicit_matrix(p.matrix, jac)
        yield (relative(whole, measured, 1e-2), relative(through, measured, 1e-2)), str(p)


def theorem_2(seed: int, size: float) -> list[Verdict]:
    """Theorem 2: gradients of every parameter; what (11) gives at a kink."""
    claim = "MON-Thm2"
    dense, differences = columns(_gradients(seed, problems.count(54, size)))
    at_zero, at_one = kink_example()
    return [
        compare(claim, "gradients of A, B, U, m, b against the dense formula (11)", largest(dense), "<=", 1e-10),
        compare(claim, "gradients of A, B, m, b against central differences", largest(differences), "<=", 1e-7),
        compare(
            claim,
            "at kinks (I - JW)^-1 J is in the hull of the vertex Jacobians, so a Clarke element in b: distance",
            largest(_hull(seed, problems.count(60, size))),
            "<=",
            1e-8,
        ),
        compare(
            claim,
            "at a kink (11) is a subgradient in x: W = 0, U = (1, -1)', x = 0, l = z1 - z2 = x; (11) with J = 0",
            at_zero,
            "==",
            1,
            form=PRINTED,
        ),
        compare(claim, "the same with J = I", at_one, "==", 1, form=PRINTED),
    ]


def _gradients(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for p in problems.ensemble(seed, trials, batch=2, kinks=False):
        rng = np.random.default_rng([p.seed, 4])
        c, x = rng.normal(size=p.z.shape), rng.normal(size=(2, 3))
        found, _ = mon.equilibrium_vjp(p.W, p.b, p.activation, p.z, c, tol=p.finest, max_iter=50000)
        jac = oracles.slope(repr(p.activation), p.pre)
        dpre = np.stack([oracles.adjoint(p.matrix, j, v) * j for j, v in zip(jac, c, strict=True)])
        H, A = dpre.T @ p.z, np.asarray(p.W.A)
        dense = {"A": -A @ (H + H.T), "B": H - H.T, "injection": dpre, "m": np.array(-np.sum(dpre * p.z))}
        errors = [relative(found[key], dense[key], 0.1) for key in dense]
        errors.append(relative(found["injection"].T @ x, dpre.T @ x, 0.1))  # U
        yield (max(errors), max(_differences(p, c, found))), str(p)


def _differences(p: problems.Problem, c: np.ndarray, found: dict) -> Iterator[float]:
    name, A, B, m = repr(p.activation), np.asarray(p.W.A), np.asarray(p.W.B), np.array(p.W.m)

    def loss(A: np.ndarray, B: np.ndarray, m: np.ndarray, b: np.ndarray) -> float:
        W = (1 - m) * np.eye(len(A)) - A.T @ A + B - B.T
        z = [oracles.sigma(name, oracles.equilibrium(name, W, row, pre)) for row, pre in zip(b, p.pre, strict=True)]
        return float(np.sum(c * np.stack(z)))

    def difference(found: np.ndarray, truth: np.ndarray) -> float:
        return relative(found, truth, 1e-2)  # absolute for gradients near 0, which differences cannot resolve

    yield difference(found["A"], oracles.central_difference(lambda A: loss(A, B, m, p.b), A))
    yield difference(found["B"], oracles.central_difference(lambda B: loss(A, B, m, p.b), B))
    yield difference(np.asarray(found["m"]), oracles.central_difference(lambda m: loss(A, B, m, p.b), m))
    yield difference(found["injection"], oracles.central_difference(lambda b: loss(A, B, m, b), p.b))


def _hull(seed: int, trials: int) -> Iterator[tuple[float, str]]:
    for k in range(trials):
        rng = np.random.default_rng(seed + k)
        n = 2 + k % 2
        W = np.eye(n) - problems.gap(rng, n, 0.3)
        corners = np.stack(np.meshgrid(*[[0.0, 1.0]] * n), axis=-1).reshape(-1, n)
        vertices = np.stack([mon.implicit_matrix(W, jac).ravel() for jac in corners], axis=1)
        target = mon.implicit_matrix(W, rng.uniform(size=n)).ravel()
        # smallest t with |vertices weights - target| <= t, weights a convex combination
        ones = np.ones((len(target), 1))
        found = scipy.optimize.linprog(
            [*np.zeros(len(corners)), 1],
            A_ub=np.block([[vertices, -ones], [-vertices, -ones]]),
            b_ub=np.concatenate([target, -target]),
            A_eq=[[*np.ones(len(corners)), 0]],
            b_eq=[1],
        )
        yield (found.fun if found.success else np.inf), f"n = {n}, seed {seed + k}"


def kink_example() -> tuple[float, float]:
    """(11) for l = z1 - z2 = x at x = 0 with J = 0 and with J = I: 0 and 2, where the gradient is 1."""
    W, U, v = np.zeros((2, 2)), np.array([1.0, -1.0]), np.array([1.0, -1.0])
    return tuple(float(v @ mon.implicit_matrix(W, np.full(2, j)) @ U) for j in (0.0, 1.0))  # type: ignore[return-value]


def spectrum(seed: int, size: float) -> list[Verdict]:
    """Eq. 15: I - JW and I - J^1/2 W J^1/2 have one characteristic polynomial, also where J is singular."""

    def samples() -> Iterator[tuple[float, str]]:
        for p, jac, _ in adjoint_problems(seed, problems.count(300, size)):
            left = np.poly(np.eye(len(p.matrix)) - jac[0][:, None] * p.matrix)
            root = np.sqrt(jac[0])
            right = np.poly(np.eye(len(p.matrix)) - root[:, None] * p.matrix * root)
            yield abs(left - right).max() / abs(left).max(), str(p)

    return [compare("MON-Eq15", "coefficients, relative; J with zeros", largest(samples()), "<=", 1e-12)]


def positive(seed: int, size: float) -> list[Verdict]:
    """Eq. 16, sharper: Re lambda(I - JW) >= min_i (1 - (1 - m) J_ii)."""
    below = np.linalg.eigvals(np.eye(1) - 0.5 * np.array([[2.0]])).real[0]
    return [
        compare(
            "MON-Eq16",
            "min_i(1 - (1 - m) J_ii) - min Re lambda",
            largest(_real_parts(seed, size)),
            "<=",
            0,
            slack=1e-12,
        ),
        compare("MON-Eq16", "attained: n = 1, J = 1, W = 1 - m, m = 0.3", _scalar(0.3), "==", 0.3, slack=1e-12),
        compare("MON-Eq16", "m = -1, n = 1, W = 2, J = 1/2: Re lambda > 0", below, ">=", 1e-12, form=DROPPED),
    ]


def _scalar(m: float) -> float:
    return float(np.linalg.eigvals(np.eye(1) - np.ones((1, 1)) * (1 - m)).real[0])


def _real_parts(seed: int, size: float) -> Iterator[tuple[float, str]]:
    for p, jac, _ in adjoint_problems(seed, problems.count(300, size)):
        values = np.linalg.eigvals(np.eye(len(p.matrix)) - jac[0][:, None] * p.matrix)
        yield np.min(1 - (1 - p.m) * jac[0]) - values.real.min(), str(p)


def linear_system(seed: int, size: float) -> list[Verdict]:
    """Eq. 17: the backward pass solves (I - JW)' u = dl/dz*."""

    def samples() -> Iterator[tuple[float, str]]:
        for p, jac, v, dpre in _solved(seed, problems.count(90, size)):
            u = mon.adjoint_state(p.W, dpre, v)
            residual = u - (jac * u) @ p.matrix - v
            yield np.linalg.norm(residual, axis=1) / np.linalg.norm(v, axis=1), str(p)

    return [compare("MON-Eq17", "||(I - JW)'u - v||/||v||", largest(samples()), "<=", 1e-9)]


def _solved(seed: int, trials: int, smallest: float = 0.0) -> Iterator:
    for p, jac, v in adjoint_problems(seed, trials, smallest):
        inclusion = mon.backward_inclusion(p.W, jac, v)
        yield p, jac, v, solve(inclusion, np.zeros_like(v), alpha=1 / p.lipschitz, tol=p.finest, max_iter=50000).z


def conjugate_gradient(seed: int, size: float) -> list[Verdict]:
    """Section 3.5 names conjugate gradients for (17), whose matrix is not symmetric."""
    claim = "MON-Sec3.5-cg"
    M, v = problems.rotation(1.0, 2.0), np.array([1.0, 0.0])
    u = printed.conjugate_gradient(M, v, 20)
    p, jac, v30 = _thirty(seed)
    matrix = (np.eye(30) - jac[:, None] * p.matrix).T
    normal = printed.conjugate_gradient(matrix.T @ matrix, matrix.T @ v30, 120)
    gmres, _ = scipy.sparse.linalg.gmres(matrix, v30, rtol=1e-12, restart=30)
    inclusion = mon.backward_inclusion(p.W, jac[None], v30[None])
    dpre = solve(inclusion, np.zeros((1, 30)), alpha=1 / p.lipschitz, tol=1e-10, max_iter=20000).z
    split = mon.adjoint_state(p.W, dpre, v30[None])[0]
    scale = np.linalg.norm(v30)
    residuals = [np.linalg.norm(matrix @ u - v30) / scale for u in (normal, gmres, split)]
    return [
        compare(
            claim,
            "n = 2, W = [[0, 2], [-2, 0]], J = I: ||residual|| after 20 steps of CG",
            np.linalg.norm(M @ u - v),
            "<=",
            1e-6,
            form=PRINTED,
        ),
        compare(claim, "n = 30, CG on the normal equations: relative residual", residuals[0], "<=", 1e-8, worst=str(p)),
        compare(claim, "n = 30, GMRES: relative residual", residuals[1], "<=", 1e-10, worst=str(p)),
        compare(claim, "n = 30, Peaceman-Rachford on (20): relative residual", residuals[2], "<=", 1e-8, worst=str(p)),
    ]


def _thirty(seed: int) -> tuple[problems.Problem, np.ndarray, np.ndarray]:
    p = problems.draw(seed, activations.tanh, 0.5, n=30, batch=1)
    rng = np.random.default_rng([seed, 5])
    return p, np.clip(rng.uniform(-0.5, 1.5, 30), 0, 1), rng.normal(size=30)


def theorem_3(seed: int, size: float) -> list[Verdict]:
    """Theorem 3: u* = v + W' u-tilde with u-tilde the zero of (20); W may be singular, J may have zeros."""
    claim = "MON-Thm3"
    state, zero, dead = columns(_theorem_3(seed, problems.count(180, size)))
    return [
        compare(claim, "||v + W' u-tilde - (I - JW)^-T v||, relative", largest(state), "<=", 1e-9),
        compare(claim, "u-tilde = J u* is a fixed point of the splitting, any alpha", largest(zero), "<=", 1e-12),
        compare(claim, "u-tilde_i where J_ii = 0", largest(dead), "==", 0),
    ]


def _theorem_3(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for p, jac, v, dpre in _solved(seed, trials):
        truth = np.stack([oracles.adjoint(p.matrix, j, row) for j, row in zip(jac, v, strict=True)])
        inclusion = mon.backward_inclusion(p.W, jac, v)
        zero, alpha = jac * truth, 0.7
        step = zero - inclusion.B.prox(zero - alpha * inclusion.A(zero), alpha)
        error = np.linalg.norm(mon.adjoint_state(p.W, dpre, v) - truth, axis=1) / np.linalg.norm(truth, axis=1)
        yield (error, np.linalg.norm(step, axis=1) / np.linalg.norm(truth, axis=1), abs(dpre[jac == 0])), str(p)


def equation_21(seed: int, size: float) -> list[Verdict]:
    """Eq. 21: with W nonsingular and J > 0, W^-T u solves (20) with the right side (I + D) W^-T v."""

    def samples() -> Iterator[tuple[float, str]]:
        for k in range(problems.count(100, size)):
            rng = np.random.default_rng(seed + k)
            W = np.eye(4) - problems.gap(rng, 4, 2.0)  # eigenvalues of W have real part <= -1
            jac, v = rng.uniform(0.1, 1, 4), rng.normal(size=4)
            tilde = np.linalg.solve(W.T, oracles.adjoint(W, jac, v))
            right = np.linalg.solve(W.T, v) / jac
            yield relative(tilde - W.T @ tilde + (1 / jac - 1) * tilde, right), f"n = 4, seed {seed + k}"

    return [compare("MON-Eq21", "last line of (21), relative", largest(samples()), "<=", 1e-11)]


def equation_22(seed: int, size: float) -> list[Verdict]:
    """Eqs. 22, 23: (I - W'J)^-1 = I + (I - W'J)^-1 W'J, and (I + D) J v = v where J > 0."""

    def samples() -> Iterator[tuple[tuple, str]]:
        for p, jac, v in adjoint_problems(seed, problems.count(200, size)):
            WJ, identity = p.matrix.T * jac[0], np.eye(len(p.matrix))
            inverse = np.linalg.inv(identity - WJ)
            on = jac[0] > 0
            second = (1 + (1 / jac[0][on] - 1)) * jac[0][on] * v[0][on] - v[0][on]
            yield (abs(inverse - identity - inverse @ WJ) / abs(inverse).max(), abs(second)), str(p)

    first, second = columns(samples())
    return [
        compare("MON-Eq22", "(22), relative", largest(first), "<=", 1e-12),
        compare("MON-Eq22", "(23)", largest(second), "<=", 1e-14),
    ]


def backward_zero(seed: int, size: float) -> list[Verdict]:
    """The zero of (20) is J u*, the gradient at the pre-activation: no case distinction, no inverse of W or J."""
    claim = "NEW-backward-zero"
    direct, gradient = columns(_zeros(seed, problems.count(90, size)))
    return [
        compare(
            claim, "||u-tilde - J (I - JW)^-T v||, relative, W singular in every third", largest(direct), "<=", 1e-9
        ),
        compare(claim, "u-tilde against central differences in the injection", largest(gradient), "<=", 1e-7),
    ]


def _zeros(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for p in problems.ensemble(seed, trials, batch=1, kinks=False):
        name, v = repr(p.activation), np.random.default_rng([p.seed, 6]).normal(size=p.z.shape)
        grads, _ = mon.equilibrium_vjp(p.W, p.b, p.activation, p.z, v, tol=p.finest, max_iter=50000)
        jac = oracles.slope(name, p.pre)[0]
        truth = jac * oracles.adjoint(p.matrix, jac, v[0])
        measured = oracles.central_difference(
            lambda b, p=p, v=v, name=name: float(
                v[0] @ oracles.sigma(name, oracles.equilibrium(name, p.matrix, b, p.pre[0]))
            ),
            p.b[0],
        )
        yield (relative(grads["injection"][0], truth), relative(grads["injection"][0], measured, 1e-2)), str(p)


def adjoint_norms(seed: int, size: float) -> list[Verdict]:
    """||(I - JW)^-1 J|| <= 1/m and ||(I - W'J)^-1|| <= 1 + ||W||/m, for every diagonal 0 <= J <= I."""
    claim = "NEW-adjoint-norms"
    first, second = columns(_norms(seed, problems.count(1500, size)))
    one = certificates.adjoint_norm_bounds(0.3, 0.7)
    scalar = 1 / (1 - 0.7)  # n = 1, J = 1, W = 1 - m = 0.7
    return [
        compare(claim, "||(I - JW)^-1 J|| over its bound", largest(first), "<=", 1, slack=1e-12),
        compare(claim, "||(I - W'J)^-1|| over its bound", largest(second), "<=", 1, slack=1e-12),
        compare(claim, "first bound attained: n = 1, J = 1, W = 0.7", scalar / one[0], "==", 1, slack=1e-12),
        compare(claim, "second bound attained: the same", scalar / one[1], "==", 1, slack=1e-12),
    ]


def _norms(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for k in range(trials):
        rng = np.random.default_rng(seed + k)
        n, m = 1 + k % 6, 10 ** rng.uniform(-1.3, 0.3)
        W = np.eye(n) - problems.gap(rng, n, m)
        jac = np.clip(rng.uniform(-0.5, 1.5, n), 0, 1)
        bounds = certificates.adjoint_norm_bounds(m, float(np.linalg.norm(W, 2)))
        first = np.linalg.norm(mon.implicit_matrix(W, jac), 2) / bounds[0]
        second = np.linalg.norm(np.linalg.inv(np.eye(n) - W.T * jac), 2) / bounds[1]
        yield (first, second), f"n = {n}, m = {m:.3g}, seed {seed + k}"


__all__ = [
    "adjoint_norms",
    "backward_zero",
    "chain_rule",
    "conjugate_gradient",
    "equation_21",
    "equation_22",
    "linear_system",
    "positive",
    "spectrum",
    "theorem_2",
    "theorem_3",
]
