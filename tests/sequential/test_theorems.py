"""Theorems 2 and 3: self-loops removed and added, against fixed points found without them."""

from __future__ import annotations

import dataclasses

import numpy as np
import oracles
import pytest
from oracles import assert_close, size

import implicitref as ir

seq = ir.sequential


def looped(n=5, p=2, q=2, seed=0, largest=0.9):
    """An upper triangular A with diagonal in (-largest, largest), B, C and four inputs."""
    rng = np.random.default_rng(seed)
    A = np.triu(rng.normal(size=(n, n)))
    np.fill_diagonal(A, rng.uniform(-largest, largest, n))
    return A, rng.normal(size=(n, p)), rng.normal(size=(q, n)), rng.normal(size=(4, p)), rng


def picard(A, B, x, steps=4000):
    """The fixed point of the implicit rows by plain iteration."""
    z = np.zeros((len(x), len(A)))
    for _ in range(steps):
        z, before = np.maximum(z @ A.T + x @ B.T, 0), z
        if np.array_equal(z, before):
            break
    return z


# ------------------------------------------------------------------------------------------------
# from implicit to explicit and back


@pytest.mark.claim("GREEDY-Thm3", "GREEDY-Eq15", "GREEDY-Eq13")
@pytest.mark.parametrize("seed", range(20))
def test_explicit_rows_have_the_features_of_implicit_ones(seed):
    A, B, C, x, _ = looped(seed=seed)
    model = seq.SelfLoopModel(A, B, C, (2, 3))
    z = picard(A, B, x)
    assert_close(model.features(x), z, scale=size(z), tol=1e-12)
    gamma, lam = seq.remove_self_loops(A, B)
    assert_close(z, np.maximum(z @ gamma.T + x @ lam.T, 0), scale=size(z), tol=1e-12)
    assert not np.tril(gamma).any()
    again = model.features(x)
    assert_close(again, np.maximum(again @ A.T + x @ B.T, 0), scale=size(z), tol=1e-14)
    assert_close(model.predict(x), z @ C.T, scale=size(z), tol=1e-12)


@pytest.mark.claim("GREEDY-Thm3")
@pytest.mark.parametrize("eps", [1e-3, 0.1, 0.5, 1.0, 1.7, 1.999])
def test_round_trip_of_a_strict_model(eps):
    A, B, C, x, _ = looped(n=6, seed=3)
    strict = seq.BlockTriangularModel(np.triu(A, 1) * np.kron(1 - np.eye(3), np.ones((2, 2))), B, C, (2, 2, 2))
    model = seq.with_self_loops(strict, eps)
    assert model.sizes == strict.sizes
    np.testing.assert_array_equal(np.diag(model.A), 1 - eps)
    gamma, lam = seq.remove_self_loops(model.A, model.B)
    assert_close(gamma, strict.A, scale=size(strict.A), tol=1e-14 / eps)
    assert_close(lam, B, scale=size(B), tol=1e-14 / eps)
    z = strict.features(x)
    assert_close(model.features(x), z, scale=size(z), tol=1e-13 / eps)
    # feasible for (13) with the same features
    assert_close(np.maximum(z @ model.A.T + x @ model.B.T, 0), z, scale=size(z), tol=1e-13)


@pytest.mark.claim("GREEDY-Thm3")
@pytest.mark.parametrize("seed", range(5))
def test_the_two_functions_are_inverses(seed):
    A, B, _, _, rng = looped(seed=seed, largest=0.999)
    gamma, lam = seq.remove_self_loops(A, B)
    again = seq.add_self_loops(gamma, lam, 1 - np.diag(A))
    for found, wanted in zip(again, (A, B), strict=True):
        assert_close(found, wanted, scale=size(wanted), tol=1e-14)
    eps = rng.uniform(0.01, 1.99, len(A))
    back = seq.remove_self_loops(*seq.add_self_loops(gamma, lam, eps))
    for found, wanted in zip(back, (gamma, lam), strict=True):
        assert_close(found, wanted, scale=size(wanted), tol=1e-13)


@pytest.mark.claim("GREEDY-Thm2")
@pytest.mark.parametrize("i", [1, 2, 5])
def test_theorem_2_is_one_row(i):
    # given features X_{i-1}, ..., X_1 >= 0 of earlier blocks of size one, own state first
    rng = np.random.default_rng(i)
    earlier, x = np.abs(rng.normal(size=(30, i - 1))), rng.normal(size=(30, 3))
    row, b = rng.normal(size=(1, i)), rng.normal(size=(1, 3))
    row[0, 0] = -0.7
    gamma, lam = seq.remove_self_loops(row, b)
    assert_close(gamma[0, 1:], row[0, 1:] / 1.7, scale=1, tol=1e-15)
    given = earlier @ row[0, 1:] + x @ b[0]
    fixed = np.zeros(30)
    for _ in range(200):
        fixed = np.maximum(-0.7 * fixed + given, 0)
    assert_close(np.maximum(earlier @ gamma[0, 1:] + x @ lam[0], 0), fixed, scale=size(fixed), tol=1e-14)
    a, b2 = seq.add_self_loops(gamma, lam, 0.25)
    assert_close(np.maximum(0.75 * fixed + earlier @ a[0, 1:] + x @ b2[0], 0), fixed, scale=size(fixed), tol=1e-14)


