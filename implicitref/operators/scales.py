r"""The scales g, h of appendix D.2: ``- g A'A/||A||_F^2 + h (B - B')/||B||_F``, with the norms of the parameters.

For convolutions these are the norms of the kernels [MON-AppD.2-weightnorm].
"""

from __future__ import annotations

import math
from typing import Any

from ..arrays import Array, as_number, like, namespace, owned, quiet
from ..errors import HypothesisError


def square(K: Array) -> Array:
    """||K||_F^2."""
    return namespace(K).sum(K * K)


def normalised_vjp(dA: Array, dB: Array, A: Array, B: Array, g: Array | None, h: Array | None) -> dict[str, Array]:
    """Gradients of all four from those of ``-A'A + B - B'`` by A and B, with the names of `params`."""
    # dA = -d<H, A'A>/dA is homogeneous of degree one in A, so <dA, A> = -2 <H, A'A>. N = ||A||_F^2, s = ||B||_F:
    #   -d(g <H, A'A>/N) = <(g/N) (dA + (2/N) <H, A'A> A), .> - <H, A'A>/N dg
    #   d(h <dB, B>/s) = <(h/s) (dB - <dB, B> B/s^2), .> + <dB, B>/s dh
    xp, grads = namespace(A), {"A": dA, "B": dB}
    if g is not None:
        N, along = square(A), -xp.sum(dA * A) / 2
        grads |= {"A": (g / N) * (dA + (2 * along / N) * A), "g": -along / N}
    if h is not None:
        s, along = square(B) ** 0.5, xp.sum(dB * B)
        grads |= {"B": (h / s) * (dB - (along / s**2) * B), "h": along / s}
    return grads


def scale_of(name: str, value: Any, like_: Array) -> Array | None:
    """The scale `name` as a 0-d array like `like_`, refused unless finite, and g unless >= 0; None stays None."""
    if value is None:
        return None
    number = as_number(value)
    if number is None or not math.isfinite(number):
        raise HypothesisError(f"{name} must be a finite scalar; got {value!r}.")
    if name == "g" and number < 0:
        raise HypothesisError(
            f"g must be >= 0 [MON-AppD.2-weightnorm]; got {number:g}. With g < 0 monotonicity is lost: n = 1, m = 1, "
            "g = -3 gives I - W = -2."
        )
    return owned(like(like_, number))


def check_normalised(A: Array, B: Array, g: Array | None, h: Array | None) -> None:
    """Refuse a zero A under g, or a zero B under h: its norm would divide."""
    for name, matrix, scale in (("A", A, g), ("B", B, h)):
        with quiet():
            squared = 0.0 if scale is None else float(square(matrix))
        if not math.isfinite(squared):
            raise HypothesisError(f"{name} must have a norm within its dtype's range, {matrix.dtype}; it overflows.")
        if 0 < squared < float(namespace(matrix).finfo(matrix.dtype).smallest_normal):
            raise HypothesisError(f"{name} must have a norm within its dtype's range, {matrix.dtype}; it underflows.")
        if scale is not None and squared == 0:
            raise HypothesisError(
                f"{name} must not be zero where its norm divides [MON-AppD.2-weightnorm]; got ||{name}||_F = 0. "
                "Leave its scale out, or set the scale to 0 with any nonzero matrix."
            )
