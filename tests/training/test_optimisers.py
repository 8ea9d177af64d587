"""Adam and SGD against PyTorch's, in float64; schedules at their corners."""

from __future__ import annotations

import numpy as np
import pytest
from oracles import assert_close, size

from implicitref import errors
from implicitref.training import optimisers, schedules

SHAPES = {"w": (4, 3), "b": (5,), "g": ()}


def walk(seed=0, steps=25):
    rng = np.random.default_rng(seed)
    params = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
    grads = [
        {name: 10.0 ** rng.integers(-6, 3) * rng.normal(size=shape) for name, shape in SHAPES.items()}
        for _ in range(steps)
    ]
    return params, grads


def by_torch(params, grads, make):
    torch = pytest.importorskip("torch")
    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in params.items()}
    optimiser = make(torch.optim, list(tensors.values()))
    for gradient in grads:
        for name, tensor in tensors.items():
            tensor.grad = torch.tensor(gradient[name])
        optimiser.step()
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


@pytest.mark.parametrize("rates", [(1e-3, 0.9, 0.999, 1e-8), (0.1, 0.5, 0.9, 1e-3)], ids=["default", "other"])
def test_adam_is_pytorchs(rates):
    rate, beta1, beta2, eps = rates
    start, grads = walk()
    params, state = start, optimisers.adam_init(start)
    for gradient in grads:
        params, state = optimisers.adam_step(params, gradient, state, rate, beta1, beta2, eps)
    desired = by_torch(start, grads, lambda optim, p: optim.Adam(p, lr=rate, betas=(beta1, beta2), eps=eps))
    for name in SHAPES:
        assert_close(params[name], desired[name], scale=size(desired[name]), tol=1e-12)
        assert np.abs(params[name] - start[name]).max() > rate / 2  # they moved
    assert state.steps == len(grads)


def test_weight_decay_is_pytorchs_adamw():
    start, grads = walk(3)
    params, state = start, optimisers.adam_init(start)
    for gradient in grads:
        params, state = optimisers.adam_step(params, gradient, state, 0.01, weight_decay=0.7)
    desired = by_torch(start, grads, lambda optim, p: optim.AdamW(p, lr=0.01, weight_decay=0.7))
    plain = by_torch(start, grads, lambda optim, p: optim.Adam(p, lr=0.01))
    for name in SHAPES:
        assert_close(params[name], desired[name], scale=size(desired[name]), tol=1e-12)
        assert np.abs(params[name] - plain[name]).max() > 1e-2


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_is_pytorchs(momentum):
    start, grads = walk(1)
    params, state = start, optimisers.sgd_init(start)
    for gradient in grads:
        params, state = optimisers.sgd_step(params, gradient, state, 0.01, momentum)
    desired = by_torch(start, grads, lambda optim, p: optim.SGD(p, lr=0.01, momentum=momentum))
    for name in SHAPES:
        assert_close(params[name], desired[name], scale=size(desired[name]), tol=1e-12)
        assert np.abs(params[name] - start[name]).max() > 1e-3


def test_steps_write_nothing_that_they_were_given(backend):
    start, grads = walk(2, 3)
    params = {name: backend(value) for name, value in start.items()}
    states = [optimisers.adam_init(params)]
    for gradient in grads:
        moved, state = optimisers.adam_step(params, {k: backend(g) for k, g in gradient.items()}, states[-1], 0.1)
        states.append(state)
    assert all(np.array_equal(backend.numpy(params[k]), backend.numpy(backend(start[k]))) for k in SHAPES)
    assert all(not backend.numpy(states[0].mean[k]).any() for k in SHAPES)
    assert all(moved[k].dtype == params[k].dtype for k in SHAPES)


def test_gradients_of_other_names_or_shapes_are_refused():
    params = {"w": np.ones(3)}
    for grads in ({"v": np.ones(3)}, {"w": np.ones(4)}, {}):
        with pytest.raises(errors.ShapeError, match="names and shapes of params"):
            optimisers.adam_step(params, grads, optimisers.adam_init(params), 0.1)
        with pytest.raises(errors.ShapeError, match="names and shapes of params"):
            optimisers.sgd_step(params, grads, optimisers.sgd_init(params), 0.1)


def test_step_decay_divides_by_ten_every_ten_epochs():
    decay = schedules.step_decay(1e-3, every=10)
    for epoch, desired in ((0, 1e-3), (9.999, 1e-3), (10, 1e-4), (19.9, 1e-4), (39.9, 1e-6)):
        assert_close(decay(epoch), desired, scale=desired, tol=1e-12)


@pytest.mark.claim("MON-AppD.2-onecycle")
@pytest.mark.parametrize(("low", "high"), [(1e-3, 1e-2), (1e-3, 5e-2), (0.95, 0.85)])
def test_one_cycle_is_linear_between_its_corners(low, high):
    cycle = schedules.one_cycle(low, high, 30, 30, 5)
    epochs = np.linspace(0, 65, 261)
    desired = np.interp(epochs, [0, 30, 60, 65], [low, high, low, low])
    assert_close([cycle(t) for t in epochs], desired, scale=1.0, tol=1e-15)


@pytest.mark.claim("MON-AppD.2-onecycle")
def test_named_schedules_have_the_papers_proportions():
    rate, beta1 = schedules.by_name("one-cycle", 5e-2, 65)
    paper = schedules.one_cycle(1e-3, 5e-2, 30, 30, 5), schedules.one_cycle(0.95, 0.85, 30, 30, 5)
    for t in (0, 7.5, 30, 44, 60, 64):
        assert_close([rate(t), beta1(t)], [paper[0](t), paper[1](t)], scale=1.0, tol=1e-15)
    step, beta1 = schedules.by_name("step", 1e-3, 40)
    assert [step(t) for t in (9, 10)] == [schedules.step_decay(1e-3, 10)(t) for t in (9, 10)]
    assert beta1(20) == 0.9
    assert schedules.by_name("constant", 0.5, 3)[0](2) == 0.5


@pytest.mark.parametrize(
    "call",
    [
        lambda: schedules.by_name("cosine", 1e-3, 3),
        lambda: schedules.by_name("step", -1e-3, 3),
        lambda: schedules.step_decay(1.0, every=0),
        lambda: schedules.one_cycle(1.0, 2.0, 0, 1, 1),
        lambda: schedules.one_cycle(1.0, 2.0, 1, 1, -1),
    ],
    ids=["name", "rate", "every", "up", "hold"],
)
def test_schedules_refuse_bad_settings(call):
    with pytest.raises(errors.HypothesisError, match="must be"):
        call()
