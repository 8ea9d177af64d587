"""The implicit model (A, B, C, D): its gradients against differences of an independent loss, its training."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import oracles
import pytest
import scipy.special
from laws import ACTIVATIONS
from oracles import assert_close, size

import implicitref as ir
from implicitref import activations, networks, training, well_posed
from implicitref.networks import ImplicitModel
from implicitref.training.implicit import LEARNER

N, D, Q, BATCH = 4, 3, 2, 5


def model_of(activation=activations.relu, seed=0, feedthrough=True):
    rng = np.random.default_rng(seed)
    A, B, C = rng.normal(size=(N, N)), rng.normal(size=(N, D)), rng.normal(size=(Q, N))
    Dt = rng.normal(size=(Q, D)) if feedthrough else None
    return ImplicitModel(well_posed.project(A, 0.9), B, C, Dt, activation)


def state_by_definition(model, params, x, start):
    """Dense Newton steps: share no line with the package."""
    return oracles.newton_equilibria(params["A"], x @ params["B"].T, repr(model.activation), start)


def prediction_by_definition(params, z, x):
    return z @ params["C"].T + (x @ params["D"].T if "D" in params else 0)


def loss_by_definition(model, params, x, target, loss, start):
    y = prediction_by_definition(params, state_by_definition(model, params, x, start), x)
    if loss == "squared":
        return float(((y - target) ** 2).sum() / 2 / len(x))
    return float(np.mean(scipy.special.logsumexp(y, axis=1) - y[np.arange(len(x)), target]))


def clear_problem(activation, loss, **options):
    """The first seed whose pre-activations are away from the kinks, so that differences are derivatives."""
    for seed in range(200):
        model, rng = model_of(activation, seed, **options), np.random.default_rng(1000 + seed)
        x = rng.normal(size=(BATCH, D))
        target = rng.normal(size=(BATCH, Q)) if loss == "squared" else rng.integers(Q, size=BATCH)
        z = model.solve(x, tol=1e-12).z
        if oracles.clear_of_kinks(repr(activation), z @ model.A.T + x @ model.B.T, 0.02):
            return model, x, target, z
    raise AssertionError("no problem is clear of the kinks")


@pytest.mark.claim("GREEDY-Eq4")
@pytest.mark.parametrize("loss", ["squared", "cross-entropy"])
@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=repr)
def test_gradient_of_every_parameter_is_the_derivative(activation, loss):
    model, x, target, z = clear_problem(activation, loss)
    found = model.gradients(x, target, loss, tol=1e-13, inputs=True)
    at = {**model.params, "x": x}
    assert set(found.grads) == {"A", "B", "C", "D", "x"}
    assert_close(found.loss, loss_by_definition(model, at, x, target, loss, z), scale=1.0, tol=1e-11)
    rng = np.random.default_rng(5)
    for name, value in at.items():
        direction = rng.normal(size=value.shape)

        def moved(values, name=name):
            params = {**at, name: values}
            return loss_by_definition(model, params, params["x"], target, loss, z)

        desired = oracles.central_difference(moved, value, direction, 1e-4)
        scale = float(np.sum(np.abs(found.grads[name] * direction)))
        assert_close(np.sum(found.grads[name] * direction), desired, scale=scale + 1e-3, tol=1e-7)


def test_a_wrong_gradient_is_noticed():
    model, x, target, z = clear_problem(activations.tanh, "squared")
    gradient = model.gradients(x, target, tol=1e-13).grads["A"]
    direction = np.random.default_rng(5).normal(size=gradient.shape)
    desired = oracles.central_difference(
        lambda A: loss_by_definition(model, {**model.params, "A": A}, x, target, "squared", z),
        model.A, direction, 1e-4,
    )  # fmt: skip
    scale = float(np.sum(np.abs(gradient * direction)))
    for wrong in (-gradient, gradient.T, 2 * gradient, gradient * BATCH):
        with pytest.raises(AssertionError, match="error"):
            assert_close(np.sum(wrong * direction), desired, scale=scale, tol=1e-7)


@pytest.mark.claim("GREEDY-Eq4")
@pytest.mark.parametrize("method", ["picard", "peaceman-rachford", "forward-backward"])
@pytest.mark.parametrize("feedthrough", [True, False])
def test_gradients_against_the_dense_implicit_function_formula(method, feedthrough):
    model, x, target, z = clear_problem(activations.tanh, "squared", feedthrough=feedthrough)
    model = model.replace(A=0.8 * model.A)
    z = state_by_definition(model, model.params, x, z)
    dy = (prediction_by_definition(model.params, z, x) - target) / BATCH
    jac = 1 - np.tanh(z @ model.A.T + x @ model.B.T) ** 2
    dpre = oracles.implicit_dpre(model.A, jac, dy @ model.C)
    desired = {"A": dpre.T @ z, "B": dpre.T @ x, "C": dy.T @ z, "D": dy.T @ x, "x": dpre @ model.B}
    if feedthrough:
        desired["x"] = desired["x"] + dy @ model.D
    else:
        del desired["D"]
    found = model.gradients(x, target, method=method, tol=1e-13, inputs=True)
    assert set(found.grads) == set(desired)
    for name, value in desired.items():
        assert_close(found.grads[name], value, scale=size(value), tol=1e-11)
    assert (np.abs(found.backward.z - dpre).max(axis=1) <= np.max(found.backward.bound) + 1e-15).all()


@pytest.mark.claim("GREEDY-Eq2")
@pytest.mark.claim("GREEDY-Eq3")
@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=repr)
def test_prediction_is_the_equation(activation):
    model, x, _, z = clear_problem(activation, "squared")
    desired = prediction_by_definition(model.params, state_by_definition(model, model.params, x, z), x)
    assert_close(model.predict(x, tol=1e-12), desired, scale=size(desired), tol=1e-11)
    assert_close(model.predict(x[1:2], tol=1e-12), desired[1:2], scale=size(desired), tol=1e-11)


def test_a_splitting_knows_the_largest_m_and_models_fill_their_ranges():
    rng = np.random.default_rng(0)
    model = networks.implicit_model(rng, 40, 9, 4, radius=0.9, feedthrough=True)
    symmetric = (model.A + model.A.T) / 2
    assert_close(model._monotone().m, 1 - np.linalg.eigvalsh(symmetric)[-1], scale=1, tol=1e-12)
    for name, limit in (("A", 0.9 / 40), ("B", 1 / 3), ("C", 40**-0.5), ("D", 1 / 3)):
        assert 0.8 * limit < np.abs(model.params[name]).max() <= limit


def test_a_splitting_solves_what_picard_cannot():
    one = np.array([[1.0]])
    model = ImplicitModel(-2 * one, one, one)
    with pytest.raises(ir.HypothesisError, match=r"it is 2\b"):
        model.predict(one)
    options = {"method": "peaceman-rachford", "tol": 1e-12}
    assert_close(model.predict(one, **options), one / 3, scale=1.0, tol=1e-11)
    found = model.gradients(one, 0 * one, **options)  # loss = (1/(1 - A))^2/2
    assert_close(found.grads["A"], one / 27, scale=1.0, tol=1e-11)
    # and the other way round: perron(A) = 0, and yet I - A is not monotone
    model = ImplicitModel(np.array([[0.0, 5.0], [0.0, 0.0]]), np.ones((2, 1)), np.ones((1, 2)))
    assert_close(model.predict(one, tol=1e-12), 7 * one, scale=1.0, tol=1e-11)
    with pytest.raises(ir.HypothesisError, match=r"eigenvalue is -1.5.*it is 0\b"):
        model.predict(one, method="peaceman-rachford")


@pytest.mark.claim("GREEDY-Asm2")
@pytest.mark.parametrize("activation", [activations.relu, activations.leaky_relu(0.1)], ids=repr)
def test_without_a_constant_input_the_model_is_homogeneous(activation):
    model = model_of(activation)
    x = np.random.default_rng(1).normal(size=(6, D))
    y = model.predict(x, tol=1e-13)
    for t in (1e-3, 0.5, 40.0):
        assert_close(model.predict(t * x, tol=1e-13 * max(t, 1)), t * y, scale=t * size(y), tol=1e-11)
    assert np.array_equal(model.predict(0 * x), np.zeros_like(y))
    ones = np.hstack([x[:, :-1], np.ones((6, 1))])  # with one it is not
    y = model.predict(ones, tol=1e-12)
    doubled = model.predict(np.hstack([2 * x[:, :-1], np.ones((6, 1))]), tol=1e-12)
    assert np.abs(doubled - 2 * y).max() > 0.1


@pytest.mark.claim("GREEDY-Asm4")
def test_the_squared_loss_is_the_paper_s_over_the_number_of_samples():
    model, x, target, _ = clear_problem(activations.tanh, "squared")
    desired = np.linalg.norm(target - model.predict(x, tol=1e-12)) ** 2 / 2
    assert_close(BATCH * model.gradients(x, target, tol=1e-12).loss, desired, scale=1.0, tol=1e-10)


def test_backends_agree(backend):
    model, x, target, _ = clear_problem(activations.relu, "squared")
    desired = model.gradients(x, target, tol=1e-12)
    tol = 1e-10 if backend.double else 1e-3
    moved = ImplicitModel(**{name: backend(p) for name, p in model.params.items()})
    found = moved.gradients(backend(x), backend(target), tol=tol / 10)
    assert_close(found.loss, desired.loss, scale=1.0, tol=tol)
    error = np.abs(backend.numpy(found.forward.z) - desired.forward.z)
    assert (error <= backend.numpy(found.forward.bound) + 1e3 * backend.eps).all()
    for name, gradient in found.grads.items():
        assert_close(backend.numpy(gradient), desired.grads[name], scale=size(desired.grads[name]), tol=10 * tol)


# ------------------------------------------------------------------------------------------------
# training


def samples(seed=0, count=60):
    rng = np.random.default_rng(seed)
    x, x_test = rng.uniform(-2, 2, size=(2, count, 1))
    return training.Samples(*(a for u in (x, x_test) for a in (np.hstack([u, np.ones_like(u)]), np.sin(2 * u))))


def first(seed=0, **options):
    rng = np.random.default_rng(seed)
    options = {"order": 12, "inputs": 2, "outputs": 1} | options
    return training.start(networks.implicit_model(rng, **options), rng)


@pytest.mark.claim("GREEDY-Eq4")
@pytest.mark.claim("GREEDY-Rem4")
def test_training_fits_stays_in_the_ball_and_certifies():
    data = samples()
    recipe = training.ImplicitRecipe(epochs=40, batch=20, tol=1e-5)
    states = list(training.train(first(), data, recipe, learner=LEARNER))
    assert all(well_posed.norm_inf(s.network.A) <= 0.95 * (1 + 1e-15) for s in states)
    assert well_posed.norm_inf(states[-1].network.A) > 0.9
    history = states[-1].history
    assert history[-1].loss < history[0].loss / 20
    assert all(0 < r.certified_error <= 1e-5 and r.forward_iterations > 1 for r in history)
    assert all(math.isnan(r.train_accuracy) and math.isnan(r.test_accuracy) for r in history)
    error = states[-1].network.predict(data.x_test) - data.y_test
    assert np.sqrt(np.mean(error**2)) < 0.2


def test_training_resumes_bit_for_bit():
    data, recipe = samples(), training.ImplicitRecipe(epochs=3, batch=20)
    states = list(training.train(first(), data, recipe, learner=LEARNER))
    (again,) = training.train(states[1], data, recipe, learner=LEARNER)
    assert all(np.array_equal(p, again.network.params[name]) for name, p in states[2].network.params.items())


def test_training_classifies():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2))
    inputs, labels = np.hstack([x, np.ones((200, 1))]), (np.abs(x).sum(axis=1) > 1.2).astype(int)
    data = training.Samples(inputs[:150], labels[:150], inputs[150:], labels[150:])
    recipe = training.ImplicitRecipe("cross-entropy", epochs=25, batch=25, learning_rate=0.02)
    *_, last = training.train(first(inputs=3, outputs=2), data, recipe, learner=LEARNER)
    assert last.history[-1].train_accuracy > 0.9
    assert last.history[-1].test_accuracy > 0.85
    right = last.network.predict(data.x_test).argmax(axis=1) == data.y_test
    assert last.history[-1].test_accuracy == right.mean()


@pytest.mark.claim("GREEDY-Eq4")
def test_projected_gradient_descends_and_its_first_step_is_the_formula():
    data = samples()
    model = first().network.replace(A=well_posed.project(np.ones((12, 12)), 0.95))
    steps = list(itertools.islice(training.projected_gradient(model, data.x_train, data.y_train, 0.01), 60))
    losses = [found.loss for _, found in steps]
    assert all(b <= a + 1e-9 for a, b in itertools.pairwise(losses))
    assert losses[-1] < losses[0]
    after, found = steps[0]
    for name, p in model.params.items():
        moved = p - 0.01 * found.grads[name]
        desired = well_posed.project(moved, 0.95) if name == "A" else moved
        assert np.array_equal(after.params[name], desired)
    assert not np.array_equal(after.A, model.A - 0.01 * found.grads["A"])


# ------------------------------------------------------------------------------------------------
# errors


def test_what_does_not_fit_is_refused_by_name():
    model, x = model_of(), np.ones((2, D))
    with pytest.raises(ir.ShapeError, match=r"A must have shape \(4, 4\); got \(4, 3\)"):
        model.replace(A=np.ones((4, 3)))
    with pytest.raises(ir.ShapeError, match=r"C must have shape \(2, 4\); got \(2, 3\)"):
        model.replace(C=np.ones((2, 3)))
    with pytest.raises(ir.ShapeError, match=r"D must have shape \(2, 3\)"):
        model.replace(D=np.ones((2, 2)))
    with pytest.raises(TypeError, match="no parameter W"):
        model.replace(W=x)
    with pytest.raises(ir.HypothesisError, match="B must be finite"):
        model.replace(B=np.full((N, D), np.nan))
    with pytest.raises(ir.HypothesisError, match="CONE maps"):
        dataclasses.replace(model, activation=np.tanh)
    with pytest.raises(ir.HypothesisError, match="radius"):
        dataclasses.replace(model, radius=0)
    with pytest.raises(ir.ShapeError, match=r"x must have shape \(batch, 3\)"):
        model.predict(np.ones((2, 4)))
    with pytest.raises(ir.ShapeError, match=r"x\[None\]"):
        model.predict(x[0])
    with pytest.raises(ir.HypothesisError, match="x must be finite"):
        model.gradients(x * np.nan, np.ones((2, Q)))
    with pytest.raises(ir.ShapeError, match=r"target must have shape \(2, 2\)"):
        model.gradients(x, np.ones((2, 3)))
    with pytest.raises(ir.HypothesisError, match="labels must lie in"):
        model.gradients(x, np.array([0, Q]), "cross-entropy")
    with pytest.raises(ir.HypothesisError, match="loss must be one of squared, cross-entropy"):
        model.gradients(x, np.ones((2, Q)), "hinge")
    with pytest.raises(ir.HypothesisError, match="method must be one of"):
        model.predict(x, method="newton")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [({"epochs": 0}, "epochs"), ({"tol": -1}, "tol"), ({"loss": "hinge"}, "loss"), ({"learning_rate": 0}, "rate")],
)
def test_recipes_are_checked(change, complaint):
    with pytest.raises(ir.HypothesisError, match=complaint):
        training.ImplicitRecipe(**change)
    with pytest.raises(ir.HypothesisError, match="order"):
        networks.implicit_model(np.random.default_rng(0), 0, 1, 1)