@pytest.mark.claim("GREEDY-Thm3")
def test_theorem_3_is_one_block_row():
    A, B, _, _, _ = looped(n=6)
    rows = seq.remove_self_loops(A[2:4, 2:], B[2:4])  # block row 2 of sizes (2, 2, 2): its own states first
    whole = seq.remove_self_loops(A, B)
    np.testing.assert_array_equal(rows[0], whole[0][2:4, 2:])
    np.testing.assert_array_equal(rows[1], whole[1][2:4])
    back = seq.add_self_loops(*rows, np.array([0.5, 1.5]))
    np.testing.assert_array_equal(np.diagonal(back[0]), [0.5, -0.5])


@pytest.mark.claim("GREEDY-Thm3", "GREEDY-Eq15")
def test_coefficients_must_not_depend_on_the_sample():
    # n_i = p = 1, U = (1, 1), X = (1, 2): for each l there is a lambda, for both there is none
    U, X = np.array([1.0, 1.0]), np.array([1.0, 2.0])
    each = X / U
    np.testing.assert_array_equal(np.maximum(each * U, 0), X)
    lams = np.linspace(-3, 3, 6001)
    worst = np.abs(np.maximum(lams[:, None] * U, 0) - X).max(axis=1)
    assert worst.min() == pytest.approx(0.5, abs=1e-12)
    # and with self-loops there is none either: x = relu(a x + b u) is a function of u
    a, b = np.meshgrid(np.linspace(-0.99, 0.99, 67), np.linspace(-4, 4, 801))
    x = np.maximum(b[..., None] * U, 0) / (1 - a[..., None])
    assert np.abs(x - X).max(axis=-1).min() >= 0.5 - 1e-12


@pytest.mark.claim("GREEDY-Thm2", "GREEDY-Thm3")
def test_other_activations_are_refused_and_why():
    leaky, a, u = ir.activations.leaky_relu(0.1), 0.5, -1.0
    x = 0.0
    for _ in range(200):
        x = float(leaky(np.array([a * x + (1 - a) * u]))[0])
    # an explicit unit has slope .1 for u < 0 whatever the scale of its row
    assert x / u == pytest.approx(0.1 * (1 - a) / (1 - 0.1 * a), rel=1e-14)
    assert x / u == pytest.approx(0.0526, abs=5e-5)
    model = seq.BlockTriangularModel(np.zeros((1, 1)), np.ones((1, 1)), np.ones((1, 1)), (1,), leaky)
    with pytest.raises(ir.HypothesisError, match=r"ReLU only \[GREEDY-Thm3\]; got leaky_relu"):
        seq.with_self_loops(model, 0.5)


# ------------------------------------------------------------------------------------------------
# gradients


@pytest.mark.claim("GREEDY-Eq13")
@pytest.mark.parametrize("seed", range(3))
def test_gradients_against_differences_and_implicit_differentiation(seed):
    A, B, C, x, rng = looped(seed=seed)
    model, dy = seq.SelfLoopModel(A, B, C, (1, 4)), rng.normal(size=(4, 2))
    z = model.features(x)
    pre = z @ A.T + x @ B.T
    assert np.abs(pre).min() > 1e-4, "a pre-activation near the kink"
    grads = model.predict_vjp(x, z, dy)
    # (I - A' J) w = dz, dpre = J w: what the theorem spares
    dpre = np.stack([j * np.linalg.solve(np.eye(5) - A.T * j, g) for j, g in zip(1.0 * (pre > 0), dy @ C, strict=True)])
    expected = {"A": np.triu(dpre.T @ z), "B": dpre.T @ x, "C": dy.T @ z, "x": dpre @ B}
    for name, value in expected.items():
        assert_close(grads[name], value, scale=size(value), tol=1e-12)
        at = x if name == "x" else model.params[name]
        direction = rng.normal(size=at.shape)
        direction = np.triu(direction) if name == "A" else direction

        def loss(value, name=name):
            moved = model if name == "x" else dataclasses.replace(model, **{name: value})
            return (dy * moved.predict(value if name == "x" else x)).sum()

        slope = oracles.central_difference(loss, at, direction, 1e-6)
        assert_close((grads[name] * direction).sum(), slope, scale=size(slope), tol=1e-7)


