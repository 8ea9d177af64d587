"""Estimators: certificates against attack and exact cases, weights, incremental training, scikit-learn's tools."""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import scipy.special

pytest.importorskip("sklearn")
from oracles import assert_close
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from implicitref import training
from implicitref.errors import HypothesisError
from implicitref.estimators import (
    ImplicitClassifier,
    JFBClassifier,
    MONClassifier,
    MONRegressor,
    SequentialImplicitClassifier,
    SequentialImplicitRegressor,
    certificates,
    targets,
)
from implicitref.networks import implicit_model, mon_conv, mon_fc, mon_multitier, mon_network

X, Y = load_iris(return_X_y=True)
CLASSIFIERS = {
    "mon": MONClassifier(hidden=8, max_iter=10, random_state=0),
    "jfb": JFBClassifier(hidden=8, latent=6, max_iter=10, random_state=0),
    "implicit": ImplicitClassifier(order=8, max_iter=10, random_state=0),
    "sequential": SequentialImplicitClassifier(order=6, n_blocks=2, random_state=0),
}
NUMBERS = np.stack([X[:, 0] * X[:, 1], np.sin(X[:, 2])], axis=1)


@pytest.fixture(scope="module")
def fitted():
    return {name: clone(model).fit(X, Y) for name, model in CLASSIFIERS.items()}


# ------------------------------------------------------------------------------------------------
# certificates


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_no_point_inside_the_radius_has_another_class(name, fitted):
    model, rng = fitted[name], np.random.default_rng(0)
    radius, labels = model.certified_radius(X), model.predict(X)
    assert (radius > 0).mean() > 0.9
    for _ in range(10):
        step = rng.normal(size=X.shape)
        step *= 0.999 * radius[:, None] / np.linalg.norm(step, axis=1, keepdims=True)
        assert (model.predict(X + step) == labels).all()


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_margin_moves_no_faster_than_its_lipschitz_constant(name, fitted):
    model, rng = fitted[name], np.random.default_rng(1)
    lipschitz = model.certified_lipschitz()
    step = 0.1 * rng.normal(size=X.shape)
    there, here = model._logits(X + step), model._logits(X)
    moved = (there - here)[:, :, None] - (there - here)[:, None, :]
    limit = lipschitz * np.linalg.norm(step, axis=1)[:, None, None]
    assert (np.abs(moved) <= limit + 1e-7).all()
    assert (np.abs(moved) / np.maximum(limit, 1e-12)).max() > 1e-3, "a bound that says something"


def flat_network():
    """z* = relu(2 x), logits 3 z and 6: the class changes at x = 1."""
    one = np.eye(1)
    arrays = {"U": 2 * one, "b": 0 * one[0], "A": 0 * one, "B": one, "m": 1.0}
    return mon_network({**arrays, "Wout": np.array([[3.0], [0.0]]), "bout": np.array([0.0, 6.0])})


def radius_of(network, x):
    rows = certificates.pairs(network.readout_weight)
    lipschitz = certificates.input_lipschitz(network, rows).reshape(2, 2)
    return certificates.radius(network.logits(x), np.zeros((len(x), 2)), lipschitz)


def test_radius_is_attained():
    x = np.array([[3.0], [1.25], [0.5]])
    assert_close(radius_of(flat_network(), x), np.abs(x[:, 0] - 1), scale=1, tol=1e-6)


def test_a_constant_without_the_cross_term_is_noticed(monkeypatch):
    dense = certificates._dense
    monkeypatch.setattr(certificates, "_dense", lambda *a: (dense(*a)[0], 0 * dense(*a)[1], dense(*a)[2]))
    x = np.array([[3.0]])
    reach = radius_of(flat_network(), x)
    moved = flat_network().logits(x - 0.999 * reach)
    assert moved.argmax() != flat_network().logits(x).argmax()


MAKERS = {
    "dense": lambda rng: mon_fc(rng, 6, 9, 3, 0.7, dtype=np.float64),
    "conv": lambda rng: mon_conv(rng, (1, 6, 6), 3, 3, 0.7, dtype=np.float64),
    "multitier": lambda rng: mon_multitier(rng, (2, 4, 4), (2, 3), 3, 0.7, dtype=np.float64),
}


