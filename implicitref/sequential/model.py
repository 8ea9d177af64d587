r"""Strictly block upper triangular implicit models: features by substitution, their gradient, blocks in and out.

Everything that has one row or column a state is in the order of the paper, **last block first**:

    z = [z_L, ..., z_1],   A = [[0, A_L,L-1, ..., A_L1], ..., [0, ..., 0, A_21], [0, ..., 0]],   C = [C_L, ..., C_1],

so that ``z = phi(A z + B x)`` and ``y = C z`` are read off the arrays as they stand. ``sizes = (n_1, ..., n_L)`` and
lists of blocks are in the order of computation, block 1 first.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import operator
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..activations import Activation, relu
from ..arrays import Array, alongside, checked, from_numpy, memoised, namespace, owned, zeros
from ..errors import HypothesisError, ShapeError

__all__ = ["Block", "BlockTriangularModel", "Record", "partition"]


def partition(order: int, n_blocks: int) -> tuple[int, ...]:
    """Sizes ``n_1 = ... = n_{L-1} = floor(n/L)`` and the rest for block L [GREEDY-Alg1].

    Raises
    ------
    HypothesisError
        Unless 2 <= n_blocks <= order.

    Examples
    --------
    >>> partition(11, 3)
    (3, 3, 5)
    """
    order, n_blocks = _integer("order", order), _integer("n_blocks", n_blocks)
    if not 2 <= n_blocks <= order:
        raise HypothesisError(
            f"a partition needs 2 <= n_blocks <= order, every block at least one state [GREEDY-Alg1]; got "
            f"n_blocks = {n_blocks}, order = {order}."
        )
    size = order // n_blocks
    return (size,) * (n_blocks - 1) + (order - size * (n_blocks - 1),)


class Block(NamedTuple):
    """One block of a model: ``z_i = phi(A [z_{i-1}, ..., z_1] + B x)``, which adds ``C z_i`` to the output.

    A is (n_i, n_{i-1} + ... + n_1), the columns last block first, with no column in block 1; B (n_i, p); C (q, n_i).
    """

    A: Array
    B: Array
    C: Array


class Record(NamedTuple):
    """What training one block did, or `refine` with all of them (block 0).

    Losses are (8) or (9) over the number of samples; `dead` units are off on every sample.
    """

    block: int
    before: float
    loss: float
    dead: int
    seconds: float


@dataclasses.dataclass(frozen=True, eq=False)
class BlockTriangularModel:
    r"""``z = phi(A z + B x)``, ``y = C z`` with A strictly block upper triangular [GREEDY-Asm3, GREEDY-Asm2].

    Rows of A and B and columns of A, C and of features run over block L first, block 1 last, as in the paper.

    Parameters
    ----------
    A, B, C : array (n, n), (n, p), (q, n)
    sizes : sequence of int
        (n_1, ..., n_L), block 1 (computed first, the last rows of A) first.
    activation : Activation
        Elementwise and nonexpansive [GREEDY-Asm1], as all of ``implicitref.activations`` are.
    history : tuple
        What training recorded, one entry a block.

    Examples
    --------
    >>> import numpy as np
    >>> A, B = np.array([[0.0, 2.0], [0.0, 0.0]]), np.array([[0.0], [1.0]])
    >>> model = BlockTriangularModel(A, B, np.array([[1.0, 10.0]]), (1, 1))
    >>> model.features(np.array([[3.0]])), model.predict(np.array([[3.0]]))
    (array([[6., 3.]]), array([[36.]]))
    """

    A: Array
    B: Array
    C: Array
    sizes: tuple[int, ...]
    activation: Activation = relu
    history: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        sizes = checked_sizes(self.sizes)
        A, B, C = checked_matrices(self.A, self.B, self.C, sizes)
        _check_strict(A, sizes)
        check_activation(self.activation)
        for name, value in {"A": owned(A), "B": owned(B), "C": owned(C), "sizes": sizes}.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_blocks(cls, blocks: Iterable[Block], activation: Activation = relu) -> BlockTriangularModel:
        """The model made of blocks 1, 2, ..., each fed by all before it."""
        given = list(blocks)
        if not given:
            raise HypothesisError("a model needs at least one block; got none.")
        first, *others = given
        n = checked("blocks[0].B", first.B, 2).shape[0]
        if tuple(first.A.shape) != (n, 0):
            raise ShapeError(f"blocks[0].A must have shape {(n, 0)}, no block is before; got {tuple(first.A.shape)}.")
        model = cls(zeros((n, n), first.B), first.B, first.C, (n,), activation)
        return functools.reduce(cls.append, others, model)

    def append(self, block: Block) -> BlockTriangularModel:
        """The model with one block more, computed last: its rows and columns come first [GREEDY-Alg1]."""
        n, p, q, xp = self.A.shape[0], self.B.shape[1], self.C.shape[0], namespace(self.A)
        A, B, C = (
            alongside(f"block.{name}", checked(f"block.{name}", value, 2), self.A)
            for name, value in block._asdict().items()
        )
        if (A.shape[1], tuple(B.shape), tuple(C.shape)) != (n, (A.shape[0], p), (q, A.shape[0])):
            raise ShapeError(
                f"block.A must have {n} columns, block.B {p}, and as many rows k, block.C shape ({q}, k); got "
                f"{tuple(A.shape)}, {tuple(B.shape)}, {tuple(C.shape)}."
            )
        rows = xp.concat([zeros((A.shape[0],) * 2, A), A], axis=1)
        old = xp.concat([zeros((n, A.shape[0]), A), self.A], axis=1)
        parts = {"A": xp.concat([rows, old]), "B": xp.concat([B, self.B]), "C": xp.concat([C, self.C], axis=1)}
        return dataclasses.replace(self, **parts, sizes=(*self.sizes, A.shape[0]))

    @property
    def slices(self) -> tuple[slice, ...]:
        """Where block 1, ..., block L lie among the n states."""
        return block_slices(self.sizes)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Block 1, ..., block L, as views."""
        return tuple(Block(self.A[s, s.stop :], self.B[s, :], self.C[:, s]) for s in self.slices)

    def block(self, i: int, j: int) -> Array:
        """A_ij, what block i takes from block j: a view, (n_i, n_j), 1 <= i, j <= L as in the paper."""
        rows, columns = (self.slices[_index(k, len(self.sizes))] for k in (i, j))
        return self.A[rows, columns]

    def split(self, z: Array) -> tuple[Array, ...]:
        """[z_1, ..., z_L], views of the features (batch, n)."""
        return tuple(z[:, s] for s in self.slices)

    @property
    def params(self) -> dict[str, Array]:
        """A, B, C by name."""
        return {"A": self.A, "B": self.B, "C": self.C}

    def features(self, x: Array) -> Array:
        """z = phi(A z + B x) by substitution, block after block: (batch, p) to (batch, n) [GREEDY-Eq5]."""
        x = self._checked_input(x)
        xp = namespace(x)
        # in columns, as in the paper: a block is then a few whole rows
        injection, z = self.B @ xp.matrix_transpose(x), zeros((0, x.shape[0]), x)
        for s in self.slices:
            z = xp.concat([self.activation(self.A[s, s.stop :] @ z + injection[s, :]), z], axis=0)
        return xp.matrix_transpose(z)

    # p = A z + B x, z = phi(p), J = diag phi'(p), so with dp = J (dz + A' dp), from block L down:
    # d<dz, z> = <dp, dA z + dB x + B dx>, and dA is wanted inside the triangle only.

    def features_vjp(self, x: Array, z: Array, dz: Array) -> dict[str, Array]:
        """Gradient of ``sum_batch <dz, features(x)>`` for A, B and x, at z = features(x), all (batch, .)."""
        xp = namespace(x)
        jac, dz = (xp.matrix_transpose(rows) for rows in (self.activation.derivative(self.pre(x, z)), dz))
        pieces = []
        for s in reversed(self.slices):
            piece = jac[s, :] * dz[: s.stop - s.start, :]
            dz = dz[s.stop - s.start :, :] + xp.matrix_transpose(self.A[s, s.stop :]) @ piece
            pieces.append(piece)
        dpre = xp.concat(pieces, axis=0)
        return {"A": (dpre @ z) * self.mask(), "B": dpre @ x, "x": xp.matrix_transpose(dpre) @ self.B}

    def predict(self, x: Array) -> Array:
        """y = C z: (batch, p) to (batch, q) [GREEDY-Eq2, GREEDY-Asm2]."""
        z = self.features(x)
        return z @ namespace(z).matrix_transpose(self.C)

    def predict_vjp(self, x: Array, z: Array, dy: Array) -> dict[str, Array]:
        """Gradient of ``sum_batch <dy, predict(x)>`` for A, B, C and x, at z = features(x)."""
        # <dy, C z> = <dy z', C> = <C' dy, z>
        return {"C": namespace(dy).matrix_transpose(dy) @ z, **self.features_vjp(x, z, dy @ self.C)}

    def pre(self, x: Array, z: Array) -> Array:
        """A z + B x."""
        xp = namespace(x)
        return z @ xp.matrix_transpose(self.A) + x @ xp.matrix_transpose(self.B)

    def defect(self, x: Array, z: Array) -> Array:
        """``max_k |z - phi(A z + B x)|_k`` of every sample: 0 at the features, up to rounding [GREEDY-Eq3]."""
        xp = namespace(z)
        return xp.max(xp.abs(z - self.activation(self.pre(x, z))), axis=1)

    @memoised
    def mask(self) -> Array:
        """1 where A may be nonzero, 0 elsewhere [GREEDY-Asm3]."""
        return strict_mask(self.sizes, self.A)

    def _checked_input(self, x: Array) -> Array:
        x = alongside("x", checked("x", x, 2), self.A)
        if x.shape[1] != self.B.shape[1]:
            raise ShapeError(f"x must have {self.B.shape[1]} columns, as B has; got shape {tuple(x.shape)}.")
        return x


