r"""Well-posedness of ``x = phi(A x + b)``: when there is one x for every b, how to find it, how far from it one is.

GREEDY section II. Its letters: x is the state, b = B u the injection, phi the activation; states are rows (batch, n)
here, columns there. One theorem does both passes: the adjoint equation ``q = J (A' q + g)`` is again of the form
``x = phi(A x + b)``, with A transposed and phi(v) = J v (`Slopes`).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse.csgraph

from .activations import Activation, ZeroBorder
from .arrays import (
    Array,
    all_finite,
    alongside,
    checked,
    count,
    eps,
    eye,
    in_double,
    is_array,
    largest,
    like,
    namespace,
    positive,
    quiet,
    to_numpy,
    zeros,
)
from .errors import ConvergenceError, HypothesisError, ShapeError

__all__ = [
    "Slopes",
    "Solution",
    "adjoint_bound",
    "bound",
    "collatz_wielandt",
    "cone_ratio",
    "is_cone",
    "is_p_matrix",
    "norm_inf",
    "perron",
    "perron_interval",
    "picard",
    "project",
    "project_by_bisection",
    "relu_well_posed",
    "solve",
]

LARGEST_P = 20  # a P-matrix test doubles its work with every row: 2^20 pivots take seconds
NODA_STEPS, HALVINGS = 60, 70
SMALLEST = 1e-100  # share of the largest entry to which smaller ones of a positive vector are raised


# ------------------------------------------------------------------------------------------------
# CONE maps


@dataclasses.dataclass(frozen=True, eq=False)
class Slopes:
    r"""The map ``v -> J v`` with a diagonal J in [-1, 1] for every sample: the CONE map of the adjoint equation.

    Examples
    --------
    >>> import numpy as np
    >>> Slopes(np.array([[1.0, 0.0]]))(np.array([[3.0, 4.0]]))
    array([[3., 0.]])
    """

    jac: Array

    def __post_init__(self) -> None:
        if largest(namespace(self.jac).abs(checked("jac", self.jac))) > 1:
            raise HypothesisError("jac must lie in [-1, 1]: a CONE map has no larger slope [GREEDY-Def2].")

    def __call__(self, v: Array) -> Array:
        """J v."""
        return self.jac * v


def is_cone(phi: Any) -> bool:
    r"""Whether phi is known to be a CONE map, ``|phi_i(x) - phi_i(y)| <= |x_i - y_i|`` [GREEDY-Def2].

    Every record of `implicitref.activations` is one: ``sigma = prox^1_f`` entry by entry, and a prox is nonexpansive.
    Of any other callable nothing is known; `cone_ratio` can refute it.

    Examples
    --------
    >>> from implicitref import activations
    >>> is_cone(activations.tanh), is_cone(abs)
    (True, False)
    """
    return isinstance(phi, (Activation, ZeroBorder, Slopes))


def cone_ratio(phi: Callable[[Array], Array], x: Array, y: Array) -> float:
    r"""The largest ``|phi_i(x) - phi_i(y)|/|x_i - y_i|`` of the pairs, rounding taken off: > 1 refutes [GREEDY-Def2].

    Infinite where phi_i changes though x_i does not: phi_i must not look at other entries.

    Parameters
    ----------
    phi : callable, (batch, n) to (batch, n)
    x, y : array (batch, n)

    Examples
    --------
    >>> import numpy as np
    >>> cone_ratio(np.square, np.array([[1.0, 3.0]]), np.array([[0.0, 2.0]])) > 4.99
    True
    """
    x, y = checked("x", x, 2), checked("y", y, 2)
    _same_shape("y", y, x)
    xp, at_x, at_y = namespace(x, y), phi(x), phi(y)
    change = xp.abs(at_x - at_y) - 4 * eps(x) * (xp.abs(at_x) + xp.abs(at_y))
    moved = xp.abs(x - y)
    ratio = xp.where(moved > 0, change / xp.where(moved > 0, moved, xp.ones_like(moved)), _infinite(change > 0, change))
    return max(0.0, largest(ratio))


def _infinite(where: Array, x: Array) -> Array:
    xp = namespace(x)
    return xp.where(where, xp.full_like(x, math.inf), xp.zeros_like(x))


# ------------------------------------------------------------------------------------------------
# the Perron eigenvalue and the infinity norm


def norm_inf(A: Array) -> float:
    r"""``||A||_inf``, the largest row sum of |A|: ``perron(A) <= norm_inf(A)`` [GREEDY-SecII-norm].

    The paper prints <, which fails for A = [[a]] and for A = 0.

    Examples
    --------
    >>> import numpy as np
    >>> norm_inf(np.array([[0.0, -4.0], [0.0, 0.0]]))
    4.0
    """
    A = _square("A", A)
    return largest(namespace(A).sum(namespace(A).abs(A), axis=1))


def perron(A: Array) -> float:
    r"""The Perron eigenvalue of |A|, its spectral radius [GREEDY-SecI-perron]: the upper end of `perron_interval`.

    It lies above the exact value by rounding at most, so that ``perron(A) < 1`` proves that A is well-posed for every
    CONE map [GREEDY-Thm1]. It is *at least* the modulus of every eigenvalue of |A|; the paper says larger, which
    fails for [[0, 1], [1, 0]].

    Raises
    ------
    TypeError, ShapeError, HypothesisError

    Examples
    --------
    >>> import numpy as np
    >>> perron(np.array([[-0.5, 9.0], [0.0, 0.25]])), perron(np.array([[0.0, 7.0], [0.0, 0.0]]))
    (0.5, 0.0)
    """
    return perron_interval(A)[1]


def perron_interval(A: Array) -> tuple[float, float]:
    r"""Two numbers with the Perron eigenvalue of |A| between them, proven up to the last rounding.

    The largest over the strongly connected components of the graph of A: a component of one entry is its own
    eigenvalue, of a larger one the Collatz-Wielandt quotients of its Perron vector enclose it.

    Examples
    --------
    >>> import numpy as np
    >>> low, high = perron_interval(np.array([[0.0, 4.0], [1.0, 0.0]]))
    >>> low <= 2 <= high <= low + 1e-14
    True
    """
    M = np.abs(to_numpy(_square("A", A)).astype(np.float64))
    lows, highs = zip(*(_enclosure(block) for block in _irreducible_blocks(M)), strict=True)
    return max(lows), max(highs)


def collatz_wielandt(M: np.ndarray, v: np.ndarray) -> tuple[float, float]:
    r"""``min_i (M v)_i/v_i <= rho(M) <= max_i (M v)_i/v_i`` for M >= 0, v > 0; rounding is on the safe side.

    The right inequality with v = 1 is ``rho(|A|) <= ||A||_inf`` [GREEDY-SecII-norm].

    Examples
    --------
    >>> import numpy as np
    >>> low, high = collatz_wielandt(np.array([[1.0, 2.0], [2.0, 1.0]]), np.ones(2))
    >>> round(low, 12), round(high, 12)
    (3.0, 3.0)
    """
    # k products and k sums of numbers >= 0 are off by (k + 2) units of the last digit; some may underflow
    ratio, k = M @ v / v, len(v)
    rounding, underflow = (k + 2) * eps(v), 2 * k * float(np.finfo(v.dtype).smallest_subnormal) / float(v.min())
    return float(ratio.min()) * (1 - rounding) - underflow, float(ratio.max()) * (1 + rounding) + underflow


def _enclosure(M: np.ndarray) -> tuple[float, float]:
    if len(M) == 1:
        return float(M[0, 0]), float(M[0, 0])
    # to a similar matrix of even rows and columns, then to entries <= 1, by powers of two: without rounding
    with quiet():  # SciPy casts the powers to integers, of which no use is made here
        M = scipy.linalg.matrix_balance(M, permute=False)[0]
    scale = 2.0 ** min(math.frexp(float(M.max()))[1], 1023)
    lows, highs = zip(*(collatz_wielandt(M / scale, v) for v in _noda(M / scale)), strict=True)
    return scale * max(0.0, *lows), scale * min(highs)


def _noda(M: np.ndarray) -> Iterator[np.ndarray]:
    r"""Noda's iteration (1971) to the Perron vector of an irreducible M >= 0: ``(h I - M) v+ = v``.

    h is the upper quotient of v: h I - M is an M-matrix for h > rho, so v+ > 0, and h falls to rho, at last
    quadratically.
    """
    v = np.ones(len(M))
    for _ in range(NODA_STEPS):
        yield v
        low, high = collatz_wielandt(M, v)
        if high - low <= 4 * (len(M) + 2) * eps(v) * high:
            return
        try:
            v = np.abs(np.linalg.solve(high * np.eye(len(M)) - M, v))
        except np.linalg.LinAlgError:  # h is an eigenvalue to the last digit
            return
        if not 0 < v.max() < math.inf:
            return
        v = np.maximum(v / v.max(), SMALLEST)


def _irreducible_blocks(M: np.ndarray) -> Iterator[np.ndarray]:
    count, label = scipy.sparse.csgraph.connected_components(M > 0, connection="strong")
    for i in range(count):
        yield M[np.ix_(label == i, label == i)]


# ------------------------------------------------------------------------------------------------
# relu: exactly the P-matrices


def relu_well_posed(A: Array) -> bool:
    r"""Whether ``x = relu(A x + b)`` has exactly one solution for every b: whether I - A is a P-matrix [GREEDY-Def1].

    Exact for the floating-point numbers in A, n <= 20. Theorem 1 is sufficient only: A = [[-2]] is well-posed for relu
    though its Perron eigenvalue is 2 [GREEDY-Thm1].

    Raises
    ------
    TypeError, ShapeError, HypothesisError

    Examples
    --------
    >>> import numpy as np
    >>> relu_well_posed(np.array([[-2.0]])), relu_well_posed(np.array([[1.0]]))
    (True, False)
    """
    entries = _small("A", A)
    return _is_p([[(i == j) - a for j, a in enumerate(row)] for i, row in enumerate(entries)])


def is_p_matrix(M: Array) -> bool:
    r"""Whether every principal minor of M is positive; exact for the floating-point numbers in M, n <= 20.

    M is a P-matrix iff its first entry is > 0 and both the rest of M and the Schur complement of that entry in M are
    (Tsatsomeros and Li 2000). All matrices of one size at once in floating point, with a bound of what rounding did;
    a pivot that the bound leaves undecided is computed in fractions.

    Examples
    --------
    >>> import numpy as np
    >>> is_p_matrix(np.array([[1.0, -3.0], [3.0, 1.0]])), is_p_matrix(np.array([[1.0, 1.0], [1.0, 1.0]]))
    (True, False)
    """
    return _is_p(_small("M", M))


def _small(name: str, A: Array) -> list[list[Fraction]]:
    A = _square(name, A)
    if A.shape[0] > LARGEST_P:
        raise HypothesisError(
            f"the P-matrix test has 2^n pivots and is for n <= {LARGEST_P}; got n = {A.shape[0]}. Sufficient and "
            "cheap: perron(A) < 1 [GREEDY-Thm1], or a positive definite symmetric part of I - A."
        )
    return [[Fraction(float(entry)) for entry in row] for row in to_numpy(A)]


def _is_p(exact: list[list[Fraction]]) -> bool:
    # a node is a set S of pivots taken, the bits of `taken`, with the Schur complement of M[S, S] in the rows and
    # columns not yet visited
    nodes, taken = _rounded(exact)[None], np.zeros(1, dtype=np.int64)
    errors = eps(nodes) * np.abs(nodes)
    for i in range(len(exact)):
        for k in np.flatnonzero(~(np.abs(nodes[:, 0, 0]) > errors[:, 0, 0])):
            known = _complement(exact, [j for j in range(i) if taken[k] >> j & 1], i)
            if known[0][0] <= 0:
                return False
            nodes[k], errors[k] = _rounded(known), eps(nodes) * np.abs(_rounded(known))
        if (nodes[:, 0, 0] < -errors[:, 0, 0]).any():
            return False
        complements, doubts = _schur(nodes, errors)
        nodes = np.concatenate([nodes[:, 1:, 1:], complements])
        errors = np.concatenate([errors[:, 1:, 1:], doubts])
        taken = np.concatenate([taken, taken | 1 << i])
    return True


def _rounded(exact: list[list[Fraction]]) -> np.ndarray:
    return np.array([[float(x) for x in row] for row in exact])


def _schur(nodes: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``M_22 - c r'/p`` for every node, and how far it may be off; infinitely where the sign of p is in doubt."""
    p, c, r = nodes[:, :1, :1], nodes[:, 1:, :1], nodes[:, :1, 1:]
    dp, dc, dr = errors[:, :1, :1], errors[:, 1:, :1], errors[:, :1, 1:]
    unit, underflow = eps(nodes), float(np.finfo(nodes.dtype).tiny)
    with quiet():
        q = c / p
        dq = np.where(dp < abs(p) / 2, (dc + abs(q) * dp) / (abs(p) - dp) + unit * abs(q), np.inf)
        complement = nodes[:, 1:, 1:] - q * r
        doubt = errors[:, 1:, 1:] + dq * (abs(r) + dr) + abs(q) * dr + unit * (abs(q * r) + abs(complement))
    return complement, np.where(np.isfinite(doubt), doubt * (1 + 8 * unit) + underflow, np.inf)