@pytest.mark.claim("NEW-sensitivity")
@pytest.mark.parametrize("name", MAKERS)
def test_input_lipschitz_lies_between_what_happens_and_the_plain_bound(name):
    rng = np.random.default_rng(2)
    network = MAKERS[name](rng)
    rows = certificates.pairs(network.readout_weight)
    found = certificates.input_lipschitz(network, rows)
    plain = certificates.state_lengths(network, rows) * certificates.injection_norm(network) / network.W.m
    assert (found <= plain * (1 + 1e-9)).all()
    x, step = rng.normal(size=(40, *network.input_shape)), 1e-3 * rng.normal(size=(40, *network.input_shape))
    change = network.logits(x + step, tol=1e-9) - network.logits(x, tol=1e-9)
    moved = (change[:, :, None] - change[:, None, :]).reshape(40, -1)
    length = np.linalg.norm(step.reshape(40, -1), axis=1, keepdims=True)
    assert (np.abs(moved) <= found * length + 1e-8).all()


@pytest.mark.parametrize("name", ["conv", "multitier"])
def test_injection_norm_bounds_the_matrix_of_the_injection(name):
    network = MAKERS[name](np.random.default_rng(3))
    units = np.eye(int(np.prod(network.input_shape))).reshape(-1, *network.input_shape)
    matrix = (network.inject(units) - network.inject(0 * units)).reshape(len(units), -1)
    exact, bound = np.linalg.norm(matrix, 2), certificates.injection_norm(network)
    assert exact <= bound <= 1.2 * exact


def test_input_lipschitz_where_rounding_outweighs_the_modulus():
    mp = pytest.importorskip("mpmath")
    rng, n, m = np.random.default_rng(4), 12, 1e-8
    A, B, U = 1e3 * rng.normal(size=(n, n)), 1e7 * rng.normal(size=(n, n)), rng.normal(size=(n, 1))
    A[0] = 0
    arrays = {"U": U, "b": np.zeros(n), "A": A, "B": B, "m": m, "Wout": np.eye(n), "bout": np.zeros(n)}
    c = rng.normal(size=(3, n))
    with mp.workdps(60):
        factor, down = mp.matrix(A.tolist()), mp.matrix(U.tolist())
        inverse = (factor.T * factor + mp.mpf(m) * mp.eye(n)) ** -1
        size = mp.sqrt((down.T * inverse * down)[0])
        rows = [mp.matrix(row.tolist()) for row in c]
        exact = [(abs((down.T * inverse * r)[0]) + size * mp.sqrt((r.T * inverse * r)[0])) / 2 for r in rows]
        found = certificates.input_lipschitz(mon_network(arrays), c)
        assert all(bound >= value for bound, value in zip(found, exact, strict=True))


@pytest.mark.parametrize("upper", [False, True])
def test_entrywise_lipschitz_of_large_triangular_weights_against_integers(upper):
    rng, n = np.random.default_rng(0), 16
    A, B = np.tril(rng.integers(-9, 10, size=(n, n)), -1), rng.integers(-9, 10, size=(n, 2))
    reach = np.abs(B).astype(object)  # Python's integers: exact
    for i in range(n):
        reach[i] = reach[i] + np.abs(A[i, :i]).astype(object) @ reach[:i] if i else reach[i]
    if upper:
        A, B, reach = A[::-1, ::-1], B[::-1], reach[::-1]
    exact = np.linalg.norm(reach.astype(float), axis=1)
    found = certificates.entrywise_lipschitz(A.astype(float), B.astype(float), np.eye(n))
    assert (found >= exact).all()  # a plain solve falls short by 4e-6 where it pivots, below the diagonal
    assert (found <= exact * (1 + (1e-12 if upper else 1e-3))).all()


def test_rounding_of_a_readout_is_counted():
    rng = np.random.default_rng(5)
    weight, z = 1e8 + rng.normal(size=(3, 40)), rng.normal(size=(20, 40))
    exact = [[math.fsum(map(float.__mul__, row, point)) for row in weight.tolist()] for point in z.tolist()]
    off, slack = np.abs(z @ weight.T - exact), certificates.readout_rounding(z, weight, 0.0, 40)
    assert (off <= slack).all()
    assert off.max() > 0
    logits = np.array([[1.0, 0.9, 0.0]])
    assert certificates.together(np.array([[0.3, 0.2, 0.1]]), logits).tolist() == [[0.6, 0.5, 0.4]]


