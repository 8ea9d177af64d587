r"""Layers that only scale, drop or move entries: dropout, flatten, padding, the shortcut of a residual block."""

from __future__ import annotations

import math

from ..arrays import Array, as_number, namespace, zeros
from ..errors import HypothesisError
from .windows import Pair, batch_first, batch_last, floating, images, pair, same_shape, shifted, spread

__all__ = ["dropout", "dropout_vjp", "flatten", "flatten_vjp", "pad", "pad_vjp", "shortcut", "shortcut_vjp"]


def dropout(x: Array, mask: Array, rate: float) -> Array:
    r"""``mask x / (1 - rate)``: entries kept where the given mask is 1, scaled so that the mean over masks is x.

    Parameters
    ----------
    x, mask : array of one shape
        The mask holds 0 and 1, each 0 with probability `rate`; whoever calls draws it.
    rate : float
        0 <= rate < 1.

    Raises
    ------
    TypeError, ShapeError, HypothesisError

    Examples
    --------
    >>> import numpy as np
    >>> dropout(np.array([[1.0, 2.0]]), np.array([[0.0, 1.0]]), 0.5)
    array([[0., 4.]])
    """
    x, number = floating("x", x), as_number(rate)
    if number is None or not 0 <= number < 1:
        raise HypothesisError(f"rate must lie in [0, 1); got {rate!r}.")
    return x * (same_shape("mask", mask, tuple(x.shape)) / (1 - number))


def dropout_vjp(mask: Array, rate: float, dy: Array) -> Array:
    """Gradient of ``<dy, dropout(x)>`` with respect to x."""
    # a diagonal map is its own transpose
    return dropout(dy, mask, rate)


def flatten(x: Array) -> Array:
    """(batch, c, h, w) to (batch, c h w), channel after channel and row after row whatever the memory's order.

    Examples
    --------
    >>> import numpy as np
    >>> flatten(np.ones((2, 3, 4, 4))).shape
    (2, 48)
    """
    x = floating("x", x)
    return namespace(x).reshape(x, (x.shape[0], math.prod(x.shape[1:])))


def flatten_vjp(shape: tuple[int, ...], dy: Array) -> Array:
    """Gradient of ``<dy, flatten(x)>`` with respect to x of `shape`."""
    # a renaming of the entries: its transpose is its inverse
    return namespace(dy).reshape(same_shape("dy", dy, (shape[0], math.prod(shape[1:]))), shape)


def pad(x: Array, width: int | Pair, value: float = 0.0) -> Array:
    r"""Rows and columns of `value` on every side: (batch, c, h, w) to (batch, c, h + 2 p, w + 2 q).

    Parameters
    ----------
    x : array (batch, c, h, w)
    width : int or (int, int)
        p and q, >= 0.
    value : float

    Raises
    ------
    TypeError, ShapeError, HypothesisError

    Examples
    --------
    >>> import numpy as np
    >>> pad(np.ones((1, 1, 1, 1)), (0, 1), 0.5)
    array([[[[0.5, 1. , 0.5]]]])
    """
    u = batch_last(images("x", x))
    for axis, p in zip((1, 2), pair("width", width, 0), strict=True):
        border = zeros((*u.shape[:axis], p, *u.shape[axis + 1 :]), u) + value
        u = namespace(u).concat([border, u, border], axis=axis)
    return batch_first(u)


def pad_vjp(dy: Array, width: int | Pair) -> Array:
    """Gradient of ``<dy, pad(x)>`` with respect to x."""
    # what is put around x does not depend on it: padding's transpose cuts
    p, q = pair("width", width, 0)
    return images("dy", dy)[:, :, p : dy.shape[2] - p, q : dy.shape[3] - q]


def shortcut(x: Array, stride: int | Pair = 1, channels: Pair = (0, 0)) -> Array:
    r"""Every stride-th pixel of x, with channels of zeros before and after: the identity between unequal shapes.

    Parameters
    ----------
    x : array (batch, c, h, w)
    stride : int or (int, int)
        >= 1; pixels 0, s, 2 s, ... stay.
    channels : (int, int)
        Zero channels put before and after, each >= 0.

    Raises
    ------
    TypeError, ShapeError, HypothesisError

    Examples
    --------
    >>> import numpy as np
    >>> shortcut(np.ones((1, 16, 5, 5)), 2, (8, 8)).shape
    (1, 32, 3, 3)
    """
    u, (sh, sw), (before, after) = batch_last(images("x", x)), pair("stride", stride, 1), pair("channels", channels, 0)
    return batch_first(shifted(u[:, ::sh, ::sw, :], 0, -before, before + u.shape[0] + after))


def shortcut_vjp(shape: tuple[int, ...], dy: Array, stride: int | Pair = 1, channels: Pair = (0, 0)) -> Array:
    """Gradient of ``<dy, shortcut(x)>`` with respect to x of `shape`."""
    # padding's transpose cuts, that of taking every stride-th pixel puts zeros between
    (sh, sw), (before, _) = pair("stride", stride, 1), pair("channels", channels, 0)
    v = shifted(batch_last(images("dy", dy)), 0, before, shape[1])
    return batch_first(spread(spread(v, 1, 0, shape[2], sh), 2, 0, shape[3], sw))
