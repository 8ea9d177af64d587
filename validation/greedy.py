"""GREEDY section IV: Algorithms 1 and 2, their losses, gradients, memory; how far each heuristic ends from the best."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .. import activations, losses, sequential
from ..sequential import convex, solvers
from . import problems
from .verdict import PRINTED, Verdict, columns, compare, largest

__all__ = ["algorithm_1", "algorithm_2", "cross_entropy", "gradients", "losses_of_rem1", "memory"]

QUICK: dict[str, Any] = {
    "variable-projection": functools.partial(solvers.variable_projection, starts=1, max_iter=8),
    "alternating": functools.partial(solvers.alternating, rounds=2, steps=3),
    "l-bfgs": functools.partial(solvers.lbfgs, starts=1, max_iter=8),
    "adam": functools.partial(solvers.adam, epochs=3, batch=8, learning_rate=1e-2),
}


def _data(rng: np.random.Generator, m: int = 20, p: int = 1, q: int = 2) -> tuple[np.ndarray, np.ndarray]:
    x = rng.uniform(-2, 2, (m, p))
    return sequential.augment(x), np.sin(3 * x) @ rng.normal(size=(p, q)) + 0.1 * rng.normal(size=(m, q))


def _problem(
    rng: np.random.Generator, loss: str = "squared", activation: Any = activations.relu
) -> tuple[sequential.Problem, sequential.Solved]:
    """A subproblem with two or no features before it, and some V and C."""
    m, before, q, units = 20, 2 * int(rng.integers(2)), 2, int(rng.integers(1, 4))
    x, y = _data(rng, m, 1, q)
    u = np.concatenate([np.abs(rng.normal(size=(m, before))), x], axis=1)
    target = y if loss == "squared" else rng.integers(q, size=m)
    problem = sequential.Problem(u, target, rng.normal(size=(q, before)), units, loss, activation)
    return problem, sequential.Solved(rng.normal(size=(units, before + 2)), rng.normal(size=(q, units + before)))


# ------------------------------------------------------------------------------------------------
# Algorithm 1


def algorithm_1(seed: int, size: float) -> list[Verdict]:
    """(6), (7): the loss never rises from block to block, whatever solves the subproblems; what is yielded resumes."""
    claim, trials = "GREEDY-Alg1", problems.count(100, size)
    rises, kept, resumed = columns(_greedy(seed, trials))
    return [
        compare(
            claim,
            "loss after a block less the loss before, relative",
            largest(rises),
            "<=",
            0,
            slack=1e-12,
        ),
        compare(claim, "recorded loss against that of the model, relative", largest(kept), "<=", 1e-9),
        compare(claim, "A, B, C resumed after block 1 against the uninterrupted run", largest(resumed), "==", 0),
    ]


def _greedy(seed: int, trials: int) -> Iterator[tuple[tuple[Any, ...], str]]:
    names = list(QUICK)
    for k in range(trials):
        rng, name = np.random.default_rng(seed + k), names[k % len(names)]
        sizes = tuple(int(n) for n in rng.integers(1, 4, size=3))  # any partition, Remark 3
        x, y = _data(rng)
        run = functools.partial(sequential.greedy, x, y, sizes, solver=QUICK[name], random_state=k)
        models = list(run())
        values = [losses.squared_error(model.predict(x), y)[0] for model in models]
        values.insert(0, losses.squared_error(0 * y, y)[0])
        rises = np.diff(values) / values[0]
        kept = [abs(model.history[-1].loss / value - 1) for model, value in zip(models, values[1:], strict=True)]
        again = list(run(start=models[0]))[-1]
        gap = max(float(np.abs(again.params[n] - models[-1].params[n]).max()) for n in "ABC")
        yield (rises, kept, gap), f"{name}, sizes {sizes}, seed {seed + k}"


# ------------------------------------------------------------------------------------------------
# losses, gradients, memory


def losses_of_rem1(seed: int, size: float) -> list[Verdict]:
    """(8) with its half, as the loss of a subproblem."""
    rows = largest(_squared(seed, problems.count(200, size)))
    return [compare("GREEDY-Eq8", "m times the loss against ||Y - C X||_F^2/2, relative", rows, "<=", 1e-13)]


def _squared(seed: int, trials: int) -> Iterator[tuple[float, str]]:
    for k in range(trials):
        problem, solved = _problem(np.random.default_rng(seed + k))
        wanted = np.linalg.norm(problem.target.T - solved.C @ _features(problem, solved).T, "fro") ** 2 / 2
        yield abs(sequential.value(problem, solved) * 20 / wanted - 1), f"seed {seed + k}"


def _features(problem: sequential.Problem, solved: sequential.Solved) -> np.ndarray:
    z = problem.activation(problem.u @ solved.V.T)
    return np.concatenate([z, problem.u[:, : problem.C.shape[1]]], axis=1)


def printed_cross_entropy(Y: np.ndarray, hat: np.ndarray) -> float:
    """(9) as it stands, columns are samples."""
    return float(np.log(np.exp(hat).sum(axis=0)).sum() - np.trace(Y.T @ hat))


def _negative_log_likelihood(Y: np.ndarray, hat: np.ndarray) -> float:
    """-sum_l <y_l, log softmax(hat_l)>, with the maximum taken out."""
    shifted = hat - hat.max(axis=0)
    return float(-np.sum(Y * (shifted - np.log(np.exp(shifted).sum(axis=0)))))


def cross_entropy(seed: int, size: float) -> list[Verdict]:
    """(9): the cross-entropy where the columns of Y sum to 1, and a sum over the samples."""
    claim, rng = "GREEDY-Eq9", np.random.default_rng(seed)
    rows = largest(_entropies(seed, problems.count(200, size)))
    hat, Y = rng.normal(size=(3, 5)), np.eye(3)[:, [0, 1, 2, 0, 1]]
    twice = abs(printed_cross_entropy(2 * Y, hat) - _negative_log_likelihood(2 * Y, hat))
    large = losses.cross_entropy(np.array([[1000.0, 0.0]]), np.array([1]))[0]
    return [
        compare(claim, "columns of Y sum to 2: (9) against the cross-entropy", twice, "<=", 1e-9, form=PRINTED),
        compare(claim, "labels: m times the loss against the cross-entropy, relative", rows, "<=", 1e-12),
        compare(claim, "logits 1000 and 0, label 1: the loss", large, "==", 1000, slack=1e-9),
    ]


def _entropies(seed: int, trials: int) -> Iterator[tuple[float, str]]:
    for k in range(trials):
        problem, solved = _problem(np.random.default_rng(seed + k), "cross-entropy")
        wanted = _negative_log_likelihood(np.eye(2)[problem.target].T, solved.C @ _features(problem, solved).T)
        yield abs(sequential.value(problem, solved) * 20 - wanted) / (1 + wanted), f"seed {seed + k}"


def gradients(seed: int, size: float) -> list[Verdict]:
    """Remark 2: gradients of the subproblem by hand, against central differences."""
    claim, trials = "GREEDY-Rem2", problems.count(100, size)
    eliminated = largest(_eliminated_slopes(seed, trials))
    return [
        compare(claim, "for V and C, both losses: against central differences", _slopes(seed, trials), "<=", 1e-7),
        compare(claim, "for V, C eliminated: against central differences", eliminated, "<=", 1e-7),
    ]


def _slopes(seed: int, trials: int) -> Any:
    def samples() -> Iterator[tuple[float, str]]:
        for k in range(trials):
            rng, loss = np.random.default_rng(seed + k), ("squared", "cross-entropy")[k % 2]
            problem, solved = _problem(rng, loss, (activations.tanh, activations.softplus)[k // 2 % 2])
            grads = sequential.value_and_gradients(problem, solved)[1]
            step = sequential.Solved(*(rng.normal(size=part.shape) for part in solved))
            along = sum(float(np.vdot(g, s)) for g, s in zip(grads, step, strict=True))
            moved = functools.partial(_moved, problem, solved, step)
            yield _against(along, moved), f"{loss}, seed {seed + k}"

    return largest(samples())


def _moved(problem: sequential.Problem, at: sequential.Solved, step: sequential.Solved, t: float) -> float:
    return sequential.value(problem, sequential.Solved(at.V + t * step.V, at.C + t * step.C))


def _eliminated_slopes(seed: int, trials: int) -> Iterator[tuple[float, str]]:
    for k in range(trials):
        rng = np.random.default_rng(seed + k)
        problem, solved = _problem(rng, activation=activations.tanh)
        reduced, step = solvers.Eliminated(problem, 1e-2), rng.normal(size=solved.V.size)
        along = float(reduced.value_and_gradient(solved.V.ravel())[1] @ step)
        yield _against(along, functools.partial(_shifted, reduced, solved.V.ravel(), step)), f"seed {seed + k}"


def _shifted(reduced: solvers.Eliminated, at: np.ndarray, step: np.ndarray, t: float) -> float:
    return reduced.value_and_gradient(at + t * step)[0]


def _against(along: float, function: Callable[[float], float], h: float = 1e-4) -> float:
    """A slope against the five-point difference, relative to 1 + its size."""
    difference = (function(-2 * h) - 8 * function(-h) + 8 * function(h) - function(2 * h)) / (12 * h)
    return abs(along - difference) / (1 + abs(difference))


def memory(seed: int, size: float) -> list[Verdict]:
    """Remark 5: what a stage optimises, features included, counted in its arrays."""
    claim, rng = "GREEDY-Rem5", np.random.default_rng(seed)
    x, y = _data(rng)
    sizes, m, (p, q) = (3, 1, 2), len(x), (2, 2)
    found = [
        model.blocks[-1].A.size + model.blocks[-1].B.size + m * model.sizes[-1] + model.C.size
        for model in sequential.greedy(x, y, sizes, solver=QUICK["adam"], random_state=0)
    ]
    stages, whole = sequential.memory(sizes, m, p, q)
    images, all_at_once = sequential.memory(sequential.partition(32, 16), 60_000, 784, 10)
    return [
        compare(claim, "largest difference of a stage", max(map(abs, np.subtract(found, stages))), "==", 0),
        compare(claim, "end to end: A, X, B and C", whole, "==", 6 * 6 + 6 * m + 6 * p + q * 6),
        compare(claim, "MNIST, 16 blocks of 2: largest stage over end to end", max(images) / all_at_once, "<=", 1 / 15),
    ]


# ------------------------------------------------------------------------------------------------
# Algorithm 2


def algorithm_2(seed: int, size: float) -> list[Verdict]:
    """Least squares exact, no accepted step raises the loss; local search in (12) is not global."""
    claim = "GREEDY-Alg2"
    rises, normal = columns(_alternations(seed, problems.count(10_000, min(size, size * size))))  # quick in tests
    ranks = largest(_deficient(seed, problems.count(200, size)))
    bounds = dict(_distances(seed))
    return [
        compare(claim, "(12), y = u = c = 1, from a = -1: excess of local search", _stuck(), "<=", 1e-9, form=PRINTED),
        compare(claim, "an accepted step: loss after less before, relative", largest(rises), "<=", 0, slack=2e-14),
        compare(claim, "the last step: normal-equation residual beyond rounding", largest(normal), "<=", 1e-11),
        compare(claim, "features of deficient rank: normal-equation residual", ranks, "<=", 1e-11),
        compare(claim, "duality gap of the convex form over ||y||^2/2", bounds["gap"], "<=", 1e-4),
        compare(claim, "...its lower bound less that on 20,000 directions", bounds["dual"], "==", 0, slack=1e-6),
        *(
            compare(claim, f"{name}: below the certified minimum, over ||y||^2/2", -bounds[name], "<=", 1e-9)
            for name in QUICK
        ),
    ]


def _alternations(seed: int, steps: int) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Runs of Algorithm 2 until so many steps are made."""
    while steps > 0:
        rng = np.random.default_rng([seed, steps])
        problem, _ = _problem(rng)
        iterates = list(solvers.alternation(problem, rng, rounds=20, steps=2))
        values = np.array([sequential.value(problem, solved) for solved in iterates])
        residual = _normal_residual(problem, iterates[-1])
        yield (np.diff(values) / values[0], residual), f"seed {seed}, {steps} steps before the end"
        steps -= len(values) - 1


