"""The affine layer: input injection U x + b and readout W_o z + b_o."""

from __future__ import annotations

from ..arrays import Array, is_array, namespace
from ..errors import ShapeError

__all__ = ["affine", "affine_vjp", "affine_vjp_params"]


def affine(x: Array, U: Array, b: Array | None = None) -> Array:
    """U x + b for every row: (batch, d), (n, d), (n,) to (batch, n); b = 0 if left out.

    Examples
    --------
    >>> import numpy as np
    >>> affine(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]), np.array([5.0]))
    array([[16.]])
    """
    if not is_array(x):
        raise TypeError(f"x must be an array; got {type(x).__name__}. Use numpy.asarray.")
    if x.ndim != 2 or U.ndim != 2 or x.shape[1] != U.shape[1] or (b is not None and tuple(b.shape) != (U.shape[0],)):
        shapes = ", ".join(str(tuple(array.shape)) for array in (x, U, b) if array is not None)
        raise ShapeError(f"x, U, b must have shapes (batch, d), (n, d), (n,); got {shapes}.")
    y = x @ namespace(x).matrix_transpose(U)
    return y if b is None else y + b


def affine_vjp(x: Array, U: Array, dy: Array) -> tuple[Array, Array, Array]:
    """Gradients of ``sum_batch <dy, U x + b>`` with respect to x, U, b."""
    # <dy, U x + b> = <U' dy, x> = <dy x', U> = <dy, b>
    return dy @ U, *affine_vjp_params(x, dy)


def affine_vjp_params(x: Array, dy: Array) -> tuple[Array, Array]:
    """The last two only, with respect to U and b: a first layer needs no gradient of its input."""
    xp = namespace(x)
    return xp.matrix_transpose(dy) @ x, xp.sum(dy, axis=0)
