r"""Batch normalisation: ``y = weight (x - mean) / sqrt(var + eps) + bias`` for every channel.

In evaluation mode mean and var are given; in training mode they are the moments of the batch, and the gradient also
goes through them. Arrays are (batch, c, h, w) or (batch, c); a channel's N values are batch h w, or batch.
"""

from __future__ import annotations

import math

from ..arrays import Array, all_finite, namespace, quiet
from ..errors import HypothesisError, ShapeError
from .windows import floating, same_shape

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
    y = (x - _over(mean, x)) * _over(_slope(var, weight, eps), x)
    if bias is not None:
        y += _over(bias, x)
    return y


def batch_norm_vjp(
    x: Array, mean: Array, var: Array, weight: Array | None, dy: Array, *, eps: float = 1e-5
) -> tuple[Array, Array, Array]:
    """Gradients of ``<dy, y>`` with respect to x, weight and bias; mean and var are constants (evaluation mode)."""
    # y = weight n + bias with n = (x - mean) / sigma, sigma = sqrt(var + eps):
    #   dx = weight dy / sigma,   dweight = sum dy n,   dbias = sum dy, the sums over a channel's values
    dy = same_shape("dy", dy, x.shape)
    centred, v = _rows(x - _over(mean, x)), _rows(dy)
    dweight = _slope(var, None, eps) * namespace(x).vecdot(v, centred)
    return dy * _over(_slope(var, weight, eps), x), dweight, _sums(v)


def batch_moments(x: Array) -> tuple[Array, Array]:
    r"""Mean and variance of every channel, ``sum (x - mean)^2 / N``: two arrays (c,).

    Raises
    ------
    HypothesisError
        One value a channel: it equals its mean, so that every output would be the bias.
    """
    return _moments(channelled(x))[:2]


def _moments(x: Array) -> tuple[Array, Array, Array]:
    # mean, variance, and the rows of x less their mean
    rows = _rows(x)
    count = rows.shape[1]
    if count < 2:
        raise HypothesisError(
            f"x must hold at least 2 values a channel in training mode; got {count}, shape {tuple(x.shape)}. "
            "Use a larger batch, or evaluation mode."
        )
    mean = _sums(rows) / count
    centred = rows - mean[:, None]
    with quiet():
        var = namespace(x).vecdot(centred, centred) / count
    if not all_finite(var):
        raise HypothesisError(f"x must have a variance within its dtype's range, {x.dtype}, in every channel.")
    return mean, var, centred


def normalised(
    x: Array, weight: Array | None = None, bias: Array | None = None, *, eps: float = 1e-5
) -> tuple[Array, Array, Array]:
    """``batch_norm(x, *batch_moments(x), weight, bias)`` with x - mean formed once, and the moments."""
    mean, var, y = _moments(x)
    y *= _slope(var, weight, eps)[:, None]
    if bias is not None:
        y += bias[:, None]
    return _unrowed(y, x.shape), mean, var


def batch_norm_through_moments_vjp(
    x: Array, mean: Array, var: Array, weight: Array | None, dy: Array, *, eps: float = 1e-5
) -> tuple[Array, Array, Array]:
    """The same with mean and var = batch_moments(x): the gradient also goes through them (training mode)."""
    # n = P x / sigma with P = I - 11'/N; d sigma = <n, dx> / N since sigma^2 = |P x|^2 / N + eps. Hence, as P n = n,
    #   dn = (P dx - n <n, dx> / N) / sigma
    # and its transpose applied to weight dy:
    #   dx = weight / sigma (dy - sum dy / N - n sum(dy n) / N) = weight / sigma (dy - dbias / N - n dweight / N).
    dy = same_shape("dy", dy, x.shape)
    centred, v = _rows(x - _over(mean, x)), _rows(dy)
    count, inverse = v.shape[1], _slope(var, None, eps)
    dweight, dbias = inverse * namespace(x).vecdot(v, centred), _sums(v)
    centred *= (-inverse * dweight / count)[:, None]
    centred += v - (dbias / count)[:, None]
    centred *= _slope(var, weight, eps)[:, None]
    return _unrowed(centred, x.shape), dweight, dbias


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


def _over(values: Array, x: Array) -> Array:
    # (c,) beside (batch, c) or (batch, c, h, w)
    return values if x.ndim == 2 else values[:, None, None]


def _rows(x: Array) -> Array:
    # (batch, c, ...) to (c, N), a view where the memory has the batch last
    xp = namespace(x)
    order = (*range(1, x.ndim), 0)
    return xp.reshape(xp.permute_dims(x, order), (x.shape[1], values_a_channel(x)))


def _unrowed(rows: Array, shape: tuple[int, ...]) -> Array:
    xp = namespace(rows)
    return xp.permute_dims(xp.reshape(rows, (*shape[1:], shape[0])), (len(shape) - 1, *range(len(shape) - 1)))


def _sums(rows: Array) -> Array:
    return namespace(rows).sum(rows, axis=1)
