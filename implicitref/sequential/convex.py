r"""The shallow ReLU problem as a convex one: what is the best that any number of units could do?

For one output, ``min ||y - relu(U V') c||^2/2 + beta/2 (||V||_F^2 + ||c||^2)`` over V, c and the number of units has
the minimum of

    min_w  ||y - sum_i D_i U w_i||^2/2 + beta sum_i ||w_i||,   w_i or -w_i in the cone {v : (2 D_i - 1) U v >= 0},

the sum over all patterns D_i = diag(U v > 0) (Pilanci and Ergen 2020): a group lasso with cones. Its dual, maximise
``<y, s> - ||s||^2/2`` under ``|<s, relu(U v)>| <= beta`` for all ``||v|| <= 1``, bounds it from below, so that the gap
certifies a solution, and through it says how far any heuristic ends from the global minimum.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np

from ..arrays import checked, count, positive, to_numpy
from ..errors import ConvergenceError, HypothesisError, ShapeError

__all__ = ["ConvexSolution", "patterns", "penalised", "shallow_optimum"]

LARGEST = 20_000  # patterns
INNER = 5_000  # iterations of FISTA


class ConvexSolution(NamedTuple):
    """Units V (k, d), c (k,) that reach `primal`; no shallow network, however wide, is below `dual`."""

    V: np.ndarray
    c: np.ndarray
    primal: float
    dual: float
    iterations: int

    @property
    def gap(self) -> float:
        """primal - dual >= 0: how far `primal` can be from the global minimum."""
        return self.primal - self.dual


def patterns(u: np.ndarray) -> np.ndarray:
    r"""All sign patterns ``u v > 0`` over v, for rows in general position: (P, m), P = 2 sum_{k < d} binomial(m-1, k).

    Every cone of the arrangement has an edge on which d - 1 of the rows vanish, and every choice of their signs is a
    cone at that edge. Costs O(m^(d-1)) small solves.

    Raises
    ------
    HypothesisError
        More than d - 1 rows vanish on an edge, or there are too many patterns.

    Examples
    --------
    >>> import numpy as np
    >>> patterns(np.array([[0.0, 1.0], [1.0, 1.0]])).astype(int)
    array([[0, 0],
           [0, 1],
           [1, 0],
           [1, 1]])
    """
    m, d = u.shape
    if d > m or 2 * sum(math.comb(m - 1, k) for k in range(d)) > LARGEST:
        raise HypothesisError(
            f"patterns need d <= m and at most {LARGEST} of them, 2 sum_(k < d) binomial(m-1, k); got m = {m}, "
            f"d = {d}. Take fewer samples."
        )
    found = [_at_edge(u, np.array(rows, dtype=int)) for rows in itertools.combinations(range(m), d - 1)]
    return np.unique(np.concatenate(found), axis=0)


def _at_edge(u: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The patterns of all cones at the edge on which `rows` vanish, and at its opposite."""
    edge = np.linalg.svd(u[rows])[2][-1] if rows.size else np.ones(1)
    pre = u @ edge
    others = np.delete(np.arange(len(u)), rows)
    if np.abs(pre[others]).min(initial=math.inf) <= 1e-12 * np.abs(u).max():
        raise HypothesisError(
            "patterns need the rows of u in general position: any d of them independent; got dependent ones. Remove "
            "repeated samples."
        )
    signs = np.array(list(itertools.product([False, True], repeat=rows.size))).reshape(2**rows.size, rows.size)
    found = np.repeat([pre > 0, pre < 0], len(signs), axis=0)
    found[:, rows] = np.tile(signs, (2, 1))
    return found


def shallow_optimum(
    u: np.ndarray, y: np.ndarray, beta: float, *, tol: float = 1e-6, max_iter: int = 200
) -> ConvexSolution:
    r"""The global minimum of the shallow ReLU problem with penalty over networks of any width, certified.

    A working set of cones: FISTA on those that are in it, then the cone that violates the dual most joins, until the
    duality gap is at most ``tol ||y||^2/2``.

    Parameters
    ----------
    u : array (m, d)
        Rows in general position, few: all patterns are enumerated.
    y : array (m, 1)
    beta : float, > 0
    tol : float, > 0
    max_iter : int, >= 1
        Rounds, each of which takes at most one cone of either sign into the working set.

    Raises
    ------
    ShapeError, HypothesisError, ConvergenceError

    Examples
    --------
    >>> import numpy as np
    >>> u, y = np.array([[-1.0, 1.0], [0.0, 1.0], [2.0, 1.0]]), np.array([[1.0], [0.0], [2.0]])
    >>> found = shallow_optimum(u, y, 1e-3)
    >>> found.gap < 1e-5, penalised(u, y, found.V, found.c, 1e-3) - found.primal < 1e-9
    (True, True)
    """
    u, y = (np.asarray(to_numpy(checked(name, a, 2)), dtype=np.float64) for name, a in (("u", u), ("y", y)))
    if y.shape != (u.shape[0], 1):
        raise ShapeError(
            f"y must have shape {(u.shape[0], 1)}, one output [the dual has more for several]; got {y.shape}."
        )
    max_iter = count("max_iter", max_iter)
    beta, target = positive("beta", beta), y[:, 0]
    goal, D = positive("tol", tol) * float(target @ target) / 2, patterns(u).astype(np.float64)
    working, W = np.zeros((0, 2), dtype=int), np.zeros((0, u.shape[1]))
    for iteration in range(max_iter):
        W = _fista(u, target, D[working[:, 0]], working[:, 1], beta, W, 0.1 * goal)
        found, worst = _certified(u, target, D, working, W, beta, iteration)
        if found.gap <= goal:
            return found
        new = [pair for pair in worst if not (working == pair).all(axis=1).any()]
        working = np.concatenate([working, np.array(new, dtype=int).reshape(-1, 2)])
        W = np.concatenate([W, np.zeros((len(new), u.shape[1]))])
    message = f"the duality gap is {found.gap:.3g} after {max_iter} rounds; wanted tol ||y||^2/2 = {goal:.3g}."
    raise ConvergenceError(f"{message} Raise tol or beta.", found)