def test_the_error_of_a_prediction_counts_rounding_to_the_dtype():
    narrow = X.astype(np.float32)
    for model in (MONRegressor(hidden=4, max_iter=2), SequentialImplicitRegressor(4, 2)):
        model = clone(model).set_params(random_state=0).fit(narrow, 1e3 + NUMBERS)
        prediction, _, error = model.predict_with_bound(narrow)
        exact = model.predict(narrow.astype(np.float64))
        assert prediction.dtype == np.float32
        assert np.abs(prediction - exact).max() > 1e-6
        assert (np.abs(prediction - exact) <= error).all()


def test_state_bounds_and_certain_classes(fitted):
    for model in fitted.values():
        prediction, bound, certain = model.predict_with_bound(X)
        assert (prediction == model.predict(X)).all()
        assert bound.shape == certain.shape == Y.shape
        assert bound.max() < 1e-6
        assert certain.all()


def test_the_state_of_a_prediction_is_within_its_bound(fitted):
    model = fitted["mon"]
    network, x = model.network_, model._scaled(X)
    solution = targets.settled(network, x, "peaceman-rachford", 1e-3)
    W, b, z = network.W.to_dense(), network.inject(x), 0 * solution.z
    for _ in range(4000):  # forward-backward with a small step, by hand
        z = np.maximum(z - 0.02 * (z - z @ W.T - b), 0)
    distance = np.linalg.norm(solution.z - z, axis=1)
    assert (distance <= solution.bound + 1e-9).all()
    assert (distance > 1e-9).any()


def test_what_is_not_certain_says_so():
    logits, lengths = np.array([[1.0, 0.9], [1.0, 0.0]]), np.array([[0.0, 1.0], [1.0, 0.0]])
    doubt = lengths[logits.argmax(axis=1)] * 0.5
    assert (certificates.lead(logits, doubt).min(axis=1) > 0).tolist() == [False, True]
    assert certificates.radius(logits, doubt, lengths).tolist() == [0.0, 0.5]


def test_nothing_is_certain_where_no_contraction_is_proven():
    images, labels = load_digits(return_X_y=True)
    model = JFBClassifier("conv", max_iter=1, random_state=0).fit(images[:100], labels[:100])
    _, bound, certain = model.predict_with_bound(images[:5])
    assert np.isinf(bound).all()
    assert not certain.any()
    assert (model.certified_radius(images[:5]) == 0).all()


@pytest.mark.parametrize("model", [MONRegressor(hidden=8, max_iter=20), SequentialImplicitRegressor(6, 2)])
def test_regressors_move_no_faster_than_their_lipschitz_constant(model):
    model = clone(model).set_params(random_state=0).fit(X, NUMBERS)
    prediction, bound, error = model.predict_with_bound(X)
    assert prediction.shape == error.shape == NUMBERS.shape
    assert bound.shape == (150,)
    step = 0.1 * np.random.default_rng(0).normal(size=X.shape)
    moved = np.abs(model.predict(X + step) - prediction)
    assert (moved <= model.certified_lipschitz() * np.linalg.norm(step, axis=1)[:, None] + 2 * error + 1e-9).all()


# ------------------------------------------------------------------------------------------------
# gradients: the learner against the network's own, finite differences, the rules by their formula


def recipe(rule="implicit", loss="cross-entropy"):
    return targets.MonRecipe(1, 8, tol=1e-10, rule=rule, loss=loss)


def gradients(network, x, wanted, **options):
    state = training.start(network, np.random.default_rng(0))
    return targets.mon_learner(recipe(**options)).gradients(state, x, wanted, recipe(**options))[:2]


@pytest.mark.parametrize("name", MAKERS)
def test_learner_has_the_gradient_of_the_network(name):
    rng = np.random.default_rng(4)
    network = MAKERS[name](rng)
    x, labels = rng.normal(size=(5, *network.input_shape)), rng.integers(3, size=5)
    found, step = gradients(network, x, targets.Targets(labels))
    exact = network.gradients(x, labels, tol=1e-10)
    assert set(found) == set(network.params)
    assert_close(step.loss, exact.loss, scale=1, tol=1e-8)
    for key, gradient in exact.grads.items():
        assert_close(found[key], gradient, scale=1, tol=1e-7)


