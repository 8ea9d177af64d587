"""What training takes, checked: targets, random_state, a model to go on from."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..activations import Activation
from ..arrays import Array, alongside, checked, is_array, namespace, to_numpy
from ..errors import HypothesisError, ShapeError
from ..losses import loss_named
from .model import BlockTriangularModel

__all__ = ["check_fits", "check_model", "check_start", "checked_targets", "seed_of"]


def checked_targets(y: Any, x: Array, loss: str) -> np.ndarray:
    """Targets (m, q) or labels (m,), on the host."""
    loss_named(loss)
    m = x.shape[0]
    if m < 2:
        raise ShapeError(f"x must hold at least 2 samples; got {m}.")
    xp = namespace(x)
    if not bool(xp.any(x != x[:1, :])):
        raise HypothesisError("x must not be constant: all samples are equal, and no model can tell them apart.")
    targets = _labels(y) if loss == "cross-entropy" else to_numpy(alongside("y", checked("y", y, 2), x))
    if targets.shape[0] != m:
        raise ShapeError(f"y must have a row for each of the {m} samples of x; got shape {tuple(y.shape)}.")
    if not math.prod(targets.shape):
        raise ShapeError(f"y must have at least one column; got shape {tuple(y.shape)}.")
    return targets


def _labels(y: Any) -> np.ndarray:
    if not is_array(y):
        raise TypeError(f"y must be an array; got {type(y).__name__}. Use numpy.asarray.")
    host = to_numpy(y)
    if host.ndim == 1 and host.dtype.kind in "iu":
        if host.size and host.min() < 0:
            raise HypothesisError(f"labels y must be 0, 1, ...; got {host.min()}.")
        return host
    if host.ndim != 2:
        raise ShapeError(f"y must be one-hot (m, classes) or integer labels (m,); got {host.dtype} {host.shape}.")
    if not (np.isin(host, (0, 1)).all() and (host.sum(axis=1) == 1).all()):
        raise HypothesisError(
            "y must be one-hot, a single 1 in every row and 0 elsewhere: (9) is the cross-entropy only where the rows "
            "sum to 1 [GREEDY-Eq9]. Give integer labels (m,) otherwise."
        )
    return np.asarray(np.argmax(host, axis=1))


def seed_of(random_state: Any) -> int:
    """An integer that stands for `random_state`."""
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**63))
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    if isinstance(random_state, bool) or not isinstance(random_state, (int, np.integer)) or random_state < 0:
        raise HypothesisError(f"random_state must be an integer >= 0, a Generator or None; got {random_state!r}.")
    return int(random_state)


def check_start(start: Any, sizes: tuple[int, ...], x: Array, outputs: int, activation: Activation) -> None:
    """What `greedy` goes on from: None, or the first blocks of what is asked for."""
    if start is None:
        return
    check_model("start", start)
    check_fits("start", start, sizes[: len(start.sizes)], x, outputs)
    if start.activation is not activation:
        raise HypothesisError(f"start has the activation {start.activation!r}; got activation = {activation!r}.")


def check_model(name: str, model: Any) -> None:
    """TypeError unless it is one of ours."""
    if not isinstance(model, BlockTriangularModel):
        raise TypeError(f"{name} must be a BlockTriangularModel; got {type(model).__name__}.")


def check_fits(name: str, model: BlockTriangularModel, sizes: tuple[int, ...], x: Array, outputs: int) -> None:
    """ShapeError unless the model has these blocks, the inputs of `x` and so many outputs."""
    wanted = sizes, x.shape[1], outputs
    found = model.sizes, model.B.shape[1], model.C.shape[0]
    if found != wanted:
        raise ShapeError(
            "{} must be of blocks {} with {} inputs and {} outputs; got ".format(name, *wanted)
            + "blocks {} with {} and {}.".format(*found)
        )