def _complement(exact: list[list[Fraction]], S: list[int], i: int) -> list[list[Fraction]]:
    """The Schur complement of M[S, S] in the rows and columns from i on, by elimination; its pivots are > 0."""
    kept = [*S, *range(i, len(exact))]
    rows = [[exact[a][b] for b in kept] for a in kept]
    for _ in S:
        first, *others = rows
        rows = [[x - row[0] / first[0] * y for x, y in zip(row[1:], first[1:], strict=True)] for row in others]
    return rows


# ------------------------------------------------------------------------------------------------
# how far from the solution


def bound(A: Array, x: Array, b: Array, activation: Any) -> Array:
    r"""Entry by entry, how far x is from the solution: ``|x - x*| <= (I - |A|)^-1 |x - phi(A x + b)|`` [GREEDY-Thm1].

    Proof: ``|x - x*| <= |x - phi(A x + b)| + |A| |x - x*|``, and the inverse of I - |A| is >= 0. Attained for A >= 0
    and phi linear. Rounding is covered, that of this function included.

    Parameters
    ----------
    A : array (n, n), perron(A) < 1
    x, b : array (batch, n)
    activation : Activation, or `Slopes`
        A CONE map.

    Raises
    ------
    TypeError, ShapeError, HypothesisError

    Examples
    --------
    >>> import numpy as np
    >>> from implicitref import activations
    >>> error = bound(np.array([[0.5]]), np.array([[1.0]]), np.array([[1.0]]), activations.relu)   # x* = 2
    >>> bool(1 <= error[0, 0] <= 1 + 1e-14)
    True
    """
    A, x, b = _equation(A, x, b, activation)
    return _bound(_comparison(A), A, x, b, activation)