def test_weighted_squared_loss_against_differences():
    rng = np.random.default_rng(5)
    network, x, y = MAKERS["dense"](rng), rng.normal(size=(4, 6)), rng.normal(size=(4, 3))
    weights, direction = np.array([2.0, 0.5, 1.0, 0.5]), rng.normal(size=(9, 6))
    found, step = gradients(network, x, targets.Targets(y, weights), loss="squared")

    def loss(t):
        prediction = network.replace(U=network.U + t * direction).logits(x, tol=1e-12)
        return weights @ np.sum((prediction - y) ** 2, axis=1) / 8

    assert_close(step.loss, loss(0.0), scale=1, tol=1e-8)
    slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
    assert abs(slope - np.sum(found["U"] * direction)) < 1e-7


@pytest.mark.parametrize(("rule", "terms"), [("jfb", 0), ("neumann:2", 2)])
def test_rules_by_their_formula(rule, terms):
    rng = np.random.default_rng(6)
    W = MAKERS["dense"](rng).W
    jac, dz = rng.uniform(size=(3, 9)), rng.normal(size=(3, 9))
    found, _ = targets.cotangent(W, jac, dz, recipe(rule), 1.0)
    for row in range(3):
        K = jac[row][:, None] * W.to_dense()
        w = sum(np.linalg.matrix_power(K.T, k) @ dz[row] for k in range(terms + 1))
        assert_close(found[row], jac[row] * w, scale=np.abs(w).max(), tol=1e-13)


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"rule": "exact"}, "rule must be"), ({"max_iter": 0}, "epochs must be"), ({"batch_size": 0}, "batch must be")],
)
def test_settings_that_mean_nothing_are_refused(setting, message):
    with pytest.raises(HypothesisError, match=message):
        MONClassifier(**setting).fit(X, Y)


# ------------------------------------------------------------------------------------------------
# training


@pytest.mark.parametrize("model", [MONRegressor(hidden=4, max_iter=5), SequentialImplicitRegressor(4, 2)])
def test_a_weight_is_a_repetition(model):
    weights = np.random.default_rng(0).integers(3, size=150)
    model = clone(model).set_params(random_state=0)
    one = clone(model).fit(X, NUMBERS, sample_weight=weights).predict(X)
    two = clone(model).fit(X.repeat(weights, axis=0), NUMBERS.repeat(weights, axis=0)).predict(X)
    assert np.array_equal(one, two)
    assert not np.array_equal(one, clone(model).fit(X, NUMBERS).predict(X))


@pytest.mark.parametrize("name", ["mon", "implicit"])
def test_a_weight_is_a_repetition_for_classes_too(name):
    weights, model = np.random.default_rng(0).integers(3, size=150), CLASSIFIERS[name]
    one = clone(model).fit(X, Y, sample_weight=weights).predict_proba(X)
    two = clone(model).fit(X.repeat(weights, axis=0), Y.repeat(weights, axis=0)).predict_proba(X)
    assert np.array_equal(one, two)
    assert not np.array_equal(one, clone(model).fit(X, Y).predict_proba(X))
    held = clone(model).set_params(early_stopping=True).fit(X, Y, sample_weight=weights + 0.5)
    assert max(held.validation_scores_) == held.best_validation_score_ > 0.8


def test_implicit_models_with_weights_against_differences():
    rng = np.random.default_rng(5)
    network, x, labels = implicit_model(rng, 5, 6, 3), rng.normal(size=(4, 6)), np.array([0, 2, 1, 1])
    weights, direction = np.array([2.0, 0.5, 1.0, 0.5]), rng.normal(size=(5, 6))
    options = training.ImplicitRecipe("cross-entropy", tol=1e-12)
    state = training.start(network, rng)
    found, step, _ = targets.IMPLICIT.gradients(state, x, targets.Targets(labels, weights), options)

    def loss(t):
        logits = network.replace(B=network.B + t * direction).predict(x, tol=1e-13)
        return weights @ (scipy.special.logsumexp(logits, axis=1) - logits[np.arange(4), labels]) / 4

    assert_close(step.loss, loss(0.0), scale=1, tol=1e-10)
    assert_close(np.sum(found["B"] * direction), (loss(1e-5) - loss(-1e-5)) / 2e-5, scale=1, tol=1e-7)


