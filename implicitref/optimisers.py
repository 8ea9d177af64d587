"""Adam and SGD with momentum as pure step functions on dictionaries of arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from .arrays import Array, is_array, namespace, nonnegative, real_dtypes
from .errors import HypothesisError, ShapeError

__all__ = ["AdamState", "SgdState", "adam_init", "adam_step", "sgd_init", "sgd_step"]

Params = Mapping[str, Array]


class AdamState(NamedTuple):
    """Steps taken and the running means of the gradient and of its square."""

    steps: int
    mean: dict[str, Array]
    square: dict[str, Array]


class SgdState(NamedTuple):
    """The running direction."""

    velocity: dict[str, Array]


def adam_init(params: Params) -> AdamState:
    """No step taken, both means zero."""
    return AdamState(0, _zeros(params), _zeros(params))


def adam_step(
    params: Params,
    grads: Params,
    state: AdamState,
    learning_rate: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> tuple[dict[str, Array], AdamState]:
    r"""One step of Adam (Kingma and Ba 2015, Algorithm 1), with decoupled weight decay (Loshchilov and Hutter 2019).

    ``M+ = beta1 M + (1 - beta1) g``, ``S+ = beta2 S + (1 - beta2) g^2``,
    ``p+ = (1 - rate * decay) p - rate * (M+/(1 - beta1^t)) / (sqrt(S+/(1 - beta2^t)) + eps)``.

    Parameters
    ----------
    params, grads : mapping of arrays, the same names and shapes
    state : AdamState, from `adam_init` or an earlier step
    learning_rate, beta1, beta2, eps, weight_decay : float

    Examples
    --------
    >>> import numpy as np
    >>> params = {"w": np.array([1.0, -1.0])}
    >>> params, state = adam_step(params, {"w": np.array([5.0, -0.1])}, adam_init(params), 0.1)
    >>> params["w"].round(6)                         # the first step has length rate, whatever the gradient
    array([ 0.9, -0.9])
    """
    _check(params, grads)
    learning_rate, t = nonnegative("learning_rate", learning_rate), state.steps + 1
    root = math.sqrt(1 - beta2**t)
    rate, kept = learning_rate * root / (1 - beta1**t), 1 - learning_rate * weight_decay
    mean = {k: _average(beta1, state.mean[k], g) for k, g in grads.items()}
    square = {k: _average(beta2, state.square[k], g * g) for k, g in grads.items()}
    moved = {k: _moved(p, kept, rate, mean[k], square[k], eps * root) for k, p in params.items()}
    return moved, AdamState(t, mean, square)


# Every += below acts on an array made in the line above it: half the memory traffic of the formulas as they stand.


def _average(beta: float, old: Array, new: Array) -> Array:
    result = beta * old
    result += (1 - beta) * new
    return result


def _moved(p: Array, kept: float, rate: float, mean: Array, square: Array, eps: float) -> Array:
    # both sides of the fraction times sqrt(1 - beta2^t)
    root = namespace(square).sqrt(square)
    root += eps
    step = mean / root
    step *= rate
    return kept * p - step


def sgd_init(params: Params) -> SgdState:
    """Velocity zero."""
    return SgdState(_zeros(params))


def sgd_step(
    params: Params, grads: Params, state: SgdState, learning_rate: float, momentum: float = 0.0
) -> tuple[dict[str, Array], SgdState]:
    """One step of the heavy ball: ``v+ = momentum v + g``, ``p+ = p - rate v+``.

    Examples
    --------
    >>> import numpy as np
    >>> params = {"w": np.array([1.0])}
    >>> sgd_step(params, {"w": np.array([2.0])}, sgd_init(params), 0.25)[0]
    {'w': array([0.5])}
    """
    _check(params, grads)
    rate = nonnegative("learning_rate", learning_rate)
    velocity = {k: momentum * state.velocity[k] + g for k, g in grads.items()}
    return {k: p - rate * velocity[k] for k, p in params.items()}, SgdState(velocity)


def _zeros(params: Params) -> dict[str, Array]:
    return {k: namespace(p).zeros_like(p) for k, p in params.items()}


def _check(params: Params, grads: Params) -> None:
    wrong = [k for mapping in (params, grads) for k, a in mapping.items() if not is_array(a)]
    if wrong:
        raise TypeError(f"params and grads must be dictionaries of arrays; {wrong[0]!r} is none.")
    for mapping in (params, grads):
        for k, a in mapping.items():
            if a.dtype not in real_dtypes(a):
                raise HypothesisError(f"{k} must be float32 or float64; got dtype {a.dtype}. Convert it with astype.")
    shapes = [{k: tuple(a.shape) for k, a in mapping.items()} for mapping in (params, grads)]
    if shapes[0] != shapes[1]:
        raise ShapeError(f"grads must have the names and shapes of params, {shapes[0]}; got {shapes[1]}.")
