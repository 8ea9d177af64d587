r"""Initial networks of JFB's Table 1, as their authors ran them: sizes and parameter counts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..arrays import Array
from ..errors import HypothesisError
from .jfb import POOL, FixedPointNetwork, assemble

__all__ = ["jfb_mnist"]

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
    if not 0 < gamma < 1:
        raise HypothesisError(f"gamma must lie in (0, 1) [JFB-Asm2.1]; got {gamma!r}.")
    if blocks < 1 or classes < 1 or min(image[1:]) < 3:
        raise HypothesisError(
            f"blocks and classes must be >= 1, sides >= 3; got blocks = {blocks}, classes = {classes}, image = {image}."
        )
    pool = POOL if min(image[1:]) >= 5 * POOL else 1
    arrays = _arrays(rng, image[0], classes, blocks, batch_norm, math.prod(side // pool - 2 for side in image[1:]))
    arrays = {name: value.astype(dtype) for name, value in arrays.items()}
    side = image[1], image[2]
    return assemble(arrays, blocks=blocks, gamma=gamma, slope=SLOPE, eps=EPS, pool=pool, side=side)


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
