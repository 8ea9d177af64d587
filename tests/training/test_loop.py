"""The loop: it learns, it resumes bit for bit, it writes nothing it was given."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from implicitref import datasets, errors, networks, training

RECIPE = training.Recipe(epochs=3, batch=50, learning_rate=1e-2, schedule="one-cycle")


def small(count=200):
    data = datasets.digits()
    return dataclasses.replace(data, x_train=data.x_train[:count], y_train=data.y_train[:count])


def first(seed=0, hidden=20, **options):
    rng = np.random.default_rng(seed)
    return training.start(networks.mon_fc(rng, 64, hidden=hidden, **options), rng)


def first_on_images(kind="conv", seed=0):
    rng, image = np.random.default_rng(seed), (1, 8, 8)
    build, channels = {"conv": (networks.mon_conv, 3), "multitier": (networks.mon_multitier, (2, 3))}[kind]
    return training.start(build(rng, image, channels), rng)


ON_IMAGES = training.Recipe(
    2, 50, 1e-2, weight_decay=0.0, stop="relative-change", alpha="tuned", alpha_every=3, augment="crop-flip"
)


def timeless(record):
    return record._replace(seconds=0.0)


def identical(a, b):
    pairs = [(a.network.params, b.network.params), (a.optimiser.mean, b.optimiser.mean)]
    pairs += [(a.optimiser.square, b.optimiser.square)]
    return (
        all(np.array_equal(x[k], y[k]) for x, y in pairs for k in x)
        and a.rng == b.rng
        and a.optimiser.steps == b.optimiser.steps
        and [timeless(s) for s in a.steps] == [timeless(s) for s in b.steps]
        and [timeless(r) for r in a.history] == [timeless(r) for r in b.history]
    )


def test_minibatches_are_a_partition_in_random_order():
    rng = np.random.default_rng(0)
    epochs = [np.concatenate(list(training.minibatches(rng, 103, 10))) for _ in range(2)]
    assert all(np.array_equal(np.sort(order), np.arange(103)) for order in epochs)
    assert not np.array_equal(*epochs)
    assert not np.array_equal(epochs[0], np.arange(103))


def test_training_learns_digits_to_95_percent():
    *_, last = training.train(first(hidden=40), datasets.digits(), training.Recipe(6, 32, 1e-2, "one-cycle"))
    record = last.history[-1]
    assert record.test_accuracy >= 0.95
    assert record.train_accuracy >= 0.95
    assert record.loss < last.history[0].loss / 3


@pytest.mark.parametrize("schedule", ["constant", "step", "one-cycle"])
def test_every_state_is_a_place_to_resume_from(schedule):
    data, recipe = small(), dataclasses.replace(RECIPE, schedule=schedule)
    states = list(training.train(first(), data, recipe))
    for i, state in enumerate(states[:-1]):
        again = list(training.train(state, data, recipe))
        assert len(again) == len(states) - 1 - i
        assert all(identical(a, b) for a, b in zip(again, states[i + 1 :], strict=True))
    assert not identical(states[0], states[1])
    assert list(training.train(states[-1], data, recipe)) == []


@pytest.mark.parametrize("kind", ["conv", "multitier"])
def test_a_training_paused_anywhere_is_the_uninterrupted_one(kind):
    data = small()
    *_, whole = training.train(first_on_images(kind), data, ON_IMAGES)
    state, pauses = first_on_images(kind), 0
    while len(state.history) < ON_IMAGES.epochs:
        done = len(state.steps)
        state = next(training.train(state, data, ON_IMAGES, pause=lambda: True))
        assert len(state.steps) in (done + 1, 0)
        pauses += 1
    assert pauses == 2 * 4
    assert identical(state, whole)
    assert whole.history[-1].loss < whole.history[0].loss


def test_a_pause_ends_the_training():
    asked = []
    (state,) = training.train(first(), small(), RECIPE, pause=lambda: asked.append(None) or len(asked) == 3)
    assert (len(state.history), len(state.steps), len(asked)) == (0, 3, 3)


def test_augmentation_changes_what_is_learnt_and_nothing_else():
    data, plain = small(), dataclasses.replace(ON_IMAGES, augment="none")
    runs = [next(training.train(first_on_images(), data, recipe)) for recipe in (ON_IMAGES, ON_IMAGES, plain)]
    assert identical(runs[0], runs[1])
    assert not identical(runs[0], runs[2])


def test_the_step_is_chosen_as_often_as_the_recipe_says(monkeypatch):
    seen = []
    monkeypatch.setitem(training.alpha.NAMES, "best", lambda *arguments, **rule: seen.append(None) or 0.5 + len(seen))
    recipe = dataclasses.replace(RECIPE, epochs=1)
    (state,) = training.train(first(), small(), recipe)
    assert (len(seen), state.history[-1].alpha) == (1, 1.5)
    steps = []
    list(training.train(first(), small(), dataclasses.replace(recipe, alpha_every=3), on_step=steps.append))
    assert [step.alpha for step in steps] == [2.5, 2.5, 2.5, 3.5]


def test_scales_stay_positive():
    # a first step of length 2 throws g from 1 to -1 or 3
    recipe = dataclasses.replace(ON_IMAGES, epochs=1, learning_rate=2.0, schedule="constant", batch=200)
    states = [next(training.train(first_on_images(seed=seed), small(), recipe)) for seed in range(6)]
    scales = [float(state.network.params["g"]) for state in states]
    assert min(scales) == np.float32(1e-6)
    assert max(scales) > 2.9


def test_the_first_state_is_not_changed():
    state = first()
    before = {name: value.copy() for name, value in state.network.params.items()}
    list(training.train(state, small(), RECIPE))
    assert all(np.array_equal(before[name], value) for name, value in state.network.params.items())
    assert state.history == ()
    assert state.optimiser.steps == 0


def test_records_say_what_the_steps_did():
    steps = []
    (state,) = training.train(first(), small(120), dataclasses.replace(RECIPE, epochs=1), on_step=steps.append)
    (record,) = state.history
    assert [s.size for s in steps] == [50, 50, 20]
    assert record.loss == np.mean([s.loss for s in steps])
    assert record.train_accuracy == sum(s.correct for s in steps) / 120
    assert record.forward_iterations == np.mean([s.forward_iterations for s in steps])
    assert record.backward_iterations == np.mean([s.backward_iterations for s in steps])
    assert record.certified_error == max(s.certified_error for s in steps) <= RECIPE.tol
    assert record.seconds > 0


@pytest.mark.parametrize("options", [{"alpha": "tuned"}, {"stop": "relative-change"}])
def test_the_papers_rules_train_too(options):
    recipe = dataclasses.replace(RECIPE, epochs=2, **options)
    *_, last = training.train(first(), small(), recipe)
    assert last.history[-1].loss < last.history[0].loss
    assert last.history[-1].alpha in [2.0**-k for k in range(12)] or options.get("alpha") is None


def test_evaluate_counts_right_answers_at_the_equilibrium():
    state, data = first(), small()
    logits = state.network.logits(data.x_test.astype(np.float64), tol=1e-8)
    desired = np.mean(logits.argmax(axis=1) == data.y_test)
    assert training.evaluate(state.network, data.x_test, data.y_test) == desired
    assert np.isnan(training.evaluate(state.network, data.x_test[:0], data.y_test[:0]))


def test_an_unreachable_tolerance_ends_in_an_error():
    with pytest.raises(errors.ConvergenceError, match="floor of float32"):
        next(training.train(first(), small(), dataclasses.replace(RECIPE, tol=1e-12)))


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"epochs": 1.5},
        {"weight_decay": float("inf")},
        {"batch": 0},
        {"learning_rate": 0.0},
        {"weight_decay": -1.0},
        {"schedule": "cosine"},
        {"alpha": "largest"},
        {"alpha_every": 0},
        {"augment": "rotate"},
    ],
)
def test_bad_recipes_are_refused(change):
    with pytest.raises(errors.HypothesisError, match=next(iter(change))):
        dataclasses.replace(RECIPE, **change)


def test_no_training_images_are_refused():
    with pytest.raises(errors.ShapeError, match="x_train is empty"):
        next(training.train(first(), small(0), RECIPE))
