r"""The two ends of a MON: how inputs enter the state, and what of the state the dense readout sees (appendix D.1).

Each end is a linear map beside its adjoints. `ROWS` is the dense network, ``U x + b`` in and z itself out. `Images`
is a convolution U into the first tier and the last tier out, perhaps pooled.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from ..arrays import Array, namespace, zeros
from ..layers import affine, affine_vjp_params
from ..layers.conv import conv2d, conv2d_vjp, conv2d_vjp_params
from ..layers.pool import average_pool, average_pool_vjp

__all__ = ["ROWS", "Images", "Rows"]

KERNEL = 3  # side of every kernel of appendix D.1


@dataclasses.dataclass(frozen=True)
class Rows:
    """Inputs (batch, d) by a matrix U (n, d); every entry of the state is a feature."""

    def input_shape(self, U: Array) -> tuple[int, ...]:
        """(d,)."""
        return (U.shape[1],)

    def shapes(self, W: Any, inputs: int) -> dict[str, tuple[int, ...]]:
        """Shapes of U and b, and of the features of one sample."""
        (n,) = W.state_shape
        return {"U": (n, inputs), "b": (n,), "features": (n,)}

    def inject(self, W: Any, x: Array, U: Array, b: Array) -> Array:
        """U x + b: (batch, d) to (batch, n)."""
        return affine(x, U, b)

    def inject_vjp(self, W: Any, U: Array, dy: Array) -> Array:
        """Gradient of <dy, U x + b> by x."""
        return dy @ U

    def inject_vjp_params(self, W: Any, x: Array, dy: Array) -> tuple[Array, Array]:
        """Gradients of the same by U and b."""
        return affine_vjp_params(x, dy)

    def features(self, W: Any, z: Array) -> Array:
        """z."""
        return z

    def features_vjp(self, W: Any, dy: Array) -> Array:
        """dy."""
        return dy


ROWS = Rows()


@dataclasses.dataclass(frozen=True)
class Images:
    r"""Images (batch, c, h, w) by a 3 x 3 convolution into the first tier, `border` pixels larger on each side.

    The features are the last tier, border included, averaged over windows pool x pool; windows that do not fit are
    left out [MON-AppD.1-readout]. A network of one convolution is one tier.

    Attributes
    ----------
    image : (c, h, w)
    border : int
    pool : int
    """

    image: tuple[int, int, int]
    border: int = 1
    pool: int = 1

    def input_shape(self, U: Array) -> tuple[int, ...]:
        """(c, h, w)."""
        return self.image

    def shapes(self, W: Any, inputs: int) -> dict[str, tuple[int, ...]]:
        """Shapes of U and b, and of the features of one sample."""
        first, (last, h, w) = tier_shapes(W)[0][0], tier_shapes(W)[-1]
        pooled = (last, h // self.pool, w // self.pool)
        return {"U": (first, self.image[0], KERNEL, KERNEL), "b": (first,), "features": pooled}

    def inject(self, W: Any, x: Array, U: Array, b: Array) -> Array:
        """U x + b in the first tier, zero in the others: (batch, c, h, w) to states."""
        return _alone(W, conv2d(x, U, b, padding=self._padding), first=True)

    def inject_vjp(self, W: Any, U: Array, dy: Array) -> Array:
        """Gradient of <dy, U x + b> by x."""
        first = _tiers(W, dy)[0]
        return conv2d_vjp((dy.shape[0], *self.image), U, first, padding=self._padding)

    def inject_vjp_params(self, W: Any, x: Array, dy: Array) -> tuple[Array, Array]:
        """Gradients of the same by U and b."""
        return conv2d_vjp_params(x, (KERNEL, KERNEL), _tiers(W, dy)[0], padding=self._padding)

    @property
    def _padding(self) -> int:
        # the circular convolution of the image in its border of zeros is the plain one of a wider border
        return self.border + (KERNEL - 1) // 2

    def features(self, W: Any, z: Array) -> Array:
        """The pooled last tier, (batch, features)."""
        last = _tiers(W, z)[-1]
        pooled = average_pool(last, self.pool) if self.pool > 1 else last
        return namespace(z).reshape(pooled, (z.shape[0], math.prod(pooled.shape[1:])))

    def features_vjp(self, W: Any, dy: Array) -> Array:
        """Gradient of <dy, features> by z."""
        xp, shape, batch = namespace(dy), tier_shapes(W)[-1], dy.shape[0]
        rows = np.asfortranarray(dy) if type(dy) is np.ndarray else dy  # in memory the batch last, like the states
        dlast = xp.reshape(rows, (batch, shape[0], shape[1] // self.pool, shape[2] // self.pool))
        if self.pool > 1:
            dlast = average_pool_vjp((batch, *shape), dlast, self.pool)
        return _alone(W, dlast, first=False)


def tier_shapes(W: Any) -> list[tuple[int, int, int]]:
    """(channels, height, width) of every tier."""
    return list(W.shapes) if hasattr(W, "shapes") else [W.state_shape]


def _tiers(W: Any, z: Array) -> list[Array]:
    return list(W.split(z)) if hasattr(W, "split") else [z]


def _alone(W: Any, tier: Array, first: bool) -> Array:
    """The state whose first (or last) tier is `tier` and whose other tiers are zero."""
    if not hasattr(W, "join"):
        return tier
    shapes, batch = tier_shapes(W), tier.shape[0]
    others = [
        namespace(tier).permute_dims(zeros((*shape, batch), tier), (3, 0, 1, 2))
        for shape in (shapes[1:] if first else shapes[:-1])
    ]
    return W.join([tier, *others] if first else [*others, tier])
