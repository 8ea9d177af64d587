"""Linear maps on batches: a matrix, and the transpose of any map. Both serve operators and their resolvents."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from ..arrays import Array, all_finite, eye, is_array, memoised, namespace, native
from ..errors import HypothesisError, ShapeError


@dataclasses.dataclass(frozen=True, eq=False)
class DenseMap:
    """x -> M x for every row of a batch (batch, n)."""

    matrix: Array

    def matvec(self, x: Array) -> Array:
        """M x, row by row: (batch, n) to (batch, k)."""
        return x @ self.transposed

    @functools.cached_property
    def transposed(self) -> Array:
        """M'."""
        return namespace(self.matrix).matrix_transpose(self.matrix)

    def rmatvec(self, y: Array) -> Array:
        """M' y, row by row: (batch, k) to (batch, n)."""
        return y @ self.matrix

    def to_dense(self) -> Array:
        """M."""
        return self.matrix

    @memoised
    def cayley(self) -> DenseMap:
        """2 M - I, the reflection that belongs to a resolvent M (MON eq. A5)."""
        return DenseMap(2 * self.matrix - eye(self.matrix.shape[0], self.matrix))


@dataclasses.dataclass(frozen=True, eq=False)
class Transpose:
    """The transpose of an operator, of its resolvent and of its Cayley map: factored once, used by both passes."""

    of: Any

    def matvec(self, x: Array) -> Array:
        """M' x."""
        return self.of.rmatvec(x)

    def rmatvec(self, y: Array) -> Array:
        """M y."""
        return self.of.matvec(y)

    def to_dense(self) -> Array:
        """M' as a matrix."""
        dense = self.of.to_dense()
        return namespace(dense).matrix_transpose(dense)

    def resolvent(self, alpha: float) -> Transpose:
        """(I + alpha (I - W'))^-1 = V'."""
        return Transpose(self.of.resolvent(alpha))

    def cayley(self) -> Transpose:
        """(2 V - I)'."""
        return Transpose(self.of.cayley())

    def magnitude(self) -> Transpose:
        """|W|'."""
        return Transpose(self.of.magnitude())

    def frobenius(self) -> float:
        """||W'||_F = ||W||_F."""
        return float(self.of.frobenius())


def inverse(matrix: Array, what: str) -> Array:
    """The inverse, checked once: GPU libraries return inf for a singular matrix without a word."""
    result = namespace(matrix).linalg.inv(matrix)
    if not all_finite(result):
        raise ArithmeticError(f"{what} is singular to working precision.")
    return result


def batch_of(name: str, z: Array, n: int) -> Array:
    """`z` as states (batch, n), refused by name otherwise."""
    if not is_array(z):
        raise TypeError(f"{name} must be an array; got {type(z).__name__}. Use numpy.asarray.")
    if z.ndim != 2 or z.shape[1] != n:
        hint = f" Add the batch axis: {name}[None]." if tuple(z.shape) == (n,) else ""
        raise ShapeError(f"{name} must have shape (batch, {n}); got {tuple(z.shape)}.{hint}")
    if not namespace(z).isdtype(z.dtype, "real floating"):  # W would be rounded to integers without a word
        raise HypothesisError(f"{name} must have a real floating dtype; got {z.dtype}. Convert it with astype.")
    return native(z)
