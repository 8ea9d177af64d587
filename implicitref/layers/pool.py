r"""Max, average and global average pooling, with their adjoints. Windows that do not fit are left out (floor)."""

from __future__ import annotations

import numpy as np

from ..arrays import Array, namespace
from .windows import Pair, batch_first, batch_last, fitting, images, pair, same_shape, taps, untaps

__all__ = [
    "average_pool",
    "average_pool_vjp",
    "global_average_pool",
    "global_average_pool_vjp",
    "max_pool",
    "max_pool_vjp",
]


def max_pool(x: Array, kernel: int | Pair, stride: int | Pair | None = None) -> Array:
    r"""The largest entry of every window: (batch, c, h, w) to (batch, c, (h - kh) // s + 1, (w - kw) // s + 1).

    Parameters
    ----------
    x : array (batch, c, h, w)
    kernel : int or (int, int)
        At most h, w.
    stride : int or (int, int), optional
        >= 1; the kernel if it is left out.

    Raises
    ------
    TypeError, ShapeError, HypothesisError

    Examples
    --------
    >>> import numpy as np
    >>> max_pool(np.arange(16.0).reshape(1, 1, 4, 4), 3)
    array([[[[10.]]]])
    """
    kernel, stride, u = _window(x, kernel, stride)
    y, *others = taps(u, kernel, stride)
    for other in others:
        y = namespace(u).maximum(y, other)
    return batch_first(y)


def max_pool_vjp(x: Array, y: Array, dy: Array, kernel: int | Pair, stride: int | Pair | None = None) -> Array:
    """Gradient of ``<dy, y>`` with respect to x, y = max_pool(x); among equals the first of the window has it all."""
    # y_r = x_(k(r)) with k(r) the first place of the largest entry: dx is the sum over the offsets k of dy where
    # k(r) = k, put back in its place. Where entries tie this is one element of the Clarke subdifferential.
    kernel, stride, u = _window(x, kernel, stride)
    y, dy = batch_last(y), batch_last(same_shape("dy", dy, tuple(y.shape)))
    if type(u) is np.ndarray:
        return batch_first(_max_pool_vjp_in_place(u, y, dy, kernel, stride))
    xp, free, parts = namespace(u), None, []
    for tap in taps(u, kernel, stride):
        hit = tap == y if free is None else (tap == y) & free
        free = ~hit if free is None else free & ~hit
        parts.append(dy * xp.astype(hit, dy.dtype))
    return batch_first(untaps(parts, tuple(u.shape), kernel, stride))


def _max_pool_vjp_in_place(u: np.ndarray, y: np.ndarray, dy: np.ndarray, kernel: Pair, stride: Pair) -> np.ndarray:
    # everything in the memory's order of x
    du, part = np.zeros_like(u, dtype=dy.dtype), np.empty_like(y, dtype=dy.dtype)
    free, hit = np.ones_like(y, dtype=bool), np.empty_like(y, dtype=bool)
    part[...] = dy
    for tap, back in zip(taps(u, kernel, stride), taps(du, kernel, stride), strict=True):
        np.equal(tap, y, out=hit)
        hit &= free
        free ^= hit
        back += part * hit  # where windows overlap, more than one may end here
    return du


def average_pool(x: Array, kernel: int | Pair, stride: int | Pair | None = None) -> Array:
    """The mean of every window; shapes, parameters and errors of `max_pool`.

    Examples
    --------
    >>> import numpy as np
    >>> average_pool(np.arange(16.0).reshape(1, 1, 4, 4), 2)
    array([[[[ 2.5,  4.5],
             [10.5, 12.5]]]])
    """
    kernel, stride, u = _window(x, kernel, stride)
    first, *others = taps(u, kernel, stride)
    return batch_first(sum(others, start=first) / (kernel[0] * kernel[1]))


def average_pool_vjp(shape: tuple[int, ...], dy: Array, kernel: int | Pair, stride: int | Pair | None = None) -> Array:
    """Gradient of ``<dy, average_pool(x)>`` with respect to x of `shape`."""
    # y = sum_k x_(k) / K over the K offsets: every offset gets dy / K back
    kernel = pair("kernel", kernel, 1)
    stride = pair("stride", kernel if stride is None else stride, 1)
    v = batch_last(images("dy", dy)) / (kernel[0] * kernel[1])
    return batch_first(untaps([v] * (kernel[0] * kernel[1]), (*shape[1:], shape[0]), kernel, stride))


def global_average_pool(x: Array) -> Array:
    """The mean of every channel: (batch, c, h, w) to (batch, c).

    Examples
    --------
    >>> import numpy as np
    >>> global_average_pool(np.ones((2, 3, 4, 4))).shape
    (2, 3)
    """
    x = images("x", x)
    return namespace(x).mean(x, axis=(2, 3))


def global_average_pool_vjp(shape: tuple[int, ...], dy: Array) -> Array:
    """Gradient of ``<dy, global_average_pool(x)>`` with respect to x of `shape`."""
    # y = sum_(h, w) x / (h w): dx is dy / (h w) at every pixel
    xp = namespace(dy)
    value = same_shape("dy", dy, shape[:2]) / (shape[2] * shape[3])
    return xp.broadcast_to(value[:, :, None, None], shape)


def _window(x: Array, kernel: int | Pair, stride: int | Pair | None) -> tuple[Pair, Pair, Array]:
    x, kernel = images("x", x), pair("kernel", kernel, 1)
    fitting(kernel, (x.shape[2], x.shape[3]), "image")
    return kernel, pair("stride", kernel if stride is None else stride, 1), batch_last(x)
