r"""Sequential greedy training of implicit models (GREEDY): block-triangular models, Algorithms 1 and 2, Theorems 2, 3.

=====================  ==================  ==========================================================
GREEDY                 here
=====================  ==================  ==========================================================
U (p, m), u            x                   the data, (batch, p): a row a sample
X (n, m), x            z                   the features, (batch, n), last block first as in the paper
Y, Y-hat (q, m)        y                   targets, predictions, (batch, q)
A, B, C                A, B, C             the same matrices
n, L, n_i              order, n_blocks,    units, blocks, units of each block
                       sizes
gamma, lambda          gamma, lam          the coefficients of Theorems 2 and 3
=====================  ==================  ==========================================================
"""

from . import counts, non_strict
from .conversions import feed_forward, from_implicit
from .least_squares import least_squares, normal_residual
from .model import Block, BlockTriangularModel, Record, partition
from .non_strict import fit_non_strict, greedy_non_strict
from .problem import Problem, Solved, value, value_and_gradients
from .refinement import refine
from .solvers import adam, alternating, alternation, lbfgs, variable_projection
from .theorems import SelfLoopModel, add_self_loops, remove_self_loops, remove_self_loops_vjp, with_self_loops
from .training import augment, fit, greedy, memory

__all__ = [
    "Block",
    "BlockTriangularModel",
    "Problem",
    "Record",
    "SelfLoopModel",
    "Solved",
    "adam",
    "add_self_loops",
    "alternating",
    "alternation",
    "augment",
    "convex",
    "counts",
    "feed_forward",
    "fit",
    "fit_non_strict",
    "from_implicit",
    "greedy",
    "greedy_non_strict",
    "lbfgs",
    "least_squares",
    "memory",
    "non_strict",
    "normal_residual",
    "partition",
    "refine",
    "remove_self_loops",
    "remove_self_loops_vjp",
    "value",
    "value_and_gradients",
    "variable_projection",
    "with_self_loops",
]