# ------------------------------------------------------------------------------------------------
# the partition, and what is refused


def block_slices(sizes: Sequence[int]) -> tuple[slice, ...]:
    """Where blocks 1, ..., L lie when block L comes first.

    Examples
    --------
    >>> block_slices((2, 3))
    (slice(3, 5, None), slice(0, 3, None))
    """
    stops = list(itertools.accumulate(reversed(sizes)))[::-1]
    return tuple(slice(stop - size, stop) for size, stop in zip(sizes, stops, strict=True))


def strict_mask(sizes: Sequence[int], like_: Array) -> Array:
    """1 at A_ij with i > j, 0 elsewhere, with the library, device and dtype of `like_`."""
    place = np.repeat(np.arange(len(sizes)), list(reversed(sizes)))
    return from_numpy((place[:, None] < place[None, :]).astype(np.float64), like_)


def checked_sizes(sizes: Any) -> tuple[int, ...]:
    """`sizes` as a tuple of integers >= 1."""
    try:
        found = tuple(_integer("sizes", size) for size in sizes)
    except TypeError:
        raise HypothesisError(f"sizes must be a sequence of integers (n_1, ..., n_L); got {sizes!r}.") from None
    if not found or min(found) < 1:
        raise HypothesisError(f"sizes must be (n_1, ..., n_L), each at least 1; got {found}.")
    return found


