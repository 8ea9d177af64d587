r"""Batch normalisation: ``y = weight (x - mean) / sqrt(var + eps) + bias`` for every channel.

In evaluation mode mean and var are given; in training mode they are the moments of the batch, and the gradient also
goes through them. Arrays are (batch, c, h, w) or (batch, c); a channel's N values are batch h w, or batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..arrays import Array, all_finite, like, namespace, quiet, to_numpy
from ..errors import HypothesisError, ShapeError
from .windows import floating, same_shape

Gather = Callable[[np.ndarray], np.ndarray]  # (k,) to (members, k), see `training.team`

__all__ = ["batch_moments", "batch_norm", "batch_norm_through_moments_vjp", "batch_norm_vjp", "running_moments"]


def batch_norm(
    x: Array, mean: Array, var: Array, weight: Array | None = None, bias: Array | None = None, *, eps: float = 1e-5
) -> Array:
    r"""``weight (x - mean) / sqrt(var + eps) + bias``, channel by channel.

    Parameters
    ----------
    x : array (batch, c) or (batch, c, h, w)
    mean, var : array (c,)
        Running moments in evaluation mode; ``batch_moments(x)`` in training mode.
    weight, bias : array (c,), optional
        1 and 0 if left out.
    eps : float
        Added to the variance.

    Raises
    ------
    TypeError, ShapeError, HypothesisError

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[1.0], [3.0]])
    >>> batch_norm(x, *batch_moments(x), eps=0.0)
    array([[-1.],
           [ 1.]])
    """
    x = channelled(x)
    for name, value in (("mean", mean), ("var", var), ("weight", weight), ("bias", bias)):
        if value is not None:
            same_shape(name, value, (x.shape[1],))
    order = _order(x)
    y = order.matrix(x) - order.over(mean)
    y *= order.over(_slope(var, weight, eps))
    if bias is not None:
        y += order.over(bias)
    return order.images(y)


def batch_norm_vjp(
    x: Array, mean: Array, var: Array, weight: Array | None, dy: Array, *, eps: float = 1e-5
) -> tuple[Array, Array, Array]:
    """Gradients of ``<dy, y>`` with respect to x, weight and bias; mean and var are constants (evaluation mode)."""
    # y = weight n + bias with n = (x - mean) / sigma, sigma = sqrt(var + eps):
    #   dx = weight dy / sigma,   dweight = sum dy n,   dbias = sum dy, the sums over a channel's values
    order, dy = _order(x), same_shape("dy", dy, x.shape)
    v = order.matrix(dy)
    dweight = _slope(var, None, eps) * order.dots(v, order.matrix(x) - order.over(mean))
    return order.images(v * order.over(_slope(var, weight, eps))), dweight, order.sums(v)


def batch_moments(x: Array) -> tuple[Array, Array]:
    r"""Mean and variance of every channel, ``sum (x - mean)^2 / N``: two arrays (c,).

    Raises
    ------
    HypothesisError
        One value a channel: it equals its mean, so that every output would be the bias.
    """
    x = channelled(x)
    return _moments(x, _order(x))[:2]


def _moments(x: Array, order: _Order, gather: Gather | None = None) -> tuple[Array, Array, int, Array]:
    # mean, variance, of how many values, and the matrix of x less its mean
    count = values_a_channel(x)
    if gather is None and count < 2:
        raise HypothesisError(
            f"x must hold at least 2 values a channel in training mode; got {count}, shape {tuple(x.shape)}. "
            "Use a larger batch, or evaluation mode."
        )
    mean = order.sums(order.matrix(x)) / count
    centred = order.matrix(x) - order.over(mean)
    with quiet():
        spread = order.dots(centred, centred)
    if gather is not None:
        mean, shift, spread, count = _merged(gather, mean, spread, count)
        centred += order.over(shift)
    with quiet():
        var = spread / count
    if not all_finite(var):
        raise HypothesisError(f"x must have a variance within its dtype's range, {x.dtype}, in every channel.")
    return mean, var, count, centred


def _merged(gather: Gather, mean: Array, spread: Array, count: int) -> tuple[Array, Array, Array, int]:
    # of all members' values: mean, own mean less it, sum of squares, number (Chan, Golub and LeVeque 1983)
    parts = gather(np.concatenate([[count], to_numpy(mean), to_numpy(spread)]))
    n, means, spreads = np.split(parts, [1, 1 + mean.shape[0]], axis=1)
    whole = (n * means).sum(axis=0) / n.sum()
    squares = spreads.sum(axis=0) + (n * (means - whole) ** 2).sum(axis=0)
    return like(mean, whole), like(mean, to_numpy(mean) - whole), like(mean, squares), int(n.sum())


def normalised(
    x: Array, weight: Array | None = None, bias: Array | None = None, *, eps: float = 1e-5, gather: Gather | None = None
) -> tuple[Array, Array, Array, int]:
    """``batch_norm(x, *batch_moments(x), weight, bias)`` with x - mean formed once, the moments, and N.

    With `gather`, moments and N are those of a batch of which x is one member's part, see `training.team`.
    """
    order = _order(x)
    mean, var, count, y = _moments(x, order, gather)
    y *= order.over(_slope(var, weight, eps))
    if bias is not None:
        y += order.over(bias)
    return order.images(y), mean, var, count


def batch_norm_through_moments_vjp(
    x: Array,
    mean: Array,
    var: Array,
    weight: Array | None,
    dy: Array,
    *,
    eps: float = 1e-5,
    gather: Gather | None = None,
) -> tuple[Array, Array, Array]:
    """The same with mean and var = batch_moments(x): the gradient also goes through them (training mode).

    With `gather` as in `normalised`, dx is that of the whole batch; dweight and dbias are this member's terms.
    """
    # n = P x / sigma with P = I - 11'/N; d sigma = <n, dx> / N since sigma^2 = |P x|^2 / N + eps. Hence, as P n = n,
    #   dn = (P dx - n <n, dx> / N) / sigma
    # and its transpose applied to weight dy:
    #   dx = weight / sigma (dy - sum dy / N - n sum(dy n) / N) = weight / sigma (dy - dbias / N - n dweight / N).
    order, dy = _order(x), same_shape("dy", dy, x.shape)
    centred, v = order.matrix(x) - order.over(mean), order.matrix(dy)
    inverse = _slope(var, None, eps)
    dweight, dbias = inverse * order.dots(v, centred), order.sums(v)
    slope, shift = _shares(gather, values_a_channel(x), dweight, dbias)
    centred *= order.over(-inverse * slope)
    centred += v - order.over(shift)
    centred *= order.over(_slope(var, weight, eps))
    return order.images(centred), dweight, dbias


def _shares(gather: Gather | None, own: int, *terms: Array) -> list[Array]:
    # the sums of all members' terms over the number of their values
    if gather is None:
        return [term / own for term in terms]
    total = gather(np.concatenate([[own], *(to_numpy(term) for term in terms)])).sum(axis=0)
    return [like(term, part) for term, part in zip(terms, np.split(total[1:] / total[0], len(terms)), strict=True)]


def running_moments(
    running: tuple[Array, Array], moments: tuple[Array, Array], count: int, momentum: float
) -> tuple[Array, Array]:
    r"""The next running mean and variance, ``(1 - momentum) running + momentum batch``.

    The batch variance enters with N - 1 in place of N = `count`, the values of a channel, as PyTorch has it.
    """
    mean, var = moments[0], moments[1] * (count / (count - 1))
    return running[0] + momentum * (mean - running[0]), running[1] + momentum * (var - running[1])


def values_a_channel(x: Array) -> int:
    """N: how many values every channel of x has."""
    return int(x.shape[0] * math.prod(x.shape[2:]))


def channelled(x: Array, channels: int | None = None) -> Array:
    """x, refused unless it is (batch, c) or (batch, c, h, w), with c = `channels` where that is given."""
    x = floating("x", x)
    if x.ndim not in (2, 4) or channels not in (None, x.shape[1]):
        c = "c" if channels is None else channels
        raise ShapeError(f"x must have shape (batch, {c}) or (batch, {c}, h, w); got {tuple(x.shape)}.")
    return x


def _slope(var: Array, weight: Array | None, eps: float) -> Array:
    inverse = 1 / namespace(var).sqrt(var + eps)
    return inverse if weight is None else weight * inverse


class _Order(NamedTuple):
    """Images, or vectors, as a matrix in which every channel's values lie side by side, or one below the other."""

    matrix: Callable[[Array], Array]
    images: Callable[[Array], Array]  # back to the shape of x
    over: Callable[[Array], Array]  # (c,) beside a matrix
    sums: Callable[[Array], Array]  # a matrix to (c,)
    dots: Callable[[Array, Array], Array]  # two matrices to (c,)