@pytest.mark.claim("GREEDY-Eq13")
def test_descent_on_the_non_strict_problem_needs_no_fixed_point_iteration():
    A, B, C, x, rng = looped(n=4, seed=8, largest=0.5)
    model, y = seq.SelfLoopModel(A, B, C, (2, 2)), rng.normal(size=(4, 2))
    losses = []
    for _ in range(30):
        z = model.features(x)
        error = z @ model.C.T - y
        losses.append(0.5 * (error**2).sum())
        grads = model.predict_vjp(x, z, error)
        model = dataclasses.replace(model, **{name: model.params[name] - 0.01 * grads[name] for name in "ABC"})
    assert losses[-1] < 0.5 * losses[0]
    assert np.all(np.diff(losses) < 0)


def test_rows_on_every_backend(backend):
    A, B, _, _, rng = looped(n=2, seed=2)
    cotangents, eps = (rng.normal(size=A.shape), rng.normal(size=B.shape)), np.array([0.5, 1.5])

    def computed(to):
        rows = seq.remove_self_loops(to(A), to(B))
        if backend.name == "jax":  # every shape of every operation is compiled
            return rows
        return [*rows, *seq.add_self_loops(*rows, to(eps)), *seq.remove_self_loops_vjp(*map(to, (A, B, *cotangents)))]

    for ours, theirs in zip(computed(backend), computed(np.asarray), strict=True):
        assert_close(backend.numpy(ours), theirs, scale=size(theirs), tol=300 * backend.eps)


# ------------------------------------------------------------------------------------------------
# what is refused

UPPER, ROWS = np.array([[0.0, 1.0], [0.0, 0.0]]), np.ones((2, 1))


@pytest.mark.claim("GREEDY-Thm2", "GREEDY-Thm3")
@pytest.mark.parametrize("eps", [0.0, -0.5, 2.0, 2.5, np.inf, np.nan, 1e-17], ids=str)
def test_eps_lies_strictly_between_0_and_2(eps):
    with pytest.raises(ir.HypothesisError, match=r"eps must lie in \(0, 2\)"):
        seq.add_self_loops(UPPER, ROWS, eps)
    with pytest.raises(ir.HypothesisError, match=r"eps must lie in \(0, 2\)"):
        seq.add_self_loops(UPPER, ROWS, np.array([1.0, eps]))


def test_the_eps_that_is_worst_is_named():
    with pytest.raises(ir.HypothesisError, match=r"got -0\.5\.$"):
        seq.add_self_loops(UPPER, ROWS, np.array([-0.5, 2.1]))


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: seq.add_self_loops(UPPER, ROWS, "1"), ir.HypothesisError, "eps must be a number or an array"),
        (lambda: seq.add_self_loops(UPPER, ROWS, np.ones(3)), ir.ShapeError, r"have shape \(2,\); got \(3,\)"),
        (lambda: seq.add_self_loops(np.eye(2), ROWS, 1.0), ir.HypothesisError, "strictly upper triangular"),
        (lambda: seq.add_self_loops(UPPER.T, ROWS, 1.0), ir.HypothesisError, "gamma must be upper triangular"),
        (lambda: seq.remove_self_loops(UPPER.T, ROWS), ir.HypothesisError, "A must be upper triangular"),
        (lambda: seq.remove_self_loops(np.eye(2), ROWS), ir.HypothesisError, r"lie in \(-1, 1\).*got 1"),
        (lambda: seq.remove_self_loops(-1.5 * np.eye(2), ROWS), ir.HypothesisError, r"got -1\.5"),
        (lambda: seq.remove_self_loops(UPPER * np.nan, ROWS), ir.HypothesisError, "A must be finite"),
        (lambda: seq.remove_self_loops(UPPER, ROWS[:1]), ir.ShapeError, r"A, B must have shapes \(k, n\)"),
        (lambda: seq.remove_self_loops(np.zeros((3, 2)), np.ones((3, 1))), ir.ShapeError, "k <= n"),
        (lambda: seq.remove_self_loops(np.zeros((0, 0)), np.ones((0, 1))), ir.ShapeError, r"got \(0, 0\)"),
        (lambda: seq.remove_self_loops([[0.0]], ROWS), TypeError, "A must be an array"),
        (lambda: seq.SelfLoopModel(UPPER, ROWS, ROWS, (1, 1)), ir.ShapeError, "A, B, C must have shapes"),
        (lambda: seq.SelfLoopModel(UPPER + np.eye(2), ROWS, ROWS.T, (1, 1)), ir.HypothesisError, "GREEDY-Eq13"),
    ],
)
def test_bad_input_is_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()