def checked_matrices(A: Any, B: Any, C: Any, sizes: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """A, B, C with shapes (n, n), (n, p), (q, n), n = sum(sizes), finite, in one library."""
    A = checked("A", A, 2)
    B, C = (alongside(name, checked(name, value, 2), A) for name, value in (("B", B), ("C", C)))
    n = sum(sizes)
    if tuple(A.shape) != (n, n) or B.shape[0] != n or C.shape[1] != n:
        shapes = ", ".join(str(tuple(array.shape)) for array in (A, B, C))
        raise ShapeError(f"A, B, C must have shapes (n, n), (n, p), (q, n), n = {n} = sum(sizes); got {shapes}.")
    return A, B, C


def check_activation(activation: Any) -> None:
    """HypothesisError unless it is one of ours, all of which are nonexpansive [GREEDY-Asm1]."""
    if not isinstance(activation, Activation):
        raise HypothesisError(f"activation must be one of implicitref.activations; got {activation!r}.")


def _check_strict(A: Array, sizes: tuple[int, ...]) -> None:
    outside = A * (1 - strict_mask(sizes, A))
    xp = namespace(A)
    if bool(xp.any(outside != 0)):
        raise HypothesisError(
            "A must be strictly block upper triangular, A_ij = 0 for i <= j, with block L = the last of sizes in its "
            f"first rows [GREEDY-Asm3]; got |A_ij| = {float(xp.max(xp.abs(outside))):.3g} outside. "
            "Self-loops go through remove_self_loops; a block lower triangular A has its blocks in the reverse order."
        )


def _index(k: int, count: int) -> int:
    if not 1 <= _integer("block", k) <= count:
        raise HypothesisError(f"blocks are numbered 1 to {count}; got {k}.")
    return k - 1


def _integer(name: str, value: Any) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise HypothesisError(f"{name} must be an integer; got {value!r}.") from None
