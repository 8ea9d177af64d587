"""FPN and JFB section 3, FPN appendix A: derivatives through the fixed point, and the algebra of their replacement."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .. import activations
from .. import fixed_point as fp
from ..fixed_point import examples, theory
from . import adversary, oracles, printed, problems
from .banach import FACTORS, Layer, contractions, layers
from .theorem2_3 import relative
from .verdict import DROPPED, PRINTED, Verdict, columns, compare, largest

SOLVERS = "dense", "picard", "anderson", "cgnr"


def _adjoint(layer: Layer, g: np.ndarray) -> np.ndarray:
    """(I - K')^-1 g for every sample, K = J W, by dense solves."""
    W, jac = np.asarray(layer.T.W), oracles.slope(layer.name, layer.pre)
    return np.stack([np.linalg.solve(np.eye(len(W)) - (j[:, None] * W).T, v) for j, v in zip(jac, g, strict=True)])


def _parameters(layer: Layer, w: np.ndarray) -> dict[str, np.ndarray]:
    """Gradients of W, U, b when w is the cotangent at the output of T."""
    dp = oracles.slope(layer.name, layer.pre) * w
    return {"W": dp.T @ layer.z, "U": dp.T @ layer.x, "b": dp.sum(axis=0)}


def _worst(found: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> float:
    return max(relative(np.asarray(found[name]), truth[name], 1e-2) for name in truth)


def _cotangent(layer: Layer) -> np.ndarray:
    return np.random.default_rng([layer.seed, 31]).normal(size=layer.z.shape)


# ------------------------------------------------------------------------------------------------
# The gradient and the direction


def gradient(seed: int, size: float) -> list[Verdict]:
    """(13), (14): the gradient through the fixed point, by every solver."""
    claim = "JFB-Eq13"
    dense, *others = columns(_gradients(seed, problems.count(72, size)))
    verdicts = [
        compare(claim, f"W, U, b by {solver!r} against dense algebra", largest(samples), "<=", 1e-9)
        for solver, samples in zip(SOLVERS, (dense, *others[:3]), strict=True)
    ]
    return [*verdicts, compare(claim, "W, b against central differences of u*", largest(others[3]), "<=", 1e-7)]


def _gradients(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for layer in layers(seed, trials, batch=2, kinks=False, largest_n=4):
        g = _cotangent(layer)
        truth = _parameters(layer, _adjoint(layer, g))
        rules = [fp.implicit(s) if s == "dense" else fp.implicit(s, tol=1e-11, max_iter=5000) for s in SOLVERS]
        found = [fp.gradients(layer.T, layer.z, layer.x, g, rule) for rule in rules]
        yield (*(_worst(f, truth) for f in found), _worst(found[0], _differences(layer, g))), str(layer)


def _differences(layer: Layer, g: np.ndarray) -> dict[str, np.ndarray]:
    W, b = np.asarray(layer.T.W), np.asarray(layer.T.b)

    def loss(W: np.ndarray, b: np.ndarray) -> float:
        solved = [oracles.equilibrium(layer.name, W, x + b, p) for x, p in zip(layer.x, layer.pre, strict=True)]
        return float(np.sum(g * oracles.sigma(layer.name, np.stack(solved))))

    return {
        "W": oracles.central_difference(lambda W: loss(W, b), W),
        "b": oracles.central_difference(lambda b: loss(W, b), b),
    }


def direction(seed: int, size: float) -> list[Verdict]:
    """(16), (20); FPN (13), (17): p is minus the gradient of l(S(T(u*))) with u* held constant."""
    claim = "JFB-Eq16"
    formula, differences, zeroth = columns(_directions(seed, problems.count(108, size)))
    return [
        compare(claim, "W, U, b against dp z', dp x', dp with dp = J dl/du", largest(formula), "<=", 1e-13),
        compare(
            claim, "W, b against central differences through one application of T", largest(differences), "<=", 1e-8
        ),
        compare(claim, "jfb less neumann(0)", largest(zeroth), "==", 0),
    ]


def _directions(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for layer in layers(seed, trials, batch=2, kinks=False):
        g = _cotangent(layer)
        found = fp.gradients(layer.T, layer.z, layer.x, g, fp.jfb)
        again = fp.gradients(layer.T, layer.z, layer.x, g, fp.neumann(0))
        same = max(float(abs(found[name] - again[name]).max()) for name in found)
        yield (
            (_worst(found, _parameters(layer, g)), _worst(found, _through(layer, g, 1)), same),
            str(layer),
        )


def _through(layer: Layer, g: np.ndarray, steps: int) -> dict[str, np.ndarray]:
    """Gradients of <g, T(T(...T(u*)))> for W and b by central differences, u* held constant."""
    W, b = np.asarray(layer.T.W), np.asarray(layer.T.b)

    def value(W: np.ndarray, b: np.ndarray) -> float:
        z = layer.z
        for _ in range(steps):
            z = oracles.sigma(layer.name, z @ W.T + layer.x + b)
        return float(np.sum(g * z))

    return {
        "W": oracles.central_difference(lambda W: value(W, b), W),
        "b": oracles.central_difference(lambda b: value(W, b), b),
    }


def neumann(seed: int, size: float) -> list[Verdict]:
    """(22): truncating the Neumann series."""
    claim = "JFB-Eq22"
    bound, series, steps = columns(_neumann(seed, problems.count(108, size)))
    exact, partial = 1 / (1 - 0.9), sum(0.9**i for i in range(4))
    return [
        compare(
            claim, "||(I - K)^-1 - sum_{i <= k} K^i|| over gamma^(k+1)/(1 - gamma)", largest(bound), "<=", 1, slack=1e-9
        ),
        compare(
            claim, "attained: K = .9 I, k = 3", (exact - partial) / theory.neumann_error(0.9, 3), "==", 1, slack=1e-12
        ),
        compare(claim, "the rule neumann(k) against sum_{i <= k} (K')^i g", largest(series), "<=", 1e-13),
        compare(claim, "...against central differences through k + 1 steps from u*", largest(steps), "<=", 1e-8),
    ]


def _neumann(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for index, layer in enumerate(layers(seed, trials, batch=1, kinks=False, largest_n=4)):
        g, k = _cotangent(layer), (0, 1, 2, 5)[index % 4]
        K = oracles.slope(layer.name, layer.pre)[0][:, None] * np.asarray(layer.T.W)
        powers = [np.linalg.matrix_power(K, i) for i in range(k + 1)]
        total, gamma = np.sum(powers, axis=0), float(np.linalg.norm(K, 2))
        error = np.linalg.norm(np.linalg.inv(np.eye(len(K)) - K) - total, 2)
        w = fp.neumann(k)(layer.T, layer.z, layer.x, g)
        found = _worst(fp.gradients(layer.T, layer.z, layer.x, g, fp.neumann(k)), _through(layer, g, k + 1))
        ratio = error / (theory.neumann_error(gamma, k) + 1e-14)
        yield (ratio, relative(w[0], total.T @ g[0]), found), f"k = {k}, {layer}"


# ------------------------------------------------------------------------------------------------
# Coercivity


def coercivity(seed: int, size: float) -> list[Verdict]:
    """FPN (12), (20); JFB (15): <u, J^-1 u> >= (1 - gamma)/(1 + gamma)^2 ||u||^2, sharp 1/(1 + gamma)."""
    claim = "FPN-Eq12"
    printed_, sharp, above = columns(_coercivities(seed, size))
    low, high = (_inverse_form(K, np.ones(3)) for K in (-0.9 * np.eye(3), 0.9 * np.eye(3)))
    low, high = low / theory.inverse_coercivity(0.9), high * (1 - 0.9)
    return [
        compare(claim, "printed constant over the least <u, J^-1 u>", largest(printed_), "<=", 1, slack=1e-12),
        compare(claim, "1/(1 + gamma) over the least <u, J^-1 u>", largest(sharp), "<=", 1, slack=1e-12),
        compare(claim, "the greatest <u, J^-1 u> over 1/(1 - gamma)", largest(above), "<=", 1, slack=1e-12),
        compare(
            claim,
            "n = 3, the tighter of both: ascent from the worst of a sample",
            adversary.climb(_form, 13, seed, size),
            "<=",
            1,
            slack=1e-9,
        ),
        compare(claim, "attained: K = -.9 I, <u, J^-1 u> over the constant", low, "==", 1, slack=1e-12),
        compare(claim, "...K = .9 I, over 1/(1 - gamma)", high, "==", 1, slack=1e-12),
        compare(claim, "...the printed constant: .0277 for .526", theory.inverse_coercivity_printed(0.9), "<=", 0.0278),
    ]


def _inverse_form(K: np.ndarray, u: np.ndarray) -> float:
    """<u, (I - K)^-1 u>/||u||^2."""
    return float(u @ np.linalg.solve(np.eye(len(K)) - K, u) / (u @ u))


def _form(v: np.ndarray) -> float:
    gamma = (1 + np.tanh(v[0])) / 2 * 0.95 + 0.02
    value = _inverse_form(adversary.contraction(v[1:10], gamma), v[10:13])
    return float(max(theory.inverse_coercivity(gamma) / value, value * (1 - gamma)))


def _stacks(seed: int, size: float) -> Iterator[tuple[float, np.ndarray, str]]:
    for gamma in FACTORS:
        for n in (1, 2, 4, 7):
            rng = np.random.default_rng([seed, n])
            yield (
                gamma,
                contractions(rng, problems.count(1250, size), n, gamma),
                f"n = {n}, gamma = {gamma}, seed {seed}",
            )


def _symmetric(A: np.ndarray) -> np.ndarray:
    return np.linalg.eigvalsh((A + A.swapaxes(-1, -2)) / 2)


def _coercivities(seed: int, size: float) -> Iterator[tuple[tuple, str]]:
    for gamma, K, where in _stacks(seed, size):
        values = _symmetric(np.linalg.inv(np.eye(K.shape[-1]) - K))
        least, greatest = values[:, 0], values[:, -1]
        low = theory.inverse_coercivity_printed(gamma), theory.inverse_coercivity(gamma)
        yield (low[0] / least, low[1] / least, greatest * (1 - gamma)), where


def lemma_a1(seed: int, size: float) -> list[Verdict]:
    """FPN Lemma A.1: J = I - dT/du is coercive and invertible."""
    claim = "FPN-LemmaA.1"
    norms, form, forward, size_, inverse = columns(_lemma_a1(seed, size))
    quotient = largest(_difference_quotients(seed, problems.count(108, size)))
    return [
        compare(claim, "(21) to (23): ||T(u* + h v) - T(u*)||/h over gamma, h -> 0", quotient, "<=", 1, slack=1e-6),
        compare(claim, "(24): ||dT/du|| over gamma", largest(norms), "<=", 1, slack=1e-12),
        compare(claim, "(25): <u, dT/du u> over gamma ||u||^2", largest(form), "<=", 1, slack=1e-12),
        compare(claim, "(19), (26): (1 - gamma) less the least <u, J u>", largest(forward), "<=", 0, slack=1e-12),
        compare(
            claim,
            "attained: K = .9 I, least eigenvalue of the symmetric part of J over 1 - gamma",
            _symmetric(np.eye(3) - 0.9 * np.eye(3))[0] / theory.coercivity(0.9),
            "==",
            1,
            slack=1e-12,
        ),
        compare(claim, "(29): ||J'J|| over (1 + gamma)^2", largest(size_), "<=", 1, slack=1e-12),
        compare(
            claim,
            "(30): ||u|| over (1 + gamma) ||J^-1 u||; (27), (28): J^-1 exists",
            largest(inverse),
            "<=",
            1,
            slack=1e-12,
        ),
    ]


def _lemma_a1(seed: int, size: float) -> Iterator[tuple[tuple, str]]:
    for gamma, K, where in _stacks(seed, size / 2):
        J = np.eye(K.shape[-1]) - K
        u = np.random.default_rng(seed).normal(size=K.shape[:2])
        values, norms = np.linalg.norm(K, 2, axis=(1, 2)) / gamma, np.linalg.norm(J, 2, axis=(1, 2))
        back = _length(u) / ((1 + gamma) * _length(np.linalg.solve(J, u[..., None])[..., 0]))
        forms = _symmetric(K)[:, -1] / gamma, theory.coercivity(gamma) - _symmetric(J)[:, 0]
        yield (values, *forms, norms**2 / (1 + gamma) ** 2, back), where


def _length(a: np.ndarray) -> np.ndarray:
    return np.linalg.norm(a, axis=-1)


def _difference_quotients(seed: int, trials: int) -> Iterator[tuple[np.ndarray, str]]:
    for layer in layers(seed, trials, kinks=False):
        v, h = _cotangent(layer), 1e-6
        v = v / _length(v)[:, None]
        yield _length(layer.T(layer.z + h * v, layer.x) - layer.z) / (h * layer.gamma), str(layer)


def lemma_a2(seed: int, size: float) -> list[Verdict]:
    """FPN Lemma A.2: ||(max + min)/2 I - A|| = (max - min)/2; positive eigenvalues are not needed."""
    claim = "FPN-LemmaA.2"
    positive, indefinite = columns(_lemma_a2(seed, problems.count(300, size)))
    skew = np.array([[0.0, 1.0], [-1.0, 0.0]])
    return [
        compare(claim, "positive eigenvalues: relative difference", largest(positive), "<=", 1e-12),
        compare(claim, "any symmetric matrix: relative difference", largest(indefinite), "<=", 1e-12),
        compare(claim, "A skew, eigenvalues of real part 0: ||A||", np.linalg.norm(skew, 2), "<=", 0, form=DROPPED),
    ]


def _lemma_a2(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for k in range(trials):
        rng = np.random.default_rng(seed + k)
        Q, values = problems.orthogonal(rng, 1 + k % 6), rng.normal(size=1 + k % 6)
        errors = []
        for spectrum in (np.exp(values), values):
            spread = np.linalg.norm((spectrum.max() + spectrum.min()) / 2 * np.eye(len(Q)) - (Q * spectrum) @ Q.T, 2)
            errors.append(abs(spread - np.ptp(spectrum) / 2) / np.abs(spectrum).max())
        yield tuple(errors), f"n = {len(Q)}, seed {seed + k}"


# ------------------------------------------------------------------------------------------------
# M, and p as a preconditioned gradient


class Blocks(NamedTuple):
    """M with a block of S (p x c) beside one of T (q x n), K = dT/du, and v = (dl/dy, dl/du)."""

    M: np.ndarray
    K: np.ndarray
    v: np.ndarray
    c: int

    def core(self, J: np.ndarray) -> np.ndarray:
        """diag(I, J)."""
        core = np.eye(self.M.shape[1])
        core[self.c :, self.c :] = J
        return core

    @property
    def J(self) -> np.ndarray:
        """I - dT/du as in (9): not transposed."""
        return np.eye(len(self.K)) - self.K

    @property
    def gradient(self) -> np.ndarray:
        """M diag(I, J')^-1 v."""
        return self.M @ np.linalg.solve(self.core(self.J.T), self.v)

    @property
    def p(self) -> np.ndarray:
        """-M v."""
        return -self.M @ self.v


def blocks(rng: np.random.Generator, n: int, c: int, gamma: float) -> Blocks:
    """Random blocks."""
    M = np.zeros((2 * (n + c), n + c))
    M[: 2 * c, :c], M[2 * c :, c:] = rng.normal(size=(2 * c, c)), rng.normal(size=(2 * n, n))
    return Blocks(M, contractions(rng, 1, n, gamma)[0], rng.normal(size=n + c), c)


def _all_blocks(seed: int, trials: int) -> Iterator[tuple[Blocks, str]]:
    for k in range(trials):
        n, c, gamma = 1 + k % 5, k % 4, FACTORS[k % len(FACTORS)]
        yield (
            blocks(np.random.default_rng(seed + k), n, c, gamma),
            f"n = {n}, c = {c}, gamma = {gamma}, seed {seed + k}",
        )


def conditioning(seed: int, size: float) -> list[Verdict]:
    """JFB (17), (18), Assumption 3.3: M in the orientation of gradients, its condition, and what full rank is for."""
    claim = "JFB-Asm3.3"
    matrix, kappa = columns(_conditionings(seed, problems.count(108, size)))
    dead = examples.dead_unit()
    exact = fp.gradients(dead.T, dead.z, dead.x, dead.g, fp.implicit("dense"))["theta"]
    ours = fp.gradients(dead.T, dead.z, dead.x, dead.g, fp.jfb)["theta"]
    M = theory.parameter_jacobian(dead.T, dead.z, dead.x)
    thresholds = [theory.meets_condition(f / 0.8, 0.8) for f in (1 - 1e-12, 1 + 1e-12)]
    return [
        compare(claim, "M'M of a layer against (1 + ||z||^2 + ||x||^2) J^2", largest(matrix), "<=", 1e-12),
        compare(claim, "kappa(M'M) against (max J/min J)^2, relative", largest(kappa), "<=", 1e-8),
        compare(claim, "(15): met just below 1/gamma and not just above", sum(thresholds), "==", 1),
        compare(claim, "M = (1, 0), not of full column rank: 1/kappa", 1 / theory.conditioning(M), "==", 0),
        compare(claim, "...|p| where the gradient is 0", abs(ours[0]), "<=", 1e-12, form=DROPPED),
        compare(claim, "...the gradient", abs(exact[0]), "==", 0),
    ]


def _conditionings(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for k in range(trials):
        rng, n = np.random.default_rng(seed + k), 1 + k % 5
        W, x, pre = contractions(rng, 1, n, 0.8)[0], rng.normal(size=(1, 2)), rng.normal(size=(1, n))
        z, U = np.tanh(pre), rng.normal(size=(n, 2))
        T = fp.OneLayer(W, U, (pre - z @ W.T - x @ U.T)[0], activations.tanh)
        M, jac = theory.parameter_jacobian(T, z, x), oracles.slope("tanh", pre[0])
        gram = (1 + np.sum(z * z) + np.sum(x * x)) * np.diag(jac**2)
        kappa = (jac.max() / jac.min()) ** 2
        yield (relative(M.T @ M, gram), abs(theory.conditioning(M) / kappa - 1)), f"n = {n}, seed {seed + k}"


def preconditioned(seed: int, size: float) -> list[Verdict]:
    """FPN (16), JFB (19): p as a preconditioned gradient needs a minus sign and J transposed."""
    claim = "JFB-Eq19"
    ours, printed_, untransposed = columns(_preconditioned(seed, problems.count(200, size)))
    one = Blocks(np.ones((1, 1)), np.full((1, 1), 0.5), np.full(1, 0.5), 0)
    T = fp.LinearMap(one.K, one.M, np.zeros(1))
    g = fp.gradients(T, one.v[None], one.v[None], one.v[None], fp.implicit("dense"))["theta"]
    p = -fp.gradients(T, one.v[None], one.v[None], one.v[None], fp.jfb)["theta"]
    return [
        compare(claim, "-M diag(I, J') M^+ gradient against p, relative", largest(ours), "<=", 1e-10),
        compare(claim, "n = 1, M = 1, K = 1/2: p where the gradient is 1", p[0] / g[0], "==", -0.5, slack=1e-15),
        compare(claim, "...the printed p", printed.equation_16(one.M, one.J, g)[0], "==", p[0], form=PRINTED),
        compare(claim, "the printed p, relative error", largest(printed_), "<=", 1e-10, form=PRINTED),
        compare(
            claim, "with the minus, J not transposed: relative error", largest(untransposed), "<=", 1e-10, form=PRINTED
        ),
    ]


def _preconditioned(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for b, where in _all_blocks(seed, trials):
        found = theory.preconditioner(b.M, np.eye(len(b.v)) - b.core(b.J)) @ b.gradient
        wrong = printed.equation_16(b.M, b.J, b.gradient)
        yield (relative(found, b.p), relative(wrong, b.p), relative(-wrong, b.p)), where


def equation_45(seed: int, size: float) -> list[Verdict]:
    """FPN (45): M+ M J^-1 v with J where diag(I, J) is needed."""

    def samples() -> Iterator[tuple[float, str]]:
        for b, where in _all_blocks(seed, problems.count(200, size)):
            inner = theory.preconditioner(b.M, np.eye(len(b.v)) - b.core(b.J))
            yield relative(inner @ b.M @ np.linalg.solve(b.core(b.J.T), b.v), b.p), where

    one = blocks(np.random.default_rng(seed), 1, 2, 0.5)
    return [
        compare("FPN-Eq45", "-M J~ M^+ M J~^-1 v against p, J~ = diag(I, J')", largest(samples()), "<=", 1e-10),
        compare(
            "FPN-Eq45",
            "n = 1, c = 2: columns of J^-1 where v has n + c rows",
            one.J.shape[1],
            "==",
            len(one.v),
            form=PRINTED,
        ),
    ]


def proof_of_theorem_3_1(seed: int, size: float) -> list[Verdict]:
    """FPN (40) to (55) in the orientation of gradients: every J is transposed against (9)."""
    claim = "FPN-Eq40"
    chain, wrong = columns(_chain(seed, problems.count(60, size)))
    product, definite, split, spread, norm = columns(_steps(seed, problems.count(200, size)))
    return [
        compare(claim, "(43): M J~^-1 v against central differences of l(S(u*))", largest(chain), "<=", 1e-7),
        compare(claim, "(43) with the J of (9), relative error", largest(wrong), "<=", 1e-7, form=PRINTED),
        compare(claim, "(44) to (49): <gradient, p> + <w, J~ (M'M)^-1 w>, relative", largest(product), "<=", 1e-10),
        compare(claim, "(50): -lambda_min(M'M)", largest(definite), "<=", 0),
        compare(claim, "(52), (53): left less right side, relative", largest(split), "<=", 0, slack=1e-12),
        compare(claim, "(54): relative difference", largest(spread), "<=", 1e-10),
        compare(claim, "(55): ||J~|| over 1 + gamma", largest(norm), "<=", 1, slack=1e-12),
    ]


def _chain(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    # T = tanh(W u + theta_T), S = theta_S * u, l(y) = <y, a>: M = diag(diag(u), diag(J)), v = (a, theta_S * a)
    for k in range(trials):
        rng, n = np.random.default_rng(seed + k), 2 + k % 3
        W, pre, a, s = contractions(rng, 1, n, 0.9)[0], *rng.normal(size=(3, n))
        theta = pre - W @ np.tanh(pre)
        jac = oracles.slope("tanh", pre)
        u, v, J = np.tanh(pre), np.concatenate([a, s * a]), np.eye(n) - jac[:, None] * W
        M = np.diag([*u, *jac])

        def loss(both: np.ndarray, W: np.ndarray = W, pre: np.ndarray = pre, a: np.ndarray = a, n: int = n) -> float:
            return float(np.sum(both[:n] * np.tanh(oracles.equilibrium("tanh", W, both[n:], pre)) * a))

        truth = oracles.central_difference(loss, np.concatenate([s, theta]))
        T = fp.OneLayer(W, np.eye(n), theta, activations.tanh)
        lower = fp.gradients(T, u[None], 0 * u[None], v[None, n:], fp.implicit("dense"))["b"]
        found = np.concatenate([u * a, lower])
        yield (relative(found, truth, 1e-2), relative(printed.equation_43(M, J, v), truth, 1e-2)), f"seed {seed + k}"


def _steps(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for b, where in _all_blocks(seed, trials):
        gram, J, gamma = b.M.T @ b.M, b.core(b.J.T), float(np.linalg.norm(b.K, 2))
        P, w = np.linalg.inv(gram), b.M.T @ b.gradient
        values = np.linalg.eigvalsh(P)
        middle, w2, form = (values[0] + values[-1]) / 2, w @ w, w @ J @ P @ w
        rest = middle * np.eye(len(P)) - P
        right = -middle * (1 - gamma) * w2 + w @ J @ rest @ w
        bound = -middle * (1 - gamma) * w2 + np.linalg.norm(J, 2) * np.linalg.norm(rest, 2) * w2
        unit = values[-1] * w2
        product = abs(b.gradient @ b.p + form) / (np.linalg.norm(b.gradient) * np.linalg.norm(b.p))
        spread = abs(np.linalg.norm(rest, 2) - (values[-1] - values[0]) / 2) / values[-1]
        split = max(-form - right, right - bound) / unit
        yield (product, -np.linalg.eigvalsh(gram)[0], split, spread, np.linalg.norm(J, 2) / (1 + gamma)), where


# ------------------------------------------------------------------------------------------------
# The baseline


def baseline(seed: int, size: float) -> list[Verdict]:
    """JFB Table 2: conjugate gradients on the normal equations, to an absolute tolerance on a mean loss."""
    claim = "JFB-Tab2"
    rng = np.random.default_rng(seed)
    n, batch = 20, 100
    W, pre = contractions(rng, 1, n, 0.9)[0], rng.normal(size=(batch, n))
    z = np.tanh(pre)
    layer = Layer(seed, fp.OneLayer(W, np.eye(n), np.zeros(n), activations.tanh), pre - z @ W.T, pre, z, 0.9)
    g = rng.normal(size=z.shape) / batch
    exact = _adjoint(layer, g)
    papers = fp.implicit("cgnr", stop="absolute", tol=0.1).solve(layer.T, z, layer.x, g)
    sound = fp.implicit("cgnr", tol=1e-9).solve(layer.T, z, layer.x, g)
    where = f"n = {n}, batch of {batch}, seed {seed}"
    return [
        compare(claim, "CG to 1e-9 of every sample: relative error", relative(sound.z, exact), "<=", 1e-7, worst=where),
        compare(claim, "CG to the absolute .1: steps", papers.iterations, "==", 1, worst=where),
        compare(
            claim, "...relative error of its answer", relative(papers.z, exact), "<=", 0.01, form=PRINTED, worst=where
        ),
    ]


__all__ = [
    "baseline",
    "coercivity",
    "conditioning",
    "direction",
    "equation_45",
    "gradient",
    "lemma_a1",
    "lemma_a2",
    "neumann",
    "preconditioned",
    "proof_of_theorem_3_1",
]
