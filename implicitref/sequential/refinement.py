r"""All blocks trained together, from where Algorithm 1 left them. Not in the paper, which never looks back."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np

from ..arrays import Array, checked, count, from_numpy, nonnegative, positive, quiet, to_numpy
from ..errors import HypothesisError
from ..losses import LOSSES
from ..optimisers import adam_init, adam_step
from .inputs import check_fits, check_model, checked_targets, seed_of
from .model import BlockTriangularModel, Record
from .solvers import falling, principal

__all__ = ["refine"]

STEPS = 5  # of an epoch, or more: few samples would otherwise be done with before anything has moved


def refine(
    model: BlockTriangularModel,
    x: Array,
    y: Array,
    *,
    loss: str = "cross-entropy",
    epochs: int = 150,
    batch: int = 1024,
    learning_rate: float = 2e-2,
    noise: float = 0.3,
    components: int = 64,
    random_state: int | np.random.Generator | None = None,
) -> BlockTriangularModel:
    r"""A, B and C of all blocks together by Adam, on samples with noise; the loss on `x` does not rise.

    Algorithm 1 chooses every block for the loss that it leaves at once, not for the blocks to come [GREEDY-Alg1]; here
    its model is where gradient steps on all of them begin. A step costs what one of an explicit network costs: features
    by substitution, their gradient by substitution backwards. Noise on the inputs is, to second order in its
    size, a penalty on the slope of the model (Bishop, Neural Computation 7, 1995), without which the weights, no longer
    held by the blocks before, fit single samples.

    Parameters
    ----------
    model : BlockTriangularModel
        As `greedy` yields it.
    x, y : array (m, p), and (m, q) or labels (m,)
        As in `greedy`.
    loss : {"cross-entropy", "squared"}
    epochs, batch : int, >= 1
        Minibatches have at most so many samples, and fewer where an epoch would have less than five steps.
    components : int, >= 1
        B is sought in the span of so many principal directions of x, each scaled to unit size, as in `adam`.
    learning_rate : float, > 0
        The rate falls from it to 0, linearly.
    noise : float, >= 0
        Standard deviation of what is added along every direction, uniform and at every step anew.
    random_state : int, numpy.random.Generator or None

    Returns
    -------
    BlockTriangularModel
        With one more `Record`, of block 0, in its history. Its weights are those of `model` where the loss on `x`,
        without noise, did not fall.

    Raises
    ------
    ShapeError, HypothesisError, TypeError

    Examples
    --------
    >>> import numpy as np
    >>> from implicitref.sequential import augment, fit
    >>> x = augment(np.random.default_rng(0).normal(size=(200, 2)))
    >>> labels = (x[:, 0] * x[:, 1] > 0).astype(int)
    >>> model = fit(x, labels, 6, 3, loss="cross-entropy", solver="adam", random_state=0)
    >>> refined = refine(model, x, labels, random_state=0)
    >>> refined.history[-1].block, refined.history[-1].loss < model.history[-1].loss
    (0, True)
    """
    check_model("model", model)
    targets, began = checked_targets(y, checked("x", x, 2), loss), time.perf_counter()
    check_fits("model", model, model.sizes, x, targets.shape[1] if targets.ndim == 2 else model.C.shape[0])
    options = count("epochs", epochs), count("batch", batch), positive("learning_rate", learning_rate)
    noise, components = nonnegative("noise", noise), min(count("components", components), x.shape[1])
    u, rng = to_numpy(x), np.random.default_rng(seed_of(random_state))
    best = _with(model, {name: to_numpy(part) for name, part in model.params.items()})
    before = lowest = LOSSES[loss](best.predict(u), targets)[0]
    with quiet(), suppress(HypothesisError):  # numbers that leave the range of the dtype are no better
        new = _descended(best, u, targets, loss, *options, noise, components, rng)
        after = LOSSES[loss](new.predict(u), targets)[0]
        best, lowest = (new, after) if after <= before else (best, before)
    record = Record(0, before, lowest, _dead(best, u), time.perf_counter() - began)
    params = {name: from_numpy(part, x) for name, part in best.params.items()}
    return dataclasses.replace(_with(model, params), history=(*model.history, record))


def _descended(
    model: BlockTriangularModel,
    u: np.ndarray,
    targets: np.ndarray,
    loss: str,
    epochs: int,
    batch: int,
    learning_rate: float,
    noise: float,
    components: int,
    rng: np.random.Generator,
) -> BlockTriangularModel:
    E = principal(u, components, rng)
    seen, now, state, width = u @ E, _in_the_span(model, u, E), None, math.sqrt(12) * noise
    for rows, done in _minibatches(len(u), epochs, batch, rng):
        part = seen[rows] + width * (rng.random((len(rows), components), seen.dtype.type) - 0.5)
        now, state = _step(now, part, targets[rows], loss, falling(learning_rate, 0, done), state)
    return dataclasses.replace(now, B=now.B @ E.T)


def _minibatches(m: int, epochs: int, batch: int, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, float]]:
    """Rows of every step, in a new order every epoch, and the part of all steps that is done."""
    pieces = max(math.ceil(m / batch), min(STEPS, m))
    for epoch in range(epochs):
        for k, rows in enumerate(np.array_split(rng.permutation(m), pieces)):
            yield rows, (epoch + k / pieces) / epochs


def _step(
    model: BlockTriangularModel, u: np.ndarray, target: np.ndarray, loss: str, rate: float, state: Any
) -> tuple[BlockTriangularModel, Any]:
    z = model.features(u)
    _, G = LOSSES[loss](z @ model.C.T, target)
    found, params = model.predict_vjp(u, z, G), model.params
    grads = {name: found[name] for name in params}
    params, state = adam_step(params, grads, state or adam_init(params), rate)
    return _with(model, params), state


def _with(model: BlockTriangularModel, params: dict[str, Array]) -> BlockTriangularModel:
    return dataclasses.replace(model, A=params["A"], B=params["B"], C=params["C"])


def _in_the_span(model: BlockTriangularModel, u: np.ndarray, E: np.ndarray) -> BlockTriangularModel:
    """B' with ``u E B''`` nearest to ``u B'`` in the mean square over the samples: the model as a function of u E."""
    seen = u @ E
    B = np.linalg.lstsq(seen.T @ seen, seen.T @ (u @ model.B.T), rcond=None)[0].T
    return dataclasses.replace(model, B=B.astype(u.dtype))


def _dead(model: BlockTriangularModel, x: np.ndarray) -> int:
    """How many units have slope zero on every sample."""
    slopes = model.activation.derivative(model.pre(x, model.features(x)))
    return int(np.sum(~np.any(slopes > 0, axis=0)))
