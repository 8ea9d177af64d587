"""Random crops and flips of training images, as in appendix D.2 of MON."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..arrays import one_of
from ..errors import HypothesisError

__all__ = ["NAMES", "crop", "crop_flip", "flip", "none"]

PAD = 4  # black pixels on each side, of which a crop of the old size is taken

Draw = Callable[[int, np.ndarray], np.ndarray]  # (minibatch, images) -> images


def none(rng: np.random.Generator, x: np.ndarray, black: float = 0.0) -> np.ndarray:
    """The images as they are."""
    return x


def crop(rng: np.random.Generator, x: np.ndarray, black: float = 0.0) -> np.ndarray:
    """Every image (batch, c, h, w) moved by -4..4 pixels in both directions; `black` comes in.

    Examples
    --------
    >>> import numpy as np
    >>> crop(np.random.default_rng(0), np.ones((2, 1, 8, 8))).shape
    (2, 1, 8, 8)
    """
    height, width = x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (PAD, PAD), (PAD, PAD)), constant_values=black)
    rows, columns = rng.integers(2 * PAD + 1, size=(2, x.shape[0], 1))
    rows, columns = rows + np.arange(height), columns + np.arange(width)
    each = np.arange(x.shape[0])[:, None, None]
    return padded[each, :, rows[:, :, None], columns[:, None, :]].transpose(0, 3, 1, 2)


def flip(rng: np.random.Generator, x: np.ndarray, black: float = 0.0) -> np.ndarray:
    """Every image mirrored left to right, or not, with probability 1/2."""
    return np.where(rng.integers(2, size=(x.shape[0], 1, 1, 1)) == 1, x[..., ::-1], x)


def crop_flip(rng: np.random.Generator, x: np.ndarray, black: float = 0.0) -> np.ndarray:
    """`crop`, then `flip`: what the large CIFAR-10 networks of the paper were trained with."""
    return flip(rng, crop(rng, x, black))


NAMES = {"none": none, "crop": crop, "crop-flip": crop_flip}


def by_name(name: str) -> Callable[[np.random.Generator, float], Draw]:
    """From a generator, advanced by one draw at most, and black, the augmentation of every minibatch of an epoch.

    Each minibatch has its own generator, so that an epoch can be resumed at any of them.
    """
    one_of("augment", name, NAMES)

    def draws(rng: np.random.Generator, black: float) -> Draw:
        if name == "none":
            return lambda index, x: x
        key = int(rng.integers(2**63))

        def draw(index: int, x: np.ndarray) -> np.ndarray:
            if x.ndim != 4:
                raise HypothesisError(f"augment = {name!r} needs images (batch, c, h, w); got shape {x.shape}.")
            return NAMES[name](np.random.default_rng((key, index)), x, black)

        return draw

    return draws