def _normal_residual(problem: sequential.Problem, solved: sequential.Solved) -> float:
    """||z'(z C' - y)|| relative to features as large as the pre-activations: below their rounding nothing is read."""
    z, y, norm = _features(problem, solved), problem.target, np.linalg.norm
    size = max(norm(z), norm(problem.u) * norm(solved.V))
    return float(norm(z.T @ (z @ solved.C.T - y)) / (size * (size * norm(solved.C) + norm(y))))


def _deficient(seed: int, trials: int) -> Iterator[tuple[float, str]]:
    for k in range(trials):
        rng = np.random.default_rng(seed + k)
        m, n, rank = rng.integers(2, 30), rng.integers(1, 12), rng.integers(0, 6)
        z, y = rng.normal(size=(m, rank)) @ rng.normal(size=(rank, n)), rng.normal(size=(m, 2))
        residual = sequential.normal_residual(z, y, sequential.least_squares(z, y))
        yield residual, f"m, n, rank = {m}, {n}, {rank}, seed {seed + k}"


def _stuck() -> float:
    """What is left of the loss (12), whose minimum is 0, after local search from the flat minimum."""
    one = np.ones((1, 1))
    problem = sequential.Problem(one, one, one[:, :0], 1, "squared", activations.relu)
    return 2 * sequential.value(problem, solvers._shallow_step(problem, sequential.Solved(-one, one), 50))