def adjoint_bound(A: Array, q: Array, jac: Array, dx: Array) -> Array:
    r"""The counterpart for ``q = J (A' q + dx)``: ``|q - q*| <= (I - |A|')^-1 |q - J (A' q + dx)|`` [GREEDY-Thm1].

    q is the gradient at the pre-activation where dx is that at the state.

    Parameters
    ----------
    A : array (n, n), perron(A) < 1
    q, jac, dx : array (batch, n)
        jac is the derivative of phi at the pre-activation, in [-1, 1].

    Examples
    --------
    >>> import numpy as np
    >>> one = np.array([[1.0]])
    >>> round(float(adjoint_bound(one / 2, one, one, one)[0, 0]), 12)                               # q* = 2
    1.0
    """
    A, jac = _square("A", A), checked("jac", jac, 2)
    return bound(namespace(A).matrix_transpose(A), q, dx, Slopes(jac))


class _Comparison(NamedTuple):
    """|A| and (I - |A|)^-1, and w > 0 with gap = (I - |A|) w > 0, which proves that the Perron eigenvalue is < 1."""

    magnitude: Array
    inverse: Array
    w: Array
    gap: Array


def _comparison(A: Array) -> _Comparison:
    A, n, xp = in_double(A), A.shape[0], namespace(A)
    M = xp.abs(A)
    try:
        inverse = xp.linalg.inv(eye(n, A) - M)
    except (ArithmeticError, RuntimeError, ValueError) as error:  # each library has its own for a singular matrix
        raise _too_large(A) from error
    w = inverse @ xp.sum(inverse, axis=1)  # (I - |A|)^-2 1: the gap is of the size of w, whatever the scales of A are
    gap = w - M @ w - (n + 2) * eps(A) * (M @ w + w)
    if not (all_finite(w) and bool(xp.all((w > 0) & (gap > 0)))):
        raise _too_large(A)
    return _Comparison(M, inverse, w, gap)