@pytest.mark.parametrize("model", [MONRegressor(hidden=4, max_iter=5), SequentialImplicitRegressor(4, 2)])
def test_equal_weights_are_no_weights(model):
    x, first = np.unique(X[::-1], axis=0, return_index=True)
    x, y, model = x[::-1], NUMBERS[::-1][first][::-1], clone(model).set_params(random_state=0)
    found = clone(model).fit(x, y, sample_weight=np.full(len(x), 3.0)).predict(X)
    assert np.array_equal(found, clone(model).fit(x, y).predict(X))


@pytest.mark.parametrize("model", [MONRegressor(hidden=4, max_iter=5), SequentialImplicitRegressor(4, 2)])
def test_units_of_targets_and_inputs_do_not_matter(model):
    model = clone(model).set_params(random_state=0)
    one = clone(model).fit(X, NUMBERS).predict(X)
    two = clone(model).fit(8 * X, 4 * NUMBERS).predict(8 * X)  # powers of two: without rounding
    assert_close(two, 4 * one, scale=10, tol=1e-14)


def test_constant_inputs_are_not_divided_by_the_rounding_of_their_mean():
    model = MONRegressor(hidden=4, max_iter=2, random_state=0).fit(np.full((10, 2), 0.1), np.arange(10.0))
    assert model.scale_ == 1
    assert abs(model.predict(np.full((1, 2), 0.1 + 1e-9)) - model.predict(np.full((1, 2), 0.1))) < 1e-6


@pytest.mark.parametrize("name", ["mon", "jfb", "implicit"])
def test_partial_fit_learns_and_goes_on_from_fit(name):
    model = clone(CLASSIFIERS[name])
    for _ in range(15):
        model.partial_fit(X, Y, classes=[0, 1, 2])
    assert model.loss_curve_[-1] < 0.8 * model.loss_curve_[0]
    assert model.n_iter_ == len(model.loss_curve_) == 15
    assert clone(model).fit(X, Y).partial_fit(X[:50], Y[:50]).n_iter_ == model.max_iter + 1


def test_partial_fit_needs_the_classes():
    with pytest.raises(ValueError, match="classes"):
        MONClassifier().partial_fit(X, Y)
    model = MONClassifier(hidden=4).partial_fit(X[:100], Y[:100], classes=[0, 1])
    with pytest.raises(HypothesisError, match="seen before"):
        model.partial_fit(X, Y)


def test_warm_start_goes_on():
    model = MONClassifier(hidden=6, max_iter=5, warm_start=True, random_state=0).fit(X, Y)
    first = model.loss_curve_
    model.fit(X, Y)
    assert model.loss_curve_[:5] == first
    assert model.n_iter_ == 10
    assert model.loss_curve_[-1] < first[-1]


def test_warm_start_adds_blocks_to_those_that_are_there():
    short = SequentialImplicitRegressor(4, 2, random_state=0, warm_start=True).fit(X, NUMBERS)
    grown = pickle.loads(pickle.dumps(short)).set_params(order=8, n_blocks=4).fit(X, NUMBERS)
    whole = SequentialImplicitRegressor(8, 4, random_state=0).fit(X, NUMBERS)
    assert np.array_equal(grown.predict(X), whole.predict(X))


def test_early_stopping_keeps_the_best():
    model = MONClassifier(hidden=6, max_iter=40, batch_size=16, early_stopping=True, n_iter_no_change=5, random_state=0)
    model.fit(X, Y)
    assert model.n_iter_ == len(model.validation_scores_) < 40
    assert model.best_validation_score_ == max(model.validation_scores_) > 0.85
    best = 1 + model.validation_scores_.index(model.best_validation_score_)
    assert model.n_iter_ == best + 5
    short = clone(model).set_params(max_iter=best).fit(X, Y)
    assert np.array_equal(model.predict_proba(X), short.predict_proba(X))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_seed_gives_the_same_model_and_another_another(name, fitted):
    again = clone(CLASSIFIERS[name]).fit(X, Y).predict_proba(X)
    assert np.array_equal(again, fitted[name].predict_proba(X))
    other = clone(CLASSIFIERS[name]).set_params(random_state=1).fit(X, Y).predict_proba(X)
    assert not np.array_equal(again, other)


def test_histories(fitted):
    for name, model in fitted.items():
        assert len(model.loss_curve_) == len(model.history_) == model.n_iter_
        assert model.loss_curve_[-1] < model.loss_curve_[0], name
    assert max(fitted["mon"].certificate_curve_) <= 1e-2
    assert max(fitted["implicit"].certificate_curve_) <= 1e-3


