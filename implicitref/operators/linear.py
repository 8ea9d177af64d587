"""Linear maps on batches: a matrix, and the transpose of any map. Both serve operators and their resolvents."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..arrays import Array, all_finite, eye, is_array, memoised, namespace, native, quiet, real_dtypes
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
        M_t = namespace(self.matrix).matrix_transpose(self.matrix)
        return np.ascontiguousarray(M_t) if type(M_t) is np.ndarray else M_t  # copied once for many quicker products

    def rmatvec(self, y: Array) -> Array:
        """M' y, row by row: (batch, k) to (batch, n)."""
        return y @ self.matrix

    def to_dense(self) -> Array:
        """M."""
        return self.matrix

    def about(self, shift: Array) -> Callable[[Array], Array]:
        """u -> M (u + shift) + shift."""
        return about(self, shift)

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

    @property
    def m(self) -> float:
        """I - W' >= m I with the operator's m."""
        return float(self.of.m)

    @property
    def params(self) -> dict[str, Any]:
        """The operator's."""
        params: dict[str, Any] = self.of.params
        return params

    @property
    def state_shape(self) -> tuple[int, ...]:
        """As the operator's."""
        shape: tuple[int, ...] = self.of.state_shape
        return shape

    @property
    def spectral_shape(self) -> tuple[int, int]:
        """As the operator's."""
        shape: tuple[int, int] = self.of.spectral_shape
        return shape

    def spectral_blocks(self) -> Array:
        """The adjoint blocks."""
        blocks = namespace(self.of.spectral_blocks()).matrix_transpose(self.of.spectral_blocks())
        xp = namespace(blocks)
        return xp.conj(blocks) if xp.isdtype(blocks.dtype, "complex floating") else blocks

    def lipschitz(self) -> float:
        """||I - W'||_2 = ||I - W||_2."""
        return float(self.of.lipschitz())

    def resolvent(self, alpha: float) -> Transpose:
        """(I + alpha (I - W'))^-1 = V'."""
        return Transpose(self.of.resolvent(alpha))

    def about(self, shift: Array) -> Callable[[Array], Array]:
        """u -> M' (u + shift) + shift."""
        return about(self, shift)

    def cayley(self) -> Transpose:
        """(2 V - I)'."""
        return Transpose(self.of.cayley())

    def magnitude(self) -> Transpose:
        """|W|'."""
        return Transpose(self.of.magnitude())

    def frobenius(self) -> float:
        """||W'||_F = ||W||_F."""
        return float(self.of.frobenius())


def about(map_: Any, shift: Array) -> Callable[[Array], Array]:
    """u -> M (u + shift) + shift; as M u plus its value at 0 once that is known, which is where most solves begin."""
    added, known = shift, type(shift) is not np.ndarray
    if known:  # to ask elsewhere whether u is 0 would wait for the device
        added = map_.matvec(shift) + shift

    def moved(u: Array) -> Array:
        nonlocal added, known
        if not known and _zero(u):
            result = map_.matvec(added)
            result += added  # a fresh array, nobody else holds it
            added, known = result, True
            return result.copy(order="K")
        result = map_.matvec(u if known else u + added)
        result += added
        return result

    return moved


def _zero(u: np.ndarray) -> bool:
    return u.size > 0 and not u.flat[u.size // 2] and not u.any()  # one entry tells nearly always


def inverse(matrix: Array, what: str) -> Array:
    """The inverse, or a HypothesisError: libraries raise errors of their own for a singular matrix, or return inf."""
    refused = HypothesisError(f"{what} is singular, or beyond the range, in {matrix.dtype}: W or alpha is too large.")
    try:
        with quiet():
            result = namespace(matrix).linalg.inv(matrix)
    except (ArithmeticError, RuntimeError, ValueError) as error:
        raise refused from error
    if not (all_finite(matrix) and all_finite(result)):  # the inverse of an infinite number is 0
        raise refused
    return result


def batch_of(name: str, z: Array, shape: tuple[int, ...]) -> Array:
    """`z` as states (batch, *shape), refused by name otherwise."""
    if not is_array(z):
        raise TypeError(f"{name} must be an array; got {type(z).__name__}. Use numpy.asarray.")
    if tuple(z.shape[1:]) != shape or z.ndim != len(shape) + 1:
        hint = f" Add the batch axis: {name}[None]." if tuple(z.shape) == shape else ""
        wanted = ", ".join(map(str, shape))
        raise ShapeError(f"{name} must have shape (batch, {wanted}); got {tuple(z.shape)}.{hint}")
    z = native(z)
    if z.dtype not in real_dtypes(z):
        # W would be rounded to integers, or to three digits, without a word
        raise HypothesisError(f"{name} must be float32 or float64; got dtype {z.dtype}. Convert it with astype.")
    return z


def replaced(operator: Any, params: dict[str, Any]) -> Any:
    """The operator, a dataclass, with other fields; TypeError for a name that is none of them."""
    known = [field.name for field in dataclasses.fields(operator)]
    unknown = sorted(set(params) - set(known))
    if unknown:
        raise TypeError(f"{type(operator).__name__} has no parameter {', '.join(unknown)}; it has {', '.join(known)}.")
    return dataclasses.replace(operator, **params)


def pair_of(z: Array, dy: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """`z` and `dy` as states of one batch."""
    z, dy = batch_of("z", z, shape), batch_of("dy", dy, shape)
    if z.shape != dy.shape:
        raise ShapeError(f"dy must have the shape of z, {tuple(z.shape)}; got {tuple(dy.shape)}.")
    return z, dy
