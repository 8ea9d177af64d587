r"""Into the block-triangular form: feed-forward networks, and implicit models whose graph has no cycle."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from ..activations import Activation, relu
from ..arrays import Array, alongside, checked, from_numpy, namespace, to_numpy, zeros
from ..errors import HypothesisError, ShapeError
from .model import Block, BlockTriangularModel, checked_matrices

__all__ = ["feed_forward", "from_implicit", "levels"]


def feed_forward(weights: Sequence[Array], activation: Activation = relu) -> BlockTriangularModel:
    r"""``y = W_{L+1} phi(W_L ... phi(W_1 x))`` as a block-triangular model: only A_i,i-1, B_1 and C_L are nonzero.

    "A_ij = 0 unless j = i + 1", as printed, would leave nothing of A under Assumption 3 [GREEDY-SecIII-feedforward].

    Parameters
    ----------
    weights : sequence of array
        W_1 (n_1, p), W_2 (n_2, n_1), ..., W_{L+1} (q, n_L), L >= 1.
    activation : Activation
        phi.

    Raises
    ------
    ShapeError

    Examples
    --------
    >>> import numpy as np
    >>> model = feed_forward([np.array([[1.0]]), np.array([[2.0]]), np.array([[3.0]])])
    >>> model.A, model.predict(np.array([[5.0]]))
    (array([[0., 2.],
           [0., 0.]]), array([[30.]]))
    """
    *hidden, last = _checked_layers(weights)
    p, q = hidden[0].shape[1], last.shape[0]
    widths = [W.shape[0] for W in hidden]
    blocks = [Block(zeros((widths[0], 0), last), hidden[0], zeros((q, widths[0]), last))]
    for i, W in enumerate(hidden[1:], 1):
        skipped = zeros((widths[i], sum(widths[: i - 1])), W)
        A = namespace(W).concat([W, skipped], axis=1)
        blocks.append(Block(A, zeros((widths[i], p), W), zeros((q, widths[i]), W)))
    blocks[-1] = blocks[-1]._replace(C=last)
    return BlockTriangularModel.from_blocks(blocks, activation)


def from_implicit(
    A: Array, B: Array, C: Array, activation: Activation = relu
) -> tuple[BlockTriangularModel, tuple[int, ...]]:
    r"""An implicit model without cycles, its states reordered into the fewest blocks.

    Block i holds the states whose longest chain of connections into them has i - 1 steps: such an order exists if and
    only if |A| is nilpotent, so that its Perron eigenvalue is 0.

    Parameters
    ----------
    A, B, C : array (n, n), (n, p), (q, n)
    activation : Activation

    Returns
    -------
    model : BlockTriangularModel
    order : tuple of int
        ``model.features(x)[:, k]`` is state ``order[k]`` of the given model.

    Raises
    ------
    HypothesisError
        The connections form a cycle.

    Examples
    --------
    >>> import numpy as np
    >>> A = np.array([[0.0, 0.0], [2.0, 0.0]])
    >>> model, order = from_implicit(A, np.eye(2), np.eye(2))
    >>> model.sizes, order
    ((1, 1), (1, 0))
    """
    A, B, C = checked_matrices(A, B, C, (checked("A", A, 2).shape[0],))
    level = levels(to_numpy(A))
    order = np.argsort(-level, kind="stable")
    take = from_numpy(np.eye(len(level))[order], A)  # P: z_model = P z
    back = namespace(A).matrix_transpose(take)
    sizes = tuple(int(count) for count in np.bincount(level))
    return BlockTriangularModel(take @ A @ back, take @ B, C @ back, sizes, activation), tuple(int(k) for k in order)


def levels(A: np.ndarray) -> np.ndarray:
    """For every state the steps of the longest chain of connections into it; HypothesisError on a cycle.

    Examples
    --------
    >>> import numpy as np
    >>> levels(np.array([[0, 1, 1], [0, 0, 1], [0, 0, 0]]))
    array([2, 1, 0])
    """
    linked = A != 0
    level, waiting = np.zeros(len(A), dtype=int), np.ones(len(A), dtype=bool)
    for step in range(len(A)):
        level[waiting] = step
        waiting = waiting & (linked @ waiting)
    if waiting.any():
        raise HypothesisError(
            f"the connections of A form a cycle through or into states {np.flatnonzero(waiting).tolist()}: no order of "
            "the states makes it strictly block triangular [GREEDY-Asm3]. A diagonal alone goes through "
            "remove_self_loops."
        )
    return level


def _checked_layers(weights: Sequence[Array]) -> list[Array]:
    if len(weights) < 2:
        raise ShapeError(f"weights must be W_1, ..., W_{{L+1}} with L >= 1 hidden layers; got {len(weights)} matrices.")
    first = checked("weights[0]", weights[0], 2)
    layers = [alongside(f"weights[{i}]", checked(f"weights[{i}]", W, 2), first) for i, W in enumerate(weights)]
    for i, (before, after) in enumerate(itertools.pairwise(layers)):
        if after.shape[1] != before.shape[0]:
            raise ShapeError(
                f"weights[{i + 1}] must have {before.shape[0]} columns, one a row of weights[{i}]; got "
                f"shape {tuple(after.shape)}."
            )
    return layers
