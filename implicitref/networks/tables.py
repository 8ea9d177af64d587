r"""Initial networks of Table D1, as their authors ran them: sizes, borders and parameter counts.

=============  ===================================  ==============================================
               state                                parameters
=============  ===================================  ==============================================
mon_fc         n = 87                               84,313
mon_conv       56, 81, 200 channels (the table      84,460 on 28 x 28; 172,218 and 853,612 on
               prints 54 for 56)                    32 x 32 in colour
mon_multitier  (16, 32, 32), (16, 32, 60),          81,394 on 28 x 28; 170,194 and 1,014,546 on
               (64, 128, 128) channels              32 x 32 in colour
=============  ===================================  ==============================================
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np

from ..activations import Activation, relu, zero_border
from ..arrays import Array, count
from ..errors import HypothesisError
from ..operators import MonotoneConv, MonotoneDense, MonotoneMultiTier, zero_padded
from .ends import KERNEL, Images
from .mon import MonNetwork

__all__ = ["mon_conv", "mon_fc", "mon_multitier"]

POOL, STRIDE = 4, 2  # of appendix D.1


def mon_fc(
    rng: np.random.Generator,
    inputs: int,
    hidden: int = 87,
    classes: int = 10,
    m: float = 1.0,
    activation: Activation = relu,
    dtype: Any = np.float32,
) -> MonNetwork:
    """The initial dense MON of Table D1: every entry uniform in (-1/sqrt(fan_in), 1/sqrt(fan_in)).

    Examples
    --------
    >>> import numpy as np
    >>> network = mon_fc(np.random.default_rng(0), 64, hidden=5)
    >>> network.U.shape, network.U.dtype.name, network.W.m
    ((5, 64), 'float32', 1.0)
    """
    _counts(inputs=inputs, hidden=hidden, classes=classes)
    U, b = _uniform(rng, dtype, inputs, hidden, inputs), _uniform(rng, dtype, inputs, hidden)
    A, B = _uniform(rng, dtype, hidden, hidden, hidden), _uniform(rng, dtype, hidden, hidden, hidden)
    weight, bias = _uniform(rng, dtype, hidden, classes, hidden), _uniform(rng, dtype, hidden, classes)
    return MonNetwork(MonotoneDense(A, B, m), U, b, weight, bias, activation)


def mon_conv(
    rng: np.random.Generator,
    image: tuple[int, int, int],
    channels: int = 56,
    classes: int = 10,
    m: float = 1.0,
    activation: Activation = relu,
    dtype: Any = np.float32,
) -> MonNetwork:
    """The initial single-convolution MON of Table D1 on images (c, h, w), with g = h = 1 [MON-AppD.2-weightnorm].

    The image stands in a border of one zero pixel, which the activation keeps zero; features are averages over 4 x 4.

    Examples
    --------
    >>> import numpy as np
    >>> network = mon_conv(np.random.default_rng(0), (1, 28, 28))
    >>> sum(p.size for p in network.params.values())       # Table D1; its 54 channels would give 79,500
    84460
    """
    c, height, width = _image(image, POOL - 2)
    _counts(channels=channels, classes=classes)
    U, b = _kernel(rng, dtype, channels, c), _uniform(rng, dtype, c * KERNEL**2, channels)
    A, B = _kernel(rng, dtype, channels, channels), _kernel(rng, dtype, channels, channels)
    W = MonotoneConv(A, B, m, (height + 2, width + 2), g=_scale(dtype), h=_scale(dtype))
    ends = Images((c, height, width), pool=POOL)
    weight, bias = _readout(rng, dtype, ends, W, classes)
    return MonNetwork(W, U, b, weight, bias, zero_padded(W, activation), ends)


def mon_multitier(
    rng: np.random.Generator,
    image: tuple[int, int, int],
    channels: Sequence[int] = (16, 32, 32),
    classes: int = 10,
    m: float = 1.0,
    activation: Activation = relu,
    dtype: Any = np.float32,
) -> MonNetwork:
    """The initial multi-tier MON of Table D1 on images (c, h, w): tiers of sides h/2^i + 2, g = gs = h = 1.

    The image enters the first tier, the last is the features; every tier has a border of one zero pixel.

    Examples
    --------
    >>> import numpy as np
    >>> network = mon_multitier(np.random.default_rng(0), (1, 28, 28))
    >>> sum(p.size for p in network.params.values())       # Table D1
    81394
    """
    c, height, width = _image(image, 1)
    channels = _channels(channels)
    sizes = [(height // d + 2, width // d + 2) for d in _divisors((height, width), len(channels))]
    U, b = _kernel(rng, dtype, channels[0], c), _uniform(rng, dtype, c * KERNEL**2, channels[0])
    A, B = ([_kernel(rng, dtype, n, n) for n in channels] for _ in "AB")
    S = [_kernel(rng, dtype, n, below) for below, n in itertools.pairwise(channels)]
    g, h, gs = ([_scale(dtype) for _ in each] for each in (A, B, S))
    W = MonotoneMultiTier(A, B, S, m, sizes, stride=STRIDE, g=g, gs=gs, h=h)
    ends = Images((c, height, width))
    weight, bias = _readout(rng, dtype, ends, W, classes)
    return MonNetwork(W, U, b, weight, bias, zero_border(activation, 1, W.shapes), ends)


def _uniform(rng: np.random.Generator, dtype: Any, fan_in: int, *shape: int) -> Array:
    return rng.uniform(-1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in), shape).astype(dtype)


def _kernel(rng: np.random.Generator, dtype: Any, out: int, channels: int) -> Array:
    return _uniform(rng, dtype, channels * KERNEL**2, out, channels, KERNEL, KERNEL)


def _readout(rng: np.random.Generator, dtype: Any, ends: Images, W: Any, classes: int) -> tuple[Array, Array]:
    _counts(classes=classes)
    features = math.prod(ends.shapes(W, 0)["features"])
    return _uniform(rng, dtype, features, classes, features), _uniform(rng, dtype, features, classes)


def _scale(dtype: Any) -> Array:
    return np.ones((), dtype)


def _counts(**values: Any) -> None:
    for name, value in values.items():
        count(name, value)


def _image(image: Any, least: int) -> tuple[int, int, int]:
    ok = isinstance(image, tuple | list) and len(image) == 3 and all(isinstance(side, Integral) for side in image)
    if not ok or image[0] < 1 or min(image[1:]) < least:
        raise HypothesisError(f"image must be (channels, height, width), sides >= {least}; got {image!r}.")
    return int(image[0]), int(image[1]), int(image[2])


def _channels(channels: Any) -> tuple[int, ...]:
    if not isinstance(channels, tuple | list) or not channels:
        raise HypothesisError(f"channels must hold an integer >= 1 for every tier; got {channels!r}.")
    for i, n in enumerate(channels):
        _counts(**{f"channels[{i}]": n})
    return tuple(int(n) for n in channels)


def _divisors(sides: tuple[int, int], tiers: int) -> list[int]:
    """By what the sides are divided in every tier."""
    total = STRIDE ** (tiers - 1)
    if any(side % total for side in sides):
        raise HypothesisError(
            f"image must have sides divisible by {STRIDE}^(tiers - 1) = {total} for {tiers} tiers [MON-TabD1]; got "
            f"{sides[0]} x {sides[1]}. Use fewer tiers or crop the images."
        )
    return [STRIDE**i for i in range(tiers)]