def _too_large(A: Array) -> HypothesisError:
    return HypothesisError(
        f"perron(A) must be < 1 by more than rounding [GREEDY-Thm1]; it is {perron(A):.6g}. Use "
        "well_posed.project(A, radius) with radius < 1, or, where I - A >= m I, a splitting (peaceman-rachford)."
    )


def _bound(comparison: _Comparison, A: Array, x: Array, b: Array, activation: Any) -> Array:
    narrow = x
    A, x, b, xp = in_double(A), in_double(x), in_double(b), namespace(x)
    activation = Slopes(in_double(activation.jac)) if isinstance(activation, Slopes) else activation
    with quiet():
        image = activation(x @ A.T + b)
        r, size = xp.abs(x - image), xp.abs(x) @ comparison.magnitude.T + xp.abs(b)
        r = r + eps(x) * ((A.shape[0] + 3) / 2 * size + 4 * xp.abs(image) + r)
        found = _amplified(comparison, r)
    found = xp.where(xp.isfinite(found), found, xp.full_like(found, math.inf))
    return found if narrow is x else like(narrow, found) * (1 + 2 * eps(narrow))


def _amplified(comparison: _Comparison, r: Array) -> Array:
    """An upper bound of ``(I - |A|)^-1 r``, r >= 0: v + s w with ``(I - |A|) (v + s w) >= r``, rounding or not."""
    M, inverse, w, gap = comparison
    xp = namespace(r)
    v = xp.abs(r @ inverse.T)
    Mv = v @ M.T
    lack = r - v + Mv + (M.shape[0] + 3) * eps(r) * (r + v + Mv)
    s = xp.max(xp.clip(lack / gap, 0.0, None), axis=1, keepdims=True)
    return (v + s * w) * (1 + 8 * eps(r))