def _distances(seed: int) -> Iterator[tuple[str, float]]:
    """How far each heuristic with 4 units ends above the certified minimum over all widths, over ||y||^2/2."""
    rng, beta = np.random.default_rng(seed), 0.3
    u, y = _data(rng, 7, q=1)
    scale, best = float(np.vdot(y, y)) / 2, convex.shallow_optimum(u, y, beta, tol=1e-4)
    yield "gap", best.gap / scale
    yield "dual", (best.dual - _dual(u, y[:, 0], best, beta)) / scale
    problem = sequential.Problem(u, y, np.zeros((1, 0)), 4, "squared", activations.relu)
    for name, solver in QUICK.items():
        found = solver(problem, np.random.default_rng(seed))
        yield name, (convex.penalised(u, y, found.V, found.C[0], beta) - best.dual) / scale


def _dual(u: np.ndarray, y: np.ndarray, found: convex.ConvexSolution, beta: float) -> float:
    """The largest <y, s> - ||s||^2/2 over s = t residual with |<s, relu(u v)>| <= beta for many unit vectors v."""
    kinks = np.arctan2(u[:, 1], u[:, 0]) + np.pi / 2 * np.array([[1], [-1]])  # a maximum may lie on one
    angles = np.concatenate([np.linspace(0, 2 * np.pi, 20_000), kinks.ravel()])
    directions, residual = np.stack([np.cos(angles), np.sin(angles)]), y - np.maximum(u @ found.V.T, 0) @ found.c
    t = min(beta / np.abs(residual @ np.maximum(u @ directions, 0)).max(), (residual @ y) / (residual @ residual))
    return float(t * (residual @ y) - t * t * (residual @ residual) / 2)
