r"""Initial networks of the first version's Table 1: dense latent spaces, ``||W||_2 <= 1``, a proven contraction.

===============  =============================  ======  ==========  ======================
                 Q, then a dense layer          latent  parameters  the table has
===============  =============================  ======  ==========  ======================
fpn_mnist_dense  one dense layer                58      84,087      84K
fpn_mnist        two convolutions               46      84,182      84K
fpn_svhn         two convolutions               89      154,038     154K
fpn_cifar10      three convolutions             47      171,965     172K
fpn_resnet56     ResNet-56 without its readout  45      859,793     860K, with augmentation
===============  =============================  ======  ==========  ======================

``z* = gamma act(W (z* + Q(x)))``; on CIFAR-10 ``z* = gamma act(W_2 act(W_1 (z* + Q(x))))``; one dense readout, of which
the logits are taken in front of the relu, softmax or leaky relu that the paper puts behind it. Appendix C says in words
how many layers there are, and the table gives thousands. Widths and kernels are those of the authors' programs; the
latent dimension, which is given for ResNet-56 only, is the one whose count rounds to the table's (of 57 and 58, which
both do, the one nearer to 84,000). Dropout is left out. The explicit networks of the table are `explicit`.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from ..activations import Activation, leaky_relu, relu
from ..fixed_point.theory import clipped
from ..layers import Activate, Affine, Flatten, GlobalAveragePool, Layer, MaxPool, Scale, Sequential
from .jfb import FixedPointNetwork
from .jfb_tables import SLOPE, check, convolution, norm, residual_features, uniform

__all__ = ["fpn_cifar10", "fpn_mnist", "fpn_mnist_dense", "fpn_resnet56", "fpn_svhn"]

Image = tuple[int, int, int]
LEAKY = leaky_relu(SLOPE)
RESNET, BLOCKS = (16, 32, 64), 9  # 56 layers: 1 + 3 x 9 x 2 convolutions and a dense one


def fpn_mnist_dense(
    rng: np.random.Generator,
    image: Image = (1, 28, 28),
    classes: int = 10,
    *,
    hidden: int = 95,
    latent: int = 58,
    gamma: float = 0.9,
    dtype: Any = np.float32,
) -> FixedPointNetwork:
    r"""The fully connected network on MNIST: relu, 84,087 parameters.

    Parameters
    ----------
    rng : numpy.random.Generator
    image : (channels, height, width)
    classes, hidden, latent : int, >= 1
    gamma : float, 0 < gamma < 1
        A proven contraction factor while ``||W||_2 <= 1``, which `projected` sees to [FPN-Asm2.1].
    dtype : floating dtype of the parameters

    Examples
    --------
    >>> import numpy as np
    >>> net = fpn_mnist_dense(np.random.default_rng(0))
    >>> sum(p.size for p in net.params.values()), net.state, net.latent.gamma < 0.90001
    (84087, (58,), True)
    """
    check(gamma, image, 1, classes=classes, latent=latent, hidden=hidden)
    count = math.prod(image)
    features: dict[str, Layer] = {"flatten": Flatten(), "fc_d": _dense(rng, hidden, count, dtype)}
    features["act_d"] = Activate(relu)
    return _network(rng, features, hidden, image, classes, latent, gamma, relu, dtype=dtype)


def fpn_mnist(
    rng: np.random.Generator, image: Image = (1, 28, 28), classes: int = 10, *, latent: int = 46, gamma: float = 0.99,
    dtype: Any = np.float32,
) -> FixedPointNetwork:  # fmt: skip
    """The network with two convolutions on MNIST: relu, 84,182 parameters; arguments as in `fpn_mnist_dense`.

    Images need sides >= 10.
    """
    check(gamma, image, 10, classes=classes, latent=latent)
    features, count = _convolutions(rng, image, (96, 40), 3, relu, dtype)
    return _network(rng, features, count, image, classes, latent, gamma, relu, dtype=dtype)


def fpn_svhn(
    rng: np.random.Generator, image: Image = (3, 32, 32), classes: int = 10, *, latent: int = 89, gamma: float = 0.5,
    dtype: Any = np.float32,
) -> FixedPointNetwork:  # fmt: skip
    """The network on SVHN: leaky relu, a biased readout, 154,038 parameters; arguments as in `fpn_mnist_dense`.

    Images need sides >= 16.
    """
    check(gamma, image, 16, classes=classes, latent=latent)
    features, count = _convolutions(rng, image, (30, 48), 5, LEAKY, dtype)
    return _network(rng, features, count, image, classes, latent, gamma, LEAKY, bias=True, dtype=dtype)


def fpn_cifar10(
    rng: np.random.Generator, image: Image = (3, 32, 32), classes: int = 10, *, latent: int = 47, gamma: float = 0.99,
    dtype: Any = np.float32,
) -> FixedPointNetwork:  # fmt: skip
    """The network on CIFAR-10 without augmentation: leaky relu, 171,965 parameters; arguments as in `fpn_mnist_dense`.

    Images need sides >= 22.
    """
    check(gamma, image, 22, classes=classes, latent=latent)
    features, count = _convolutions(rng, image, (80, 90, 100), 3, LEAKY, dtype)
    return _network(rng, features, count, image, classes, latent, gamma, LEAKY, layers=2, dtype=dtype)


def fpn_resnet56(
    rng: np.random.Generator, image: Image = (3, 32, 32), classes: int = 10, *, latent: int = 45, gamma: float = 0.99,
    dtype: Any = np.float32,
) -> FixedPointNetwork:  # fmt: skip
    """The network on CIFAR-10 with augmentation, ResNet-56 as Q: 859,793 parameters; arguments as in `fpn_mnist_dense`.

    Images need sides divisible by 4.
    """
    check(gamma, image, 4, 4, classes=classes, latent=latent)
    conv, bn = functools.partial(convolution, rng, dtype), functools.partial(norm, dtype)
    features = {**residual_features(conv, bn, image[0], RESNET, BLOCKS, relu), "pool": GlobalAveragePool()}
    return _network(rng, features, RESNET[-1], image, classes, latent, gamma, LEAKY, layers=2, dtype=dtype)


def _convolutions(
    rng: np.random.Generator, image: Image, widths: tuple[int, ...], kernel: int, activation: Activation, dtype: Any
) -> tuple[dict[str, Layer], int]:
    """Convolutions without padding, each before an activation and max pooling, and how many features come out."""
    features: dict[str, Layer] = {}
    before, height, width = image
    for i, out in enumerate(widths, 1):
        features[f"conv{i}"] = convolution(rng, dtype, out, before, kernel, padding=0)
        features |= {f"act{i}": Activate(activation), f"pool{i}": MaxPool(2)}
        before, height, width = out, (height - kernel + 1) // 2, (width - kernel + 1) // 2
    return {**features, "flatten": Flatten()}, before * height * width


def _network(
    rng: np.random.Generator,
    features: dict[str, Layer],
    count: int,
    image: Image,
    classes: int,
    latent: int,
    gamma: float,
    activation: Activation,
    *,
    layers: int = 1,
    bias: bool = False,
    dtype: Any,
) -> FixedPointNetwork:
    act = Activate(activation)
    Q = Sequential({**features, "fc_v": _dense(rng, latent, count, dtype), "act_v": act})
    hidden: dict[str, Layer] = {}
    for i in range(layers):
        W = clipped(uniform(rng, latent, latent, latent)).astype(dtype)
        hidden |= {f"fc_u.{i}": Affine(W), f"act_u.{i}": act}
    R = Sequential({**hidden, "gamma": Scale(gamma)})
    S = Sequential({"fc_y": _dense(rng, classes, latent, dtype, bias)})
    return FixedPointNetwork(Q, R, S, image, (latent,), tuple(R.params))


def _dense(rng: np.random.Generator, out: int, count: int, dtype: Any, bias: bool = True) -> Affine:
    weight = uniform(rng, count, out, count).astype(dtype)
    return Affine(weight, uniform(rng, count, out).astype(dtype) if bias else None)
