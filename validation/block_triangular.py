"""GREEDY sections III and IV.B: block-triangular models, their counts, and Theorems 2 and 3 on self-loops.

The features of a model are compared with what solves the fixed-point equation without knowing of blocks: Picard's
iteration, or, for ReLU, every active set tried in turn.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from .. import sequential as seq
from ..activations import Activation, leaky_relu, relu, tanh
from . import oracles, problems
from .verdict import DROPPED, PRINTED, Verdict, columns, compare, largest

__all__ = [
    "connections",
    "feed_forward",
    "non_strict",
    "surplus",
    "theorem_2",
    "theorem_3",
    "well_posed",
]


def partitions(trials: int, least: int = 2) -> Iterator[tuple[int, ...]]:
    """Partitions of small orders into `least` blocks or more, in turn."""
    pairs = [(n, L) for n in range(least, 13) for L in range(least, min(n, 7) + 1)]
    for k in range(trials):
        yield seq.partition(*pairs[(7 * k) % len(pairs)])


def triangle(rng: np.random.Generator, sizes: tuple[int, ...]) -> np.ndarray:
    """A drawn A with A_ij = 0 for i <= j, block by block, block L first; rows of length about 1."""
    order = list(reversed(range(len(sizes))))
    rows = [
        [rng.normal(size=(sizes[i], sizes[j])) * (i > j) / np.sqrt(1 + sum(sizes[:i])) for j in order] for i in order
    ]
    return np.block(rows)


def draw(
    seed: int, sizes: tuple[int, ...], activation: Activation = relu
) -> tuple[seq.BlockTriangularModel, np.ndarray]:
    """A model and ten inputs."""
    rng, n = np.random.default_rng(seed), sum(sizes)
    p, q = rng.integers(1, 5, 2)
    A, B, C = triangle(rng, sizes), rng.normal(size=(n, p)), rng.normal(size=(q, n))
    return seq.BlockTriangularModel(A, B, C, sizes, activation), rng.normal(size=(10, p))


def scaled(difference: np.ndarray, *of: np.ndarray) -> float:
    """The largest entry of a difference over one more than the largest of what was compared."""
    return float(np.max(np.abs(difference)) / (1 + max(np.max(np.abs(array)) for array in of)))


def step(A: np.ndarray, B: np.ndarray, x: np.ndarray, z: np.ndarray, activation: Activation = relu) -> np.ndarray:
    """phi(A z + B x)."""
    return activation(z @ A.T + x @ B.T)


# ------------------------------------------------------------------------------------------------
# section III


def well_posed(seed: int, size: float) -> list[Verdict]:
    """Assumption 3 makes A well posed for every CONE map: |A| is nilpotent, Picard is exact after L steps."""
    claim = "GREEDY-Asm3"
    defects, steps, nilpotent = columns(_substitution(seed, problems.count(200, size)))
    slopes = list(_slopes(seed, problems.count(60, size)))
    shuffled = list(_shuffled(seed, problems.count(100, size)))
    model, x = draw(seed, (1, 2, 3))
    z = model.features(x)
    early = step(model.A, model.B, x, step(model.A, model.B, x, np.zeros_like(z)))
    loop = np.array([[-2.0]])
    cycling = step(loop, -loop, np.ones((1, 1)), step(loop, -loop, np.ones((1, 1)), np.zeros((1, 1))))
    return [
        compare(claim, "features: |z - phi(A z + B x)|, relative", largest(defects), "<=", 1e-12),
        compare(claim, "features against L steps of Picard from a random start, relative", largest(steps), "<=", 1e-12),
        compare(claim, "entries of |A|^L", largest(nilpotent), "==", 0),
        compare(
            claim,
            "states in any order, sorted into blocks: |z - phi(A z + B x)|, relative",
            largest(shuffled),
            "<=",
            1e-12,
        ),
        compare(claim, "gradient for A, B, C, x against central differences, relative", largest(slopes), "<=", 1e-7),
        compare(claim, "L - 1 steps of Picard are enough", scaled(early - z, z), "<=", 1e-12, form=DROPPED),
        compare(
            claim,
            "a self-loop a = -2: Picard still settles",
            float(abs(cycling - 2 / 3)[0, 0]),
            "<=",
            1e-12,
            form=DROPPED,
        ),
    ]


def _substitution(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for k, sizes in enumerate(partitions(trials)):
        activation = problems.ACTIVATIONS[k % len(problems.ACTIVATIONS)]
        model, x = draw(seed + k, sizes, activation)
        z = model.features(x)
        iterate = np.random.default_rng(seed + k).normal(size=z.shape)
        for _ in sizes:
            iterate = step(model.A, model.B, x, iterate, activation)
        defect = scaled(z - step(model.A, model.B, x, z, activation), z)
        power = np.linalg.matrix_power(np.abs(model.A), len(sizes))
        yield (defect, scaled(z - iterate, z), power.max()), f"{activation!r}, sizes {sizes}, seed {seed + k}"


def _shuffled(seed: int, trials: int) -> Iterator[tuple[float, str]]:
    for k, sizes in enumerate(partitions(trials)):
        model, x = draw(seed + k, sizes)
        at = np.random.default_rng(seed + k).permutation(len(model.A))
        A, B = model.A[np.ix_(at, at)], model.B[at]
        found, order = seq.from_implicit(A, B, model.C[:, at])
        z = np.empty((len(x), len(A)))
        z[:, list(order)] = found.features(x)
        yield scaled(z - step(A, B, x, z), z), f"sizes {sizes}, seed {seed + k}"


def _slopes(seed: int, trials: int) -> Iterator[tuple[float, str]]:
    for k, sizes in enumerate(partitions(trials)):
        model, x = draw(seed + k, sizes, tanh)
        rng = np.random.default_rng(seed + k)
        dy = rng.normal(size=(len(x), len(model.C)))
        for name, gradient in model.predict_vjp(x, model.features(x), dy).items():
            at = {**model.params, "x": x}[name]
            direction = rng.normal(size=at.shape) * ((triangle(rng, sizes) != 0) if name == "A" else 1)
            ends = [_loss(model, x, dy, name, at + h * direction) for h in (1e-5, -1e-5)]
            slope = (ends[0] - ends[1]) / 2e-5
            yield (
                abs(np.sum(gradient * direction) - slope) / (1 + abs(slope)),
                f"{name}, sizes {sizes}, seed {seed + k}",
            )


def _loss(model: seq.BlockTriangularModel, x: np.ndarray, dy: np.ndarray, name: str, value: np.ndarray) -> float:
    moved = model if name == "x" else dataclasses.replace(model, **{name: value})
    return float(np.sum(dy * moved.predict(value if name == "x" else x)))


def feed_forward(seed: int, size: float) -> list[Verdict]:
    """Feed-forward networks are the models with A_ij = 0 unless j = i - 1; i + 1 is printed."""
    claim = "GREEDY-SecIII-feedforward"
    errors, strays, printed = columns(_networks(seed, problems.count(200, size)))
    return [
        compare(claim, "model against the network, relative", largest(errors), "<=", 1e-14),
        compare(claim, "blocks A_ij with j other than i - 1", largest(strays), "==", 0),
        compare(
            claim,
            "A_ij = 0 unless j = i + 1, under Assumption 3: the same",
            largest(printed),
            "<=",
            1e-15,
            form=PRINTED,
        ),
    ]


def _networks(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for k, sizes in enumerate(partitions(trials)):
        rng, widths = np.random.default_rng(seed + k), (2, *sizes, 3)
        weights = [rng.normal(size=(b, a)) / np.sqrt(a) for a, b in itertools.pairwise(widths)]
        model, x, L = seq.feed_forward(weights, relu), rng.normal(size=(10, 2)), len(sizes)
        y = x
        for W in weights[:-1]:
            y = np.maximum(y @ W.T, 0)
        y = y @ weights[-1].T
        pairs = itertools.product(range(1, L + 1), repeat=2)
        strays = sum(bool(model.block(i, j).any()) for i, j in pairs if j != i - 1)
        # what Assumption 3 leaves of the blocks A_i,i+1: nothing
        severed = dataclasses.replace(model, A=0 * model.A)
        found = [scaled(m.predict(x) - y, y) for m in (model, severed)]
        yield (found[0], strays, found[1]), f"sizes {sizes}, seed {seed + k}"


def surplus(seed: int, size: float) -> list[Verdict]:
    """How many more parameters than a feed-forward network: the printed count is that of A alone."""
    claim, p, q = "GREEDY-SecIII-count", 1, 1
    inside, whole = columns(_surplus(problems.count(40, size)))
    sizes = seq.partition(6, 3)
    extra = seq.counts.strict(sizes, p, q).total - seq.counts.feed_forward_count(sizes, p, q).total
    return [
        compare(claim, "(L-2) n_1 n_L + (L-2)(L-3) n_1^2/2 against the entries of A", largest(inside), "==", 0),
        compare(claim, "...with p (n - n_1) + q (n - n_L) against all entries", largest(whole), "==", 0),
        compare(claim, "n = 6, L = 3, p = q = 1: parameters beyond the feed-forward network", extra, "==", 12),
        compare(claim, '..."precisely" the count of A', extra, "==", seq.counts.surplus(sizes, p, q).A, form=PRINTED),
    ]


def _surplus(largest_order: int) -> Iterator[tuple[tuple, str]]:
    for n, L in itertools.product(range(2, max(largest_order, 8)), range(2, 9)):
        if n < L:
            continue
        sizes, p, q = seq.partition(n, L), 3, 2
        of = np.repeat(np.arange(L, 0, -1), sizes[::-1])  # the block of every state
        gap = of[:, None] - of
        more = np.array([np.sum(gap > 0) - np.sum(gap == 1), p * np.sum(of > 1), q * np.sum(of < L)])
        errors = np.abs(np.array(seq.counts.surplus(sizes, p, q)) - more)
        yield (errors[0], errors.sum()), f"n = {n}, L = {L}, not random"


def connections(seed: int, size: float) -> list[Verdict]:
    """The generalised DenseNet: L (L + 1)/2 connections join the input and the blocks, L more lead to the output."""
    claim = "GREEDY-SecIII-connections"
    pairs, outputs = columns(_edges(seed, min(24, max(3, round(12 * size)))))  # L^2 edges: more is no more evidence
    return [
        compare(claim, "edges among input and blocks, less L (L + 1)/2", largest(pairs), "==", 0),
        compare(claim, "edges to the output, less L", largest(outputs), "==", 0),
    ]


def _edges(seed: int, most: int) -> Iterator[tuple[tuple, str]]:
    for L in range(1, most + 1):
        model, _ = draw(seed + L, (2,) * L)
        targets = [edge.target for edge in seq.counts.connections(model)]
        output = targets.count(L + 1)
        yield (abs(len(targets) - output - L * (L + 1) // 2), abs(output - L)), f"L = {L}, not random"


# ------------------------------------------------------------------------------------------------
# section IV.B and the appendix


def looped(rng: np.random.Generator, n: int, closest: float = 0.02) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An upper triangular A with -1 < a_kk <= 1 - closest, B, and ten inputs."""
    p = rng.integers(1, 4)
    A = np.triu(rng.normal(size=(n, n)), 1) / np.sqrt(n)
    A += np.diag(rng.uniform(-1 + 1e-6, 1 - closest, n))
    return A, rng.normal(size=(n, p)), rng.normal(size=(10, p))