def _order(x: Array) -> _Order:
    # that in which the memory of x lies, where it is one of two: what the arithmetic passes over is not copied
    return _channels_last(x) if type(x) is np.ndarray and _lies_channels_last(x) else _channels_first(x)


def _channels_first(x: Array) -> _Order:
    # (batch, c, ...) as (c, N), a view where the memory has the batch last
    xp, shape, there = namespace(x), tuple(x.shape), (*range(1, x.ndim), 0)
    back = (x.ndim - 1, *range(x.ndim - 1))
    return _Order(
        lambda u: xp.reshape(xp.permute_dims(u, there), (shape[1], values_a_channel(x))),
        lambda rows: xp.permute_dims(xp.reshape(rows, (*shape[1:], shape[0])), back),
        lambda values: values[:, None],
        lambda rows: xp.sum(rows, axis=1),
        xp.vecdot,
    )


def _lies_channels_last(x: np.ndarray) -> bool:
    return x.ndim == 4 and x.shape[1] > 1 and x.transpose(2, 3, 0, 1).flags.c_contiguous


def _channels_last(x: np.ndarray) -> _Order:
    # (batch, c, h, w) as (h w, batch c): rows as long as can be, sums of pixels before those of images
    batch, channels, h, w = x.shape

    def total(pixels: np.ndarray) -> np.ndarray:
        values: np.ndarray = pixels.reshape(batch, channels).sum(axis=0)
        return values

    return _Order(
        lambda u: u.transpose(2, 3, 0, 1).reshape(h * w, batch * channels),
        lambda matrix: matrix.reshape(h, w, batch, channels).transpose(2, 3, 0, 1),
        lambda values: np.tile(values, batch),
        lambda matrix: total(matrix.sum(axis=0)),
        lambda a, b: total(np.einsum("pk,pk->k", a, b)),
    )