# ------------------------------------------------------------------------------------------------
# images, other tools, other arrays


@pytest.mark.parametrize(("operator", "hidden"), [("conv", 4), ("multitier", (3, 4))])
def test_image_operators(operator, hidden):
    images, labels = load_digits(return_X_y=True)
    images, labels = images[:200], labels[:200]
    model = MONClassifier(operator, hidden=hidden, max_iter=4, batch_size=25, learning_rate=5e-2, random_state=0)
    again = pickle.loads(pickle.dumps(model.fit(images, labels)))
    assert np.array_equal(again.predict_proba(images[:20]), model.predict_proba(images[:20]))
    assert model.score(images, labels) > 0.5
    assert model.predict_with_bound(images[:20]).certain.all()
    step = np.random.default_rng(0).normal(size=(20, 64))
    step *= (0.999 * model.certified_radius(images[:20]) / np.linalg.norm(step, axis=1))[:, None]
    assert (model.predict(images[:20] + step) == model.predict(images[:20])).all()


def test_what_is_no_image_is_refused():
    with pytest.raises(HypothesisError, match="image_shape"):
        MONClassifier("conv").fit(X[:, :3], Y)
    with pytest.raises(HypothesisError, match="operator must be"):
        MONClassifier("sparse").fit(X, Y)


def test_pipeline_grid_search_and_cross_validation():
    model = make_pipeline(StandardScaler(), MONClassifier(hidden=6, max_iter=6, batch_size=16, random_state=0))
    search = GridSearchCV(model, {"monclassifier__m": [0.5, 1.0]}, cv=2).fit(X, Y)
    assert search.best_score_ > 0.8
    assert cross_val_score(SequentialImplicitClassifier(6, 2, random_state=0), X, Y, cv=3).min() > 0.8


def test_pandas():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcd"))
    model = clone(CLASSIFIERS["mon"]).fit(frame, pandas.Series(Y).map({0: "x", 1: "y", 2: "z"}))
    assert list(model.feature_names_in_) == list("abcd")
    assert set(model.predict(frame)) == {"x", "y", "z"}
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[list("dcba")])


def test_dask_backend():
    distributed, joblib = pytest.importorskip("distributed"), pytest.importorskip("joblib")
    model = clone(CLASSIFIERS["sequential"])
    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with distributed.Client(**options), joblib.parallel_backend("dask"):
        there = cross_val_score(model, X, Y, cv=2, n_jobs=2)
    assert np.array_equal(there, cross_val_score(model, X, Y, cv=2))


TORCH = """
import numpy as np, sklearn, torch
from sklearn.datasets import load_iris
from implicitref.estimators import *
X, y = load_iris(return_X_y=True)
X = X.astype(np.float64)
models = [MONClassifier(hidden=4, max_iter=3, random_state=0), MONRegressor(hidden=4, max_iter=3, random_state=0)]
models += [JFBClassifier(hidden=4, latent=4, max_iter=3, random_state=0)]
models += [ImplicitClassifier(4, max_iter=3, random_state=0)]
models += [SequentialImplicitClassifier(4, 2, random_state=0), SequentialImplicitRegressor(4, 2, random_state=0)]
for model in models:
    host = model.fit(X, y)
    wanted, bound = host.predict(X), host.predict_with_bound(X).bound
    with sklearn.config_context(array_api_dispatch=True):
        model.fit(torch.asarray(X), torch.asarray(y))
        found = model.predict(torch.asarray(X))
        assert isinstance(found, torch.Tensor), type(found)
        assert np.abs(found.numpy() - wanted).max() < 1e-6
        if hasattr(model, "network_"):
            assert all(isinstance(p, torch.Tensor) for p in model.network_.params.values())
        assert model.predict_with_bound(torch.asarray(X)).bound.max() < 1e-6
        if hasattr(model, "certified_radius"):
            assert model.certified_radius(torch.asarray(X)).shape == (150,)
    assert type(model.fit(torch.asarray(X), y).predict(torch.asarray(X))) is np.ndarray
"""


def test_torch_tensors_where_scikit_learn_dispatches():
    pytest.importorskip("torch")
    environment = {**os.environ, "SCIPY_ARRAY_API": "1"}
    run = subprocess.run([sys.executable, "-c", TORCH], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