def penalised(u: np.ndarray, y: np.ndarray, V: np.ndarray, c: np.ndarray, beta: float) -> float:
    r"""``||y - relu(u V') c||^2/2 + beta sum_j ||v_j|| |c_j|``: the objective once every unit is balanced.

    ReLU is positively homogeneous, so t v_j and c_j/t are the same unit, and of these ``||v||^2/2 + c^2/2`` is least
    where it is ``||v|| |c|``.
    """
    residual = y[:, 0] - np.maximum(u @ V.T, 0) @ c
    return float(residual @ residual / 2 + beta * np.sum(np.linalg.norm(V, axis=1) * np.abs(c)))


# ------------------------------------------------------------------------------------------------
# the primal on some cones. Row i of W is a w in the cone of pattern D_i, with output sign s_i: sum_i s_i D_i U w_i


def _fista(
    u: np.ndarray, y: np.ndarray, D: np.ndarray, side: np.ndarray, beta: float, W: np.ndarray, goal: float
) -> np.ndarray:
    r"""Accelerated proximal gradient (Beck and Teboulle 2009), begun afresh whenever a step goes uphill."""
    if not len(D):
        return W
    A = ((2.0 * side - 1)[:, None, None] * D[:, :, None] * u).transpose(1, 0, 2).reshape(len(u), -1)  # blocks s_i D_i U
    step, old, point, t = 1 / max(float(np.linalg.norm(A, 2)) ** 2, 1e-300), W, W, 1.0
    for k in range(1, INNER):
        W = _prox(point - step * (A.T @ (A @ point.ravel() - y)).reshape(W.shape), u, D, step * beta)
        if np.vdot(point - W, W - old) > 0:  # O'Donoghue and Candes 2015
            t = 1.0
        t, last = (1 + math.sqrt(1 + 4 * t * t)) / 2, t
        point, old = W + (last - 1) / t * (W - old), W
        if k % 20 == 0 and _inner_gap(u, y, D, A, W, beta) <= goal:
            break
    return W


def _inner_gap(u: np.ndarray, y: np.ndarray, D: np.ndarray, A: np.ndarray, W: np.ndarray, beta: float) -> float:
    residual = y - A @ W.ravel()
    primal = residual @ residual / 2 + beta * np.linalg.norm(W, axis=1).sum()
    return float(primal - _dual(residual, y, beta, _reach(A.T @ residual, u, D).max()))


def _prox(W: np.ndarray, u: np.ndarray, D: np.ndarray, level: float) -> np.ndarray:
    """Rows projected on their cones, then shrunk: the prox of level ||.|| on the cone, which is homogeneous."""
    projected = np.stack([_project(w, u, d) for w, d in zip(W, D, strict=True)])
    length = np.linalg.norm(projected, axis=1, keepdims=True)
    return np.asarray(projected * np.maximum(1 - level / np.maximum(length, 1e-300), 0))


def _project(w: np.ndarray, u: np.ndarray, pattern: np.ndarray) -> np.ndarray:
    """The nearest point of {v : G v >= 0}, G = (2 D - 1) u: w + G'l, l >= 0 with ||w + G'l|| least (Moreau)."""
    from scipy.optimize import nnls

    G = (2 * pattern - 1)[:, None] * u
    return w if (G @ w >= 0).all() else w + G.T @ nnls(G.T, -w)[0]


# ------------------------------------------------------------------------------------------------
# the dual


def _reach(products: np.ndarray, u: np.ndarray, D: np.ndarray) -> np.ndarray:
    """max of <g_i, v> over v in cone i, ||v|| <= 1: the length of the projection of g_i."""
    g = products.reshape(len(D), -1)
    return np.array([np.linalg.norm(_project(row, u, d)) for row, d in zip(g, D, strict=True)])


def _dual(residual: np.ndarray, y: np.ndarray, beta: float, reach: float) -> float:
    """The largest <y, s> - ||s||^2/2 over feasible s = t residual, t >= 0: `reach` is not that of -residual."""
    square = residual @ residual
    factor = min(beta / max(reach, 1e-300), max(residual @ y, 0.0) / square if square > 0 else 0.0)
    return float(factor * (residual @ y) - factor**2 * square / 2)


def _certified(
    u: np.ndarray, y: np.ndarray, D: np.ndarray, working: np.ndarray, W: np.ndarray, beta: float, iteration: int
) -> tuple[ConvexSolution, list[tuple[int, int]]]:
    """The solution with its bounds over all cones, and the cone of either sign that violates the dual most."""
    sign = 2.0 * working[:, 1] - 1
    kept = np.linalg.norm(W, axis=1) > 0
    root = np.sqrt(np.linalg.norm(W[kept], axis=1))
    V, c = W[kept] / root[:, None], sign[kept] * root
    residual = y - np.maximum(u @ V.T, 0) @ c
    primal = float(residual @ residual / 2 + beta * np.sum(root**2))
    correlations = (D * residual) @ u
    reach = np.stack([_reach(-correlations, u, D), _reach(correlations, u, D)], axis=1)
    worst = [(int(np.argmax(reach[:, k])), k) for k in (0, 1) if reach[:, k].max() > beta]
    return ConvexSolution(V, c, primal, _dual(residual, y, beta, float(reach.max())), iteration), worst
