r"""Sequential greedy training of implicit models (GREEDY): block-triangular models, Algorithms 1 and 2, Theorems 2, 3.

=====================  ==================  ==========================================================
GREEDY                 here
=====================  ==================  ==========================================================
U (p, m), u            x                   the data, (batch, p): a row a sample
X (n, m), x            z                   the features, (batch, n), last block first as in the paper
Y, Y-hat (q, m)        y                   targets, predictions, (batch, q)
A, B, C                A, B, C             the same matrices
n, L, n_i              order, n_blocks, sizes
gamma, lambda          gamma, lam          the coefficients of Theorems 2 and 3
=====================  ==================  ==========================================================
"""

from . import counts
from .conversions import feed_forward, from_implicit
from .model import Block, BlockTriangularModel, partition
from .theorems import SelfLoopModel, add_self_loops, remove_self_loops, remove_self_loops_vjp, with_self_loops

__all__ = [
    "Block",
    "BlockTriangularModel",
    "SelfLoopModel",
    "add_self_loops",
    "counts",
    "feed_forward",
    "from_implicit",
    "partition",
    "remove_self_loops",
    "remove_self_loops_vjp",
    "with_self_loops",
]