# ------------------------------------------------------------------------------------------------
# Picard's iteration, to a certificate


def picard(A: Array, b: Array, activation: Any, x: Array) -> Iterator[Array]:
    r"""``x(t+1) = phi(A x(t) + b)``: converges from every x if perron(A) < 1 [GREEDY-Thm1].

    If perron(A) is 0 it is exact after at most n steps.

    Examples
    --------
    >>> import numpy as np
    >>> from implicitref import activations
    >>> one = np.array([[1.0]])
    >>> steps = picard(-2 * one, one, activations.relu, one)              # well-posed, x* = 1/3, and yet it cycles
    >>> [float(next(steps)[0, 0]) for _ in range(4)]
    [0.0, 1.0, 0.0, 1.0]
    """
    transposed = namespace(A).matrix_transpose(A)
    while True:
        x = activation(x @ transposed + b)
        yield x


@dataclasses.dataclass(frozen=True, eq=False)
class Solution:
    r"""What a solve found.

    Attributes
    ----------
    z : array (batch, n)
        The state.
    bound : array (batch, n)
        Certified ``|z - z*|``, entry by entry.
    iterations : int
    converged : boolean array (batch,)
    reason : str
        A sentence.
    """

    z: Array
    bound: Array
    iterations: int
    converged: Array
    reason: str


