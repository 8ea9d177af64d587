r"""How many numbers a model is made of, and how many connections it has; the paper's counts, corrected."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from ..arrays import total_norm
from ..errors import HypothesisError
from .model import BlockTriangularModel, checked_sizes

__all__ = ["Connection", "Count", "connections", "dense", "feed_forward_count", "layered", "strict", "surplus"]


class Count(NamedTuple):
    """Entries of A, B and C that may be nonzero."""

    A: int
    B: int
    C: int

    @property
    def total(self) -> int:
        """A + B + C, what the paper calls capacity."""
        return sum(self)


def dense(order: int, p: int, q: int) -> Count:
    """An implicit model without structure, D = 0: n^2, n p, q n [GREEDY-SecV-capacity].

    Examples
    --------
    >>> dense(30, 1, 1).total, dense(32, 784, 10).total
    (960, 26432)
    """
    return Count(order * order, order * p, q * order)


def strict(sizes: Sequence[int], p: int, q: int) -> Count:
    """A strictly block triangular model: sum_{j < i} n_i n_j, n p, q n [GREEDY-SecV-capacity].

    Examples
    --------
    >>> strict((2,) * 16, 784, 10).total
    25888
    """
    sizes = checked_sizes(sizes)
    return Count(sum(a * b for a, b in itertools.combinations(sizes, 2)), sum(sizes) * p, q * sum(sizes))


def feed_forward_count(sizes: Sequence[int], p: int, q: int) -> Count:
    """A feed-forward network of the same widths: sum_i n_i n_{i-1}, n_1 p, q n_L [GREEDY-SecIII-feedforward]."""
    sizes = checked_sizes(sizes)
    return Count(sum(a * b for a, b in itertools.pairwise(sizes)), sizes[0] * p, q * sizes[-1])


def surplus(sizes: Sequence[int], p: int, q: int) -> Count:
    r"""What the strict model has beyond the feed-forward one, for sizes (n_1, ..., n_1, n_L) [GREEDY-SecIII-count].

    (L - 2) n_1 n_L + (L - 2)(L - 3) n_1^2 / 2 in A, as printed, and p (n - n_1) + q (n - n_L) in B and C, which
    "precisely" leaves out.

    Examples
    --------
    >>> surplus((2, 2, 2), 1, 1), surplus((2, 2, 2), 1, 1).total
    (Count(A=4, B=4, C=4), 12)
    """
    sizes = checked_sizes(sizes)
    first, last, L, n = sizes[0], sizes[-1], len(sizes), sum(sizes)
    if set(sizes[:-1]) - {first}:
        raise HypothesisError(f"the count needs n_1 = ... = n_{{L-1}} [GREEDY-SecIII-count]; got sizes {sizes}.")
    return Count((L - 2) * first * last + (L - 2) * (L - 3) * first**2 // 2, p * (n - first), q * (n - last))


def layered(widths: Sequence[int], *, biases: bool = False, readout: bool = True) -> int:
    """Weights of a feed-forward network (width of the input, of every hidden layer, of the output).

    The paper's 1,900 leaves out the readout of 1-25-25-25-25-1, its 52,896 counts it [GREEDY-SecV-capacity].

    Examples
    --------
    >>> net = (1, 25, 25, 25, 25, 1)
    >>> layered(net), layered(net, biases=True), layered(net, readout=False), layered((784, 64, 32, 16, 10))
    (1925, 2026, 1900, 52896)
    """
    kept = list(widths) if readout else list(widths)[:-1]
    return sum(a * b for a, b in itertools.pairwise(kept)) + biases * sum(kept[1:])


class Connection(NamedTuple):
    """An edge of the graph: from `source` to `target`, 0 the input, 1 to L the blocks, L + 1 the output."""

    source: int
    target: int
    strength: float


def connections(model: BlockTriangularModel) -> list[Connection]:
    """The generalised DenseNet: an edge, with the Frobenius norm of its matrix, for every nonzero B_i, A_ij, C_i.

    L (L + 1)/2 join the input and the blocks in pairs, and L more lead to the output [GREEDY-SecIII-connections].

    Examples
    --------
    >>> import numpy as np
    >>> A = np.array([[0.0, 2.0], [0.0, 0.0]])
    >>> model = BlockTriangularModel(A, np.ones((2, 1)), np.array([[1.0, 0.0]]), (1, 1))
    >>> [(c.source, c.target) for c in connections(model)]
    [(0, 1), (0, 2), (1, 2), (2, 3)]
    """
    L, found = len(model.sizes), []
    for i, block in enumerate(model.blocks, 1):
        found.append((0, i, block.B))
        found += [(j, i, model.block(i, j)) for j in range(1, i)]
    found += [(i, L + 1, block.C) for i, block in enumerate(model.blocks, 1)]
    weighed = [Connection(source, target, total_norm(matrix)) for source, target, matrix in found]
    return [edge for edge in weighed if edge.strength > 0]
