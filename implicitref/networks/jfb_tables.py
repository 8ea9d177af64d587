r"""Initial networks of JFB's Table 1, as their authors ran them: sizes and parameter counts.

=========  =====================================================  =============================================
           latent space                                           parameters
=========  =====================================================  =============================================
jfb_mnist  32 x 9 x 9, two blocks                                 54,352; 35,856 with one block
jfb_svhn   64 x 8 x 8, one block, after residual blocks as Q      163,488; the table's 163,744 count 256 that the
                                                                  authors' network has and does not use
=========  =====================================================  =============================================
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..activations import leaky_relu
from ..arrays import Array
from ..errors import HypothesisError
from ..layers import (
    Activate,
    Affine,
    BatchNorm,
    Conv2d,
    Flatten,
    Layer,
    Scale,
    Sequential,
    basic_block,
)
from .jfb import POOL, FixedPointNetwork, assemble, double_convolution

__all__ = ["jfb_mnist", "jfb_svhn"]

FILTERS, LATENT = 16, 32
SLOPE, EPS = 0.1, 1e-5


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

    Examples
    --------
    >>> import numpy as np
    >>> net = jfb_mnist(np.random.default_rng(0), blocks=1)
    >>> sum(p.size for p in net.params.values()), net.state
    (35856, (32, 9, 9))
    """
    _contractive(gamma)
    if blocks < 1 or classes < 1 or min(image[1:]) < 3:
        raise HypothesisError(
            f"blocks and classes must be >= 1, sides >= 3; got blocks = {blocks}, classes = {classes}, image = {image}."
        )
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
    rng, classes, gamma, batch_norm
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
    _contractive(gamma)
    if min(image[1:]) < 12 or any(side % 4 for side in image[1:]):
        raise HypothesisError(f"image must have sides >= 12, divisible by 4; got {image!r}.")
    act, latent = Activate(leaky_relu(SLOPE)), widths[-1]

    def conv(out: int, c: int, stride: int = 1, padding: int = 1, bias: bool = True) -> Conv2d:
        kernel = uniform(rng, 9 * c, out, c, 3, 3).astype(dtype)
        return Conv2d(kernel, uniform(rng, 9 * c, out).astype(dtype) if bias else None, stride, padding)

    def bn(c: int, affine: bool = True) -> BatchNorm:
        one, zero = np.ones(c, dtype), np.zeros(c, dtype)
        return BatchNorm(zero, one, one if affine else None, zero if affine else None, eps=EPS)

    features: dict[str, Layer] = {"conv1": conv(widths[0], image[0], bias=False), "bn1": bn(widths[0]), "act1": act}
    for i, (c, out, stride) in enumerate(zip((widths[0], *widths), widths, (1, 2, 2), strict=False), 1):
        first, second = conv(out, c, stride, bias=False), conv(out, out, bias=False)
        features[f"block{i}"] = basic_block(first, bn(out), second, bn(out), leaky_relu(SLOPE))
    hidden: dict[str, Layer] = {"latent_convs.0": double_convolution(conv(latent, latent), conv(latent, latent), SLOPE)}
    if batch_norm:
        hidden["lat_batch_norm.0"] = bn(latent, affine=False)
    height, width = image[1] // 4, image[2] // 4
    count = FILTERS * (height - 2) * (width - 2)
    readout: dict[str, Layer] = {"conv_y": conv(FILTERS, latent, padding=0), "act_y": act, "flatten": Flatten()}
    readout["fc_y"] = Affine(uniform(rng, count, classes, count).astype(dtype))
    Q, R, S = (Sequential(part) for part in (features, {**hidden, "gamma": Scale(gamma)}, readout))
    return FixedPointNetwork(Q, R, S, image, (latent, height, width))


def _contractive(gamma: float) -> None:
    if not 0 < gamma < 1:
        raise HypothesisError(f"gamma must lie in (0, 1) [JFB-Asm2.1]; got {gamma!r}.")


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
