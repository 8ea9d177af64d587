r"""Losses: value and gradient side by side. The only module where 1/batch occurs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .arrays import Array, alongside, checked, from_numpy, namespace, one_of, quiet, to_numpy
from .errors import HypothesisError, ShapeError

__all__ = ["LOSSES", "count_correct", "cross_entropy", "loss_named", "one_hot", "squared_error"]


def squared_error(prediction: Array, target: Array) -> tuple[float, Array]:
    r"""Half the mean over the batch of the squared distance, and its gradient at `prediction`.

    ``sum_i ||p_i - t_i||^2 / (2 batch)``, gradient ``(p - t) / batch``.

    Parameters
    ----------
    prediction, target : array (batch, q)

    Examples
    --------
    >>> import numpy as np
    >>> squared_error(np.array([[1.0, 3.0]]), np.array([[1.0, 1.0]]))
    (2.0, array([[0., 2.]]))
    """
    prediction = checked("prediction", prediction, 2)
    target = alongside("target", checked("target", target, 2), prediction)
    _same("target", target.shape, prediction.shape)
    batch = max(prediction.shape[0], 1)
    with quiet():  # the square of what is far off may be inf
        difference = prediction - target
        return float(namespace(difference).sum(difference * difference)) / (2 * batch), difference / batch


def cross_entropy(logits: Array, labels: Array) -> tuple[float, Array]:
    r"""Mean softmax cross-entropy over the batch, and its gradient at `logits`.

    ``mean_i [logsumexp(y_i) - y_i[label_i]]``, gradient ``(softmax(y) - onehot) / batch``. Shifted by the
    maximum, so that logits of 1000 do not overflow.

    Parameters
    ----------
    logits : array (batch, classes)
    labels : integer array (batch,), 0 <= label < classes

    Raises
    ------
    ShapeError, HypothesisError

    Examples
    --------
    >>> import numpy as np
    >>> value, gradient = cross_entropy(np.array([[0.0, 0.0]]), np.array([1]))
    >>> round(value, 6), gradient
    (0.693147, array([[ 0.5, -0.5]]))
    """
    logits = checked("logits", logits, 2)
    xp = namespace(logits)
    batch = max(logits.shape[0], 1)
    targets = one_hot(labels, logits)
    shifted = logits - xp.max(logits, axis=1, keepdims=True)
    exponentials = xp.exp(shifted)
    total = xp.sum(exponentials, axis=1, keepdims=True)
    value = float(xp.sum(xp.log(total)) - xp.sum(targets * shifted)) / batch
    return value, (exponentials / total - targets) / batch


LOSSES: dict[str, Callable[[Array, Any], tuple[float, Array]]] = {
    "squared": squared_error,
    "cross-entropy": cross_entropy,
}


def loss_named(name: str) -> Callable[[Array, Any], tuple[float, Array]]:
    """The loss called `name`: (prediction, target) to (value, gradient at the prediction)."""
    found: Callable[[Array, Any], tuple[float, Array]] = one_of("loss", name, LOSSES)
    return found


def count_correct(logits: Array, labels: Array) -> int:
    """How many rows of logits are largest at the label."""
    logits, labels = to_numpy(checked("logits", logits, 2)), to_numpy(labels)
    _same("labels", labels.shape, logits.shape[:1])
    if not logits.shape[1]:
        raise ShapeError(f"logits must have at least one column; got shape {logits.shape}.")
    return int(np.count_nonzero(logits.argmax(axis=1) == labels))


def one_hot(labels: Array, logits: Array) -> Array:
    """Rows of the identity, like `logits`: (batch,) integers to (batch, classes)."""
    labels, classes = to_numpy(labels), logits.shape[1]
    _same("labels", labels.shape, (logits.shape[0],))
    if labels.dtype.kind not in "iu":
        raise HypothesisError(f"labels must be integers; got dtype {labels.dtype}.")
    if labels.size and not (labels.min() >= 0 and labels.max() < classes):
        raise HypothesisError(f"labels must lie in 0..{classes - 1}; got {labels.min()}..{labels.max()}.")
    return from_numpy(np.eye(classes)[labels], logits)


def _same(name: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if tuple(found) != tuple(wanted):
        raise ShapeError(f"{name} must have shape {tuple(wanted)}; got {tuple(found)}.")