def solve(
    A: Array, b: Array, activation: Any, *, tol: float = 1e-6, max_iter: int = 1000, start: Array | None = None
) -> Solution:
    r"""The solution of ``x = phi(A x + b)`` by Picard's iteration, to a certificate [GREEDY-Thm1, GREEDY-Eq1].

    Parameters
    ----------
    A : array (n, n), perron(A) < 1
    b : array (batch, n)
    activation : Activation, or `Slopes`
    tol : float, > 0
        Certified ``|x_i - x*_i|`` of every entry, absolute.
    max_iter : int, >= 1
    start : array like b, optional
        0 by default.

    Raises
    ------
    TypeError, ShapeError, HypothesisError
    ConvergenceError
        Out of iterations, or tol is below what the dtype can certify; ``.solution`` holds the last state.

    Examples
    --------
    >>> import numpy as np
    >>> from implicitref import activations
    >>> solution = solve(np.array([[0.5]]), np.array([[1.0]]), activations.relu)
    >>> bool(abs(solution.z[0, 0] - 2) <= solution.bound[0, 0] <= 1e-6)
    True
    """
    A, start, b = _equation(A, zeros(b.shape, b) if start is None and is_array(b) else start, b, activation)
    tol, max_iter, comparison = positive("tol", tol), count("max_iter", max_iter), _comparison(A)
    # |x+ - x*| <= |A| |x - x*| <= |A| (I - |A|)^-1 |x+ - x| but for rounding: where that passes, `_bound` is asked
    ahead = like(b, comparison.inverse - eye(A.shape[0], comparison.inverse)).T
    x, due, worst, iteration = start, tol, math.inf, 0
    with quiet():
        for image in itertools.islice(picard(A, b, activation, x), max_iter):
            change, x, iteration = namespace(b).abs(image - x), image, iteration + 1
            if largest(change) <= due and largest(change @ ahead) <= due:
                found, last, due = _bound(comparison, A, x, b, activation), worst, due / 2
                worst = largest(found)
                if worst <= tol or not worst < 0.9 * last:  # rounding is all that is left
                    break
        else:
            found = _bound(comparison, A, x, b, activation)
    return _verdict(A, x, found, iteration, tol)


def _verdict(A: Array, x: Array, found: Array, iterations: int, tol: float) -> Solution:
    worst = largest(found)
    converged = namespace(found).all(found <= tol, axis=1)
    reason = f"certified error {worst:.2g} after {iterations} iterations"
    solution = Solution(x, found, iterations, converged, reason)
    if worst <= tol:
        return solution
    finer = ", or pass float64 arrays" if eps(x) > 1e-8 else ""
    cause = (
        f"Picard's iteration did not reach tol = {tol:.2g}: {reason}, perron(A) = {perron(A):.6g}. Ask for a larger "
        f"tol, raise max_iter{finer}, or project A on a smaller ball (well_posed.project)."
    )
    raise ConvergenceError(cause, dataclasses.replace(solution, reason=cause))


# ------------------------------------------------------------------------------------------------
# the projection on the infinity-norm ball


