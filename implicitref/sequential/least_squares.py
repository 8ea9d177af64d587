r"""The least squares problem (11), solved exactly whatever the rank of the features."""

from __future__ import annotations

import math

from ..arrays import Array, alongside, checked, eps, in_double, like, namespace, nonnegative
from ..errors import ShapeError

__all__ = ["least_squares", "normal_residual"]


def least_squares(z: Array, y: Array, ridge: float = 0.0) -> Array:
    r"""C of least norm that minimises ``||y - z C'||_F^2 + ridge ||C||_F^2`` [GREEDY-Eq11].

    Through the singular values, of which those below ``max(m, n) eps`` times the largest count as zero: features that
    repeat, vanish or depend on each other are no special case. Costs O(m n^2 + n^3), not the O(n^3) of the paper.

    Parameters
    ----------
    z : array (m, n)
    y : array (m, q)
    ridge : float, >= 0

    Returns
    -------
    array (q, n)

    Raises
    ------
    ShapeError, HypothesisError

    Examples
    --------
    >>> import numpy as np
    >>> z = np.array([[1.0, 1.0], [2.0, 2.0]])                         # rank 1
    >>> least_squares(z, np.array([[2.0], [4.0]])).round(12)
    array([[1., 1.]])
    """
    z = checked("z", z, 2)
    y = alongside("y", checked("y", y, 2), z)
    if y.shape[0] != z.shape[0]:
        raise ShapeError(f"y must have a row for each of the {z.shape[0]} rows of z; got shape {tuple(y.shape)}.")
    return like(z, _solved(in_double(z), in_double(y), nonnegative("ridge", ridge)))


def _solved(z: Array, y: Array, ridge: float) -> Array:
    # z = P S Q': C' = Q (S^2 + ridge)^-1 S P' y, with 0 for 1/0
    xp = namespace(z)
    if not math.prod(z.shape):
        return xp.zeros_like(xp.matrix_transpose(y) @ z)
    P, s, Qt = xp.linalg.svd(z, full_matrices=False)
    kept = s > max(z.shape) * eps(z) * s[0]
    factor = xp.where(kept, s, xp.zeros_like(s)) / xp.where(kept, s * s + ridge, xp.ones_like(s))
    return (xp.matrix_transpose(y) @ P * factor) @ Qt


def normal_residual(z: Array, y: Array, C: Array, ridge: float = 0.0) -> float:
    r"""``||z'(z C' - y) + ridge C'||_F`` over ``||z||_F (||z||_F ||C||_F + ||y||_F)``: 0 at a minimum.

    Examples
    --------
    >>> import numpy as np
    >>> z, y = np.array([[1.0], [1.0]]), np.array([[1.0], [3.0]])
    >>> normal_residual(z, y, np.array([[2.0]])), normal_residual(z, y, np.array([[1.0]])) > 0.1
    (0.0, True)
    """
    xp = namespace(z)
    size, Ct = xp.linalg.vector_norm, xp.matrix_transpose(C)
    scale = size(z) * (size(z) * size(C) + size(y))
    residual = size(xp.matrix_transpose(z) @ (z @ Ct - y) + ridge * Ct)
    return float(residual / scale) if float(scale) > 0 else 0.0
