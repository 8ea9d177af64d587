"""Models with self-loops, trained: the loss never rises, the features solve (13), and eps changes nothing."""

from __future__ import annotations

import time

import numpy as np
import oracles
import pytest
from oracles import assert_close, size

import implicitref as ir

seq = ir.sequential
non_strict = seq.non_strict


def task(m=40, seed=0):
    rng = np.random.default_rng(seed)
    u = np.sort(rng.uniform(-2, 2, m))
    return np.column_stack([u, np.ones(m)]), np.column_stack([np.abs(np.abs(u) - 1), u]) + 0.05 * rng.normal(
        size=(m, 2)
    )


X, Y = task()
BEGAN = time.perf_counter()
MODEL = seq.fit_non_strict(X, Y, 4, 2, eps=0.5, random_state=0)
TOOK = time.perf_counter() - BEGAN


@pytest.mark.claim("GREEDY-Eq13")
def test_what_is_trained_is_a_non_strict_model():
    z, n = MODEL.features(X), 4
    assert MODEL.sizes == (2, 2)
    np.testing.assert_array_equal(np.diag(MODEL.A), np.full(n, 0.5))
    assert max(abs(MODEL.A[0, 1]), abs(MODEL.A[2, 3])) > 0.01, "units of a block should be coupled"
    assert np.abs(z - np.maximum(z @ MODEL.A.T + X @ MODEL.B.T, 0)).max() <= 1e-12
    loss = ((MODEL.predict(X) - Y) ** 2).sum() / (2 * len(X))
    assert loss == pytest.approx(MODEL.history[-1].loss, rel=1e-12)
    assert [record.block for record in MODEL.history] == [1, 2]
    assert 0 < sum(record.seconds for record in MODEL.history) <= TOOK
    assert sum(record.dead for record in MODEL.history) == np.sum(~z.any(axis=0))


@pytest.mark.claim("GREEDY-Eq13", "GREEDY-Thm3")
def test_eps_changes_the_matrices_and_not_the_model():
    eps = np.array([0.1, 0.5, 1.0, 1.9])
    other = seq.fit_non_strict(X, Y, 4, 2, eps=eps, random_state=0)
    assert_close(np.diag(other.A), 1 - eps, scale=1, tol=1e-15)
    assert_close(other.predict(X), MODEL.predict(X), scale=size(Y), tol=1e-12)


@pytest.mark.claim("GREEDY-Eq13")
@pytest.mark.parametrize("loss", ["squared", "cross-entropy"])
def test_coupling_never_raises_the_loss(loss):
    rng = np.random.default_rng(2)
    x = np.column_stack([rng.normal(size=(40, 2)), np.ones(40)])
    y = rng.normal(size=(40, 1)) if loss == "squared" else rng.integers(0, 2, 40)
    model, gains = None, []
    for n in (3, 1):
        before = () if model is None else model.sizes
        strict = next(seq.greedy(x, y, (*before, n), loss=loss, solver="l-bfgs", random_state=1, start=model))
        assert model is None or strict.history[-1].before == pytest.approx(model.history[-1].loss, rel=1e-12)
        model = non_strict.coupled(strict, x, y, loss, np.random.default_rng(5))
        gains.append(strict.history[-1].loss - model.history[-1].loss)
        assert model.sizes == (1,) * sum(strict.sizes)
    assert min(gains) >= -1e-14  # the loss of one model, summed in two ways
    assert max(gains) > 1e-3, "couplings never helped: the test shows nothing"
    one_hot = np.eye(2)[y] if loss == "cross-entropy" else y
    np.testing.assert_array_equal(non_strict.coupled(strict, x, one_hot, loss, np.random.default_rng(5)).A, model.A)


@pytest.mark.parametrize(("n", "count"), [(1, 1), (3, 1 + non_strict.DRAWS)])
def test_couplings_are_searched_from_zero_and_from_drawn_ones(n, count, monkeypatch):
    strict, starts = next(seq.greedy(X, Y, (n,), random_state=0)), []
    monkeypatch.setattr(non_strict, "searched", lambda rows, *rest: starts.append(rows.T) or rows)
    non_strict.coupled(strict, X, Y, "squared", np.random.default_rng(0))
    assert len(starts) == len({T.tobytes() for T in starts}) == count
    assert not starts[0].any()
    assert all((np.triu(T, 1) == T).all() for T in starts)


@pytest.mark.claim("GREEDY-Eq13")
@pytest.mark.parametrize("loss", ["squared", "cross-entropy"])
def test_gradient_against_differences(loss):
    rng = np.random.default_rng(4)
    rows = non_strict.Rows(np.triu(rng.normal(size=(3, 3)), 1), rng.normal(size=(3, 4)), rng.normal(size=(2, 5)))
    u, y = np.abs(rng.normal(size=(20, 4))), rng.normal(size=(20, 2)) if loss == "squared" else rng.integers(0, 2, 20)
    _, gradient = non_strict.value_and_gradients(rows, u, y, loss)
    assert not np.tril(gradient.T).any()
    direction = rng.normal(size=rows.flat().size)
    direction[: rows.T.size] *= np.triu(np.ones((3, 3)), 1).ravel()

    def value(theta):
        return non_strict.value_and_gradients(rows.at(theta), u, y, loss)[0]

    slope = oracles.central_difference(value, rows.flat(), direction, 1e-6)
    assert_close(gradient.flat() @ direction, slope, scale=size(slope), tol=1e-7)


def test_results_follow_the_first_array_and_the_seed():
    x32, y32 = (a.astype(np.float32) for a in (X, Y))
    model = seq.fit_non_strict(x32, y32, 3, 2, random_state=np.random.default_rng(3))
    assert {p.dtype for p in model.params.values()} == {np.dtype("float32")}
    again = seq.fit_non_strict(x32, y32, 3, 2, random_state=np.random.default_rng(3))
    np.testing.assert_array_equal(model.A, again.A)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((X, Y, 3, 4), {}, ir.HypothesisError, "n_blocks = 4, order = 3"),
        ((X, Y, 3, 2), {"eps": 2.0}, ir.HypothesisError, r"eps must lie in \(0, 2\)"),
        ((X, Y, 3, 2), {"eps": np.ones(2)}, ir.ShapeError, r"have shape \(3,\)"),
        ((X, Y[:5], 3, 2), {}, ir.ShapeError, "y must have a row for each of the 40"),
        ((X * np.nan, Y, 3, 2), {}, ir.HypothesisError, "x must be finite"),
        ((X, Y.tolist(), 3, 2), {}, TypeError, "y must be an array"),
        ((X, Y, 3, 2), {"loss": "hinge"}, ir.HypothesisError, "loss must be one of"),
        ((X, Y, 3, 2), {"solver": "newton"}, ir.HypothesisError, "solver must be one of"),
        ((X, Y, 3, 2), {"random_state": -1}, ir.HypothesisError, "random_state must be"),
    ],
)
def test_bad_input_is_refused(arguments, options, error, words):
    with pytest.raises(error, match=words):
        seq.fit_non_strict(*arguments, **options)