def project(A: Array, radius: float) -> Array:
    r"""The nearest matrix with ``||A||_inf <= radius``: every row on its l1 ball, exactly, O(n^2 log n) [GREEDY-Rem4].

    A row a outside becomes ``sign(a) max(|a| - tau, 0)`` with l1 norm equal to the radius. With |a| sorted downwards,
    ``tau = max_j (|a|_1 + ... + |a|_j - radius)/j``: tau is at least each of these, since no j entries of the result
    sum to more than the radius, and equal where j counts the entries that stay. Rows inside have tau <= 0 and stay.

    Parameters
    ----------
    A : array (n, n)
    radius : float, > 0
        < 1 makes the result well-posed for every CONE map [GREEDY-SecII-relaxation].

    Raises
    ------
    TypeError, ShapeError, HypothesisError

    Examples
    --------
    >>> import numpy as np
    >>> project(np.array([[3.0, -1.0], [0.25, 0.5]]), 1.0)
    array([[1.  , 0.  ],
           [0.25, 0.5 ]])
    """
    A, radius = _square("A", A), _radius(radius)
    xp, magnitude = namespace(A), namespace(A).abs(A)
    counts = xp.cumulative_sum(xp.ones_like(A[:1, :]), axis=1)
    sums = xp.cumulative_sum(xp.sort(magnitude, axis=1, descending=True), axis=1)
    tau = xp.max((sums - radius) / counts, axis=1, keepdims=True)
    return _shrunk(A, tau)


def project_by_bisection(A: Array, radius: float) -> Array:
    r"""The same by bisection on tau, as the end-to-end method that the paper compares with does [GREEDY-Rem4].

    Seventy halvings of O(n^2) each. The paper's O(n^3) holds for neither.

    Examples
    --------
    >>> import numpy as np
    >>> project_by_bisection(np.array([[3.0, -1.0], [0.25, 0.5]]), 1.0).round(12)
    array([[1.  , 0.  ],
           [0.25, 0.5 ]])
    """
    A, radius = _square("A", A), _radius(radius)
    xp, magnitude = namespace(A), namespace(A).abs(A)
    high = xp.max(magnitude, axis=1, keepdims=True)
    low = xp.zeros_like(high)
    for _ in range(HALVINGS):
        tau = low / 2 + high / 2
        too_long = xp.sum(xp.clip(magnitude - tau, 0.0, None), axis=1, keepdims=True) > radius
        low, high = xp.where(too_long, tau, low), xp.where(too_long, high, tau)
    inside = xp.sum(magnitude, axis=1, keepdims=True) <= radius
    return _shrunk(A, xp.where(inside, xp.zeros_like(high), high))


def _shrunk(A: Array, tau: Array) -> Array:
    # sign(a) max(|a| - tau, 0) = a less its clipping to [-tau, tau]; a itself for tau <= 0
    xp = namespace(A)
    tau = xp.maximum(tau, xp.zeros_like(tau))
    return A - xp.maximum(xp.minimum(A, tau), -tau)


def _radius(radius: Any) -> float:
    return positive("radius", radius, ": the ball ||A||_inf <= radius [GREEDY-Rem4]")


# ------------------------------------------------------------------------------------------------
# entrances


def _square(name: str, A: Any) -> Array:
    A = checked(name, A, 2)
    if A.shape[0] != A.shape[1] or A.shape[0] == 0:
        raise ShapeError(f"{name} must be square, (n, n) with n >= 1; got shape {tuple(A.shape)}.")
    return A


def _equation(A: Any, x: Any, b: Any, activation: Any) -> tuple[Array, Array, Array]:
    A, b = _square("A", A), checked("b", b, 2)
    if b.shape[1] != A.shape[0]:
        raise ShapeError(f"b must have shape (batch, {A.shape[0]}), the length of A; got {tuple(b.shape)}.")
    x = checked("x", x, 2)
    _same_shape("x", x, b)
    if not is_cone(activation):
        raise HypothesisError(
            f"activation must be a CONE map [GREEDY-Def2], one of implicitref.activations or well_posed.Slopes; got "
            f"{activation!r}. well_posed.cone_ratio measures any other."
        )
    if isinstance(activation, Slopes):
        _same_shape("jac", activation.jac, b)
    return alongside("A", A, b), alongside("x", x, b), b


def _same_shape(name: str, x: Array, first: Array) -> None:
    if tuple(x.shape) != tuple(first.shape):
        raise ShapeError(f"{name} must have shape {tuple(first.shape)}, that of the others; got {tuple(x.shape)}.")
