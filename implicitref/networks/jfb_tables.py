r"""Initial networks of JFB's Table 1, as their authors ran them: sizes and parameter counts.

===========  ===================================================  =============================================
             latent space                                         parameters
===========  ===================================================  =============================================
jfb_mnist    32 x 9 x 9, two blocks                               54,352; 35,856 with one block
jfb_svhn     64 x 8 x 8, one block, after residual blocks as Q    163,488; the table's 163,744 count 256 that the
                                                                  authors' network has and does not use
jfb_cifar10  35 x 10 x 10, five blocks, after 32 as Q             843,430
===========  ===================================================  =============================================

All have the explicit network of the tables beside them, `explicit`: one application of T to 0. Dropout, which has no
parameters, is left out.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..activations import Activation, leaky_relu
from ..arrays import Array, as_number, count
from ..errors import HypothesisError
from ..layers import (
    Activate,
    Affine,
    AveragePool,
    BatchNorm,
    Conv2d,
    Flatten,
    Layer,
    Pad,
    Scale,
    Sequential,
    basic_block,
    residual,
)
from .jfb import POOL, FixedPointNetwork, assemble, double_convolution

__all__ = ["jfb_cifar10", "jfb_mnist", "jfb_svhn"]

FILTERS, LATENT = 16, 32
SLOPE, EPS = 0.1, 1e-5
BORDER, GREY = 7, 0.449
ACT = Activate(leaky_relu(SLOPE))


def jfb_mnist(
    rng: np.random.Generator,
    image: tuple[int, int, int] = (1, 28, 28),
    classes: int = 10,
    *,
    blocks: int = 2,
    gamma: float = 0.5,
    batch_norm: bool = True,
    dtype: Any = np.float32,
) -> FixedPointNetwork:
    r"""The initial network on MNIST: 54,352 parameters with two latent blocks, 35,856 with one [JFB-Tab1].

    Weights and biases are uniform in (-1/sqrt(fan_in), 1/sqrt(fan_in)), running moments 0 and 1. Images with a side
    below 15 are not pooled.

    Parameters
    ----------
    rng : numpy.random.Generator
    image : (channels, height, width), sides >= 3
    classes, blocks : int, >= 1
    gamma : float, 0 < gamma < 1
        Factor after the last block. It makes a contraction likely and proves none.
    batch_norm : bool
        In the latent space; the paper's Jacobian-based runs have none there [JFB-Tab2].
    dtype : floating dtype of the arrays

    Examples
    --------
    >>> import numpy as np
    >>> net = jfb_mnist(np.random.default_rng(0), blocks=1)
    >>> sum(p.size for p in net.params.values()), net.state
    (35856, (32, 9, 9))
    """
    check(gamma, image, 3, blocks=blocks, classes=classes)
    pool = POOL if min(image[1:]) >= 5 * POOL else 1
    arrays = _arrays(rng, image[0], classes, blocks, batch_norm, math.prod(side // pool - 2 for side in image[1:]))
    arrays = {name: value.astype(dtype) for name, value in arrays.items()}
    side = image[1], image[2]
    return assemble(arrays, blocks=blocks, gamma=gamma, slope=SLOPE, eps=EPS, pool=pool, side=side)


def jfb_svhn(
    rng: np.random.Generator,
    image: tuple[int, int, int] = (3, 32, 32),
    classes: int = 10,
    *,
    widths: tuple[int, int, int] = (16, 32, 64),
    gamma: float = 0.5,
    batch_norm: bool = True,
    dtype: Any = np.float32,
) -> FixedPointNetwork:
    r"""The initial network on SVHN: a small residual network as Q, one latent block, 163,488 parameters [JFB-Tab1].

    Q is a convolution and three residual blocks with strides 1, 2, 2, their convolutions without biases.

    Parameters
    ----------
    rng, classes, gamma, batch_norm, dtype
        As in `jfb_mnist`.
    image : (channels, height, width), sides >= 12 and divisible by 4
    widths : channels of the three residual blocks, growing

    Examples
    --------
    >>> import numpy as np
    >>> net = jfb_svhn(np.random.default_rng(0))
    >>> sum(p.size for p in net.params.values()), net.state
    (163488, (64, 8, 8))
    """
    check(gamma, image, 12, 4, classes=classes)
    conv, bn, latent = functools.partial(convolution, rng, dtype), functools.partial(norm, dtype), widths[-1]
    hidden: dict[str, Layer] = {"latent_convs.0": double_convolution(conv(latent, latent), conv(latent, latent), SLOPE)}
    if batch_norm:
        hidden["lat_batch_norm.0"] = bn(latent, affine=False)
    height, width = image[1] // 4, image[2] // 4
    count = FILTERS * (height - 2) * (width - 2)
    readout: dict[str, Layer] = {"conv_y": conv(FILTERS, latent, padding=0), "act_y": ACT, "flatten": Flatten()}
    readout["fc_y"] = Affine(uniform(rng, count, classes, count).astype(dtype))
    Q = Sequential(residual_features(conv, bn, image[0], widths, 1, leaky_relu(SLOPE)))
    R, S = Sequential({**hidden, "gamma": Scale(gamma)}), Sequential(readout)
    return FixedPointNetwork(Q, R, S, image, (latent, height, width))


def residual_features(
    conv: Callable[..., Conv2d],
    bn: Callable[..., BatchNorm],
    channels: int,
    widths: tuple[int, ...],
    repeats: int,
    activation: Activation,
) -> dict[str, Layer]:
    """A convolution, then `repeats` basic blocks of every width, the first with stride 2 but for the first width."""
    features: dict[str, Layer] = {"conv1": conv(widths[0], channels, bias=False), "bn1": bn(widths[0])}
    features["act1"] = Activate(activation)
    before, repeated = widths[0], [width for width in widths for _ in range(repeats)]
    for i, width in enumerate(repeated):
        stride = 2 if i and i % repeats == 0 else 1
        first, second = conv(width, before, stride=stride, bias=False), conv(width, width, bias=False)
        features[f"block{i + 1}"] = basic_block(first, bn(width), second, bn(width), activation)
        before = width
    return features


def jfb_cifar10(
    rng: np.random.Generator,
    image: tuple[int, int, int] = (3, 32, 32),
    classes: int = 10,
    *,
    channels: int = 35,
    depth: int = 16,
    blocks: int = 5,
    gamma: float = 0.5,
    batch_norm: bool = True,
    dtype: Any = np.float32,
) -> FixedPointNetwork:
    r"""The initial network on CIFAR-10: 2 x `depth` residual blocks as Q, five latent ones, 843,430 parameters
    [JFB-Tab1].

    The image gets a border of .449, 4 wide, and replication 3 wide, which is 7 of .449; a convolution of 7 x 7 and
    residual blocks ``w := BN(leaky(w + conv(leaky(conv(w)))))`` follow, each half of them ending in average pooling.
    The authors' R is a chain of such blocks from ``v + gamma u``. Here z = gamma u: ``z = gamma R(z + v)`` has the same
    iterates times gamma, and the readout begins with 1/gamma.

    Parameters
    ----------
    rng, classes, gamma, batch_norm, dtype
        As in `jfb_mnist`.
    image : (channels, height, width)
    channels, depth, blocks : int, >= 1

    Examples
    --------
    >>> import numpy as np
    >>> net = jfb_cifar10(np.random.default_rng(0))
    >>> sum(p.size for p in net.params.values()), net.state
    (843430, (35, 10, 10))
    """
    check(gamma, image, 1, channels=channels, depth=depth, blocks=blocks, classes=classes)
    conv, bn = functools.partial(convolution, rng, dtype), functools.partial(norm, dtype)
    features: dict[str, Layer] = {"pad": Pad(BORDER, GREY), "conv_d": conv(channels, image[0], 7, padding=0)}
    features["act_d"] = ACT
    for i in range(2 * depth):
        features |= _block(conv, bn, channels, "data", i)
        features |= {} if (i + 1) % depth else {f"pool.{i}": AveragePool(2)}
    hidden: dict[str, Layer] = {}
    for i in range(blocks):
        hidden |= _block(conv, bn if batch_norm else None, channels, "latent", i)
    state = channels, *((side + 2 * (BORDER - 3)) // 2 // 2 for side in image[1:])
    count = channels * math.prod((side + 1) // 2 for side in state[1:])
    readout: dict[str, Layer] = {"gamma": Scale(1 / gamma), "conv_y": conv(channels, channels, stride=2), "act_y": ACT}
    readout |= {"flatten": Flatten(), "fc_y": Affine(uniform(rng, count, classes, count).astype(dtype))}
    Q, R, S = (Sequential(part) for part in (features, {**hidden, "gamma": Scale(gamma)}, readout))
    return FixedPointNetwork(Q, R, S, image, state)


def _block(
    conv: Callable[..., Conv2d], bn: Callable[..., BatchNorm] | None, channels: int, name: str, i: int
) -> dict[str, Layer]:
    """``BN(leaky(w + conv(leaky(conv(w)))))`` as the i-th block of its name."""
    body = Sequential({"0": conv(channels, channels), "1": ACT, "3": conv(channels, channels)})
    block: dict[str, Layer] = {f"{name}_convs.{i}": residual(body), f"{name}_act.{i}": ACT}
    return {**block, f"{name}_batch_norm.{i}": bn(channels, affine=False)} if bn else block


def convolution(
    rng: np.random.Generator,
    dtype: Any,
    out: int,
    channels: int,
    kernel: int = 3,
    *,
    stride: int = 1,
    padding: int = 1,
    bias: bool = True,
) -> Conv2d:
    """An initial convolution."""
    fan_in = kernel**2 * channels
    weight = uniform(rng, fan_in, out, channels, kernel, kernel).astype(dtype)
    return Conv2d(weight, uniform(rng, fan_in, out).astype(dtype) if bias else None, stride, padding)


def norm(dtype: Any, channels: int, *, affine: bool = True) -> BatchNorm:
    """An initial batch norm."""
    one, zero = np.ones(channels, dtype), np.zeros(channels, dtype)
    return BatchNorm(zero, one, one if affine else None, zero if affine else None, eps=EPS)


def check(gamma: Any, image: Any, least: int, divisor: int = 1, **counts: Any) -> None:
    """HypothesisError unless 0 < gamma < 1, image is (channels, height, width) with such sides, and counts are >= 1."""
    number = as_number(gamma)
    if number is None or not 0 < number < 1:
        raise HypothesisError(f"gamma must lie in (0, 1) [JFB-Asm2.1]; got {gamma!r}.")
    if not isinstance(image, (tuple, list)) or len(image) != 3:
        raise HypothesisError(f"image must be (channels, height, width), three integers >= 1; got {image!r}.")
    for i, value in enumerate(image):
        count(f"image[{i}]", value)
    if min(image[1:]) < least or any(side % divisor for side in image[1:]):
        further = f" divisible by {divisor}," if divisor > 1 else ""
        raise HypothesisError(f"image must have sides >= {least},{further} got {tuple(image)}.")
    for name, value in counts.items():
        count(name, value)


def _arrays(
    rng: np.random.Generator, channels: int, classes: int, blocks: int, batch_norm: bool, pixels: int
) -> dict[str, Array]:
    convs = {"conv_d1": (FILTERS, channels), "conv_d2": (LATENT, FILTERS)}
    convs |= {f"latent_convs.{i}.{j}": (LATENT, LATENT) for i in range(blocks) for j in (0, 3)}
    convs["conv_y"] = FILTERS, LATENT
    arrays: dict[str, Array] = {}
    for name, (out, c) in convs.items():
        arrays |= {f"{name}.weight": uniform(rng, 9 * c, out, c, 3, 3), f"{name}.bias": uniform(rng, 9 * c, out)}
    features = FILTERS * pixels
    arrays["fc_y.weight"] = uniform(rng, features, classes, features)
    for name, c in {"bn_1": FILTERS, "bn_2": LATENT}.items():
        arrays |= {f"{name}.weight": np.ones(c), f"{name}.bias": np.zeros(c), **_moments(name, c)}
    if batch_norm:
        arrays |= {k: v for i in range(blocks) for k, v in _moments(f"lat_batch_norm.{i}", LATENT).items()}
    return arrays


def _moments(name: str, channels: int) -> dict[str, Array]:
    return {f"{name}.running_mean": np.zeros(channels), f"{name}.running_var": np.ones(channels)}


def uniform(rng: np.random.Generator, fan_in: int, *shape: int) -> Array:
    """Entries uniform in (-1/sqrt(fan_in), 1/sqrt(fan_in))."""
    return rng.uniform(-1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in), shape)