def non_strict(seed: int, size: float) -> list[Verdict]:
    """(13) is well posed: the Perron eigenvalue of |A| is the largest |a_kk|; features and gradient are explicit."""
    claim = "GREEDY-Eq13"
    perron, fixed, gradient = columns(_non_strict(seed, problems.count(150, size)))
    trained = list(_trained(seed, max(1, round(6 * size))))
    two = list(oracles.relu_equilibria(np.array([[2.0]]), np.array([-1.0])))
    return [
        compare(claim, "largest |eigenvalue| of |A| less the largest |a_kk|", largest(perron), "<=", 1e-12),
        compare(claim, "features against every active set tried, relative", largest(fixed), "<=", 1e-11),
        compare(claim, "gradient against implicit differentiation, relative", largest(gradient), "<=", 1e-10),
        compare(
            claim, "trained: |X - relu(A X + B U)|, relative", largest((row[0], w) for row, w in trained), "<=", 1e-12
        ),
        compare(
            claim,
            "...rise of the loss from block to block",
            largest((row[1], w) for row, w in trained),
            "<=",
            0,
            slack=1e-12,
        ),
        compare(claim, "a_kk = 2: so many features for one input", len(two), "==", 1, form=DROPPED),
    ]


def _non_strict(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for k in range(trials):
        rng, n = np.random.default_rng(seed + k), 1 + k % 5
        A, B, x = looped(rng, n)
        model = seq.SelfLoopModel(A, B, rng.normal(size=(2, n)), (n,))
        z, dy = model.features(x), rng.normal(size=(10, 2))
        exact = np.stack([next(oracles.relu_equilibria(A, B @ sample)) for sample in x])
        jac = 1.0 * (z @ A.T + x @ B.T > 0)
        dpre = jac * np.stack([oracles.adjoint(A, j, g) for j, g in zip(jac, dy @ model.C, strict=True)])
        grads, expected = model.predict_vjp(x, z, dy), {"A": np.triu(dpre.T @ z), "B": dpre.T @ x}
        worst = max(scaled(grads[name] - value, value) for name, value in expected.items())
        perron = abs(np.max(np.abs(np.linalg.eigvals(np.abs(A)))) - np.max(np.abs(np.diag(A))))
        yield (perron, scaled(z - exact, exact), worst), f"n = {n}, seed {seed + k}"


def _trained(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for k in range(trials):
        rng = np.random.default_rng(seed + k)
        x = np.column_stack([rng.uniform(-2, 2, 40), np.ones(40)])
        y, eps = np.sin(3 * x[:, :1]) + 0.1 * rng.normal(size=(40, 1)), rng.uniform(0.05, 1.95)
        model = seq.fit_non_strict(x, y, 4, 2, eps=eps, random_state=seed + k)
        z, losses = model.features(x), [record.loss for record in model.history]
        yield (scaled(z - step(model.A, model.B, x, z), z), np.diff(losses)), f"eps = {eps:.2g}, seed {seed + k}"


def theorem_2(seed: int, size: float) -> list[Verdict]:
    """Theorem 2, one unit: a self-loop scales its row; the converse needs 0 < eps < 2, and ReLU."""
    claim = "GREEDY-Thm2"
    removed, added, inverse = columns(_units(seed, problems.count(1000, size)))
    eps = 2.5
    return [
        compare(claim, "a unit with a self-loop against the explicit one, relative", largest(removed), "<=", 1e-11),
        compare(
            claim, "explicit unit, its self-loop added: |X - relu(A X + B U)|, relative", largest(added), "<=", 1e-12
        ),
        compare(claim, "there and back: eps times the error of gamma, lambda", largest(inverse), "<=", 1e-10),
        compare(claim, 'eps = 5/2, "let eps > 0": |a_ii| as (13) bounds it', abs(1 - eps), "<=", 1, form=PRINTED),
        compare(
            claim,
            "...and such a self-loop iterates: distance after 200 steps",
            _iterated(1 - eps),
            "<=",
            1e-6,
            form=PRINTED,
        ),
        compare(
            claim,
            "leaky relu(.1), a = 1/2: slope for negative inputs against .1",
            _leaky_slope(0.1, 0.5),
            "==",
            0.1,
            slack=1e-12,
            form=DROPPED,
        ),
    ]


def _units(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for k in range(trials):
        rng, i = np.random.default_rng(seed + k), 1 + k % 6
        p, eps = rng.integers(1, 4), 10 ** rng.uniform(-6, np.log10(1.999))
        row, b = rng.normal(size=(1, i)), rng.normal(size=(1, p))
        row[0, 0] = rng.uniform(-1 + 1e-6, 0.98)
        earlier, U = np.maximum(rng.normal(size=(10, i - 1)), 0), rng.normal(size=(10, p))
        given = earlier @ row[0, 1:] + U @ b[0]
        fixed = np.array([next(oracles.relu_equilibria(row[:, :1], np.array([c])))[0] for c in given])
        gamma, lam = seq.remove_self_loops(row, b)
        X = np.maximum(earlier @ gamma[0, 1:] + U @ lam[0], 0)
        a, b2 = seq.add_self_loops(gamma, lam, eps)
        again = np.maximum(np.column_stack([X, earlier]) @ a[0] + U @ b2[0], 0)
        errors = [scaled(f - g, g) for f, g in zip(seq.remove_self_loops(a, b2), (gamma, lam), strict=True)]
        where = f"i = {i}, eps = {eps:.2g}, seed {seed + k}"
        yield (scaled(X - fixed, fixed), scaled(again - X, X), eps * max(errors)), where


def _iterated(a: float) -> float:
    z = np.zeros(1)
    for _ in range(200):
        z = np.maximum(a * z + 1, 0)
    return float(abs(z[0] - 1 / (1 - a)))


def _leaky_slope(slope: float, a: float) -> float:
    """dx/du for u < 0 of ``x = leaky(a x + (1 - a) u)``, by iteration: explicit units have `slope`."""
    leaky, x = leaky_relu(slope), np.zeros(1)
    for _ in range(200):
        x = leaky(a * x - (1 - a))
    return float(-x[0])


def theorem_3(seed: int, size: float) -> list[Verdict]:
    """Theorem 3, blocks of several units: one gamma and lambda for all samples, not one a sample."""
    claim = "GREEDY-Thm3"
    features, defects, inverse, converted = columns(_round_trips(seed, problems.count(1000, size)))
    U, X = np.array([1.0, 1.0]), np.array([1.0, 2.0])
    common = np.abs(np.maximum(np.linspace(-4, 4, 8001)[:, None] * U, 0) - X).max(axis=1).min()
    return [
        compare(claim, "eps times the error of the features after there and back", largest(features), "<=", 1e-10),
        compare(
            claim, "strict model with self-loops added: |X - relu(A X + B U)|, relative", largest(defects), "<=", 1e-12
        ),
        compare(claim, "eps times the error of gamma, lambda after there and back", largest(inverse), "<=", 1e-10),
        compare(
            claim,
            "self-loops removed: |X - relu(A X + B U)| with the given A, relative",
            largest(converted),
            "<=",
            1e-12,
        ),
        compare(
            claim, "eps = 1 - a_kk, one a row: A and B come back, relative", _exact_inverse(seed, size), "<=", 1e-12
        ),
        compare(
            claim,
            "U = (1, 1), X = (1, 2): each sample has its lambda, the largest error of them",
            np.abs(np.maximum(X / U * U, 0) - X).max(),
            "==",
            0,
        ),
        compare(claim, "...so X is feasible: least error of one lambda", common, "<=", 1e-12, form=PRINTED),
        compare(claim, "...which is", common, "==", 0.5, slack=1e-12),
    ]


def _round_trips(seed: int, trials: int) -> Iterator[tuple[tuple, str]]:
    for k, sizes in enumerate(partitions(trials)):
        model, x = draw(seed + k, sizes)
        rng = np.random.default_rng(seed + k)
        eps = float(10 ** rng.uniform(-6, np.log10(1.999)))
        z, loops = model.features(x), seq.with_self_loops(model, eps)
        back = seq.remove_self_loops(loops.A, loops.B)
        coefficients = max(scaled(f - g, g) for f, g in zip(back, (model.A, model.B), strict=True))
        A, B, u = looped(rng, len(model.A))
        given = seq.SelfLoopModel(A, B, np.ones((1, len(A))), sizes)
        state = given.features(u)
        row = (
            eps * scaled(loops.features(x) - z, z),
            scaled(z - step(loops.A, loops.B, x, z), z),
            eps * coefficients,
            scaled(state - step(A, B, u, state), state),
        )
        yield row, f"sizes {sizes}, eps = {eps:.2g}, seed {seed + k}"


def _exact_inverse(seed: int, size: float) -> float:
    errors = []
    for k in range(problems.count(100, size)):
        A, B, _ = looped(np.random.default_rng(seed + k), 1 + k % 8)
        again = seq.add_self_loops(*seq.remove_self_loops(A, B), 1 - np.diag(A))
        errors += [scaled(f - g, g) for f, g in zip(again, (A, B), strict=True)]
    return max(errors)
