r"""Problems on which the papers' statements can be watched to hold, to fail, or to be tight.

A `Problem` is one map with its data, its fixed point and the cotangent there: `gradients` gives the gradient (rule
``implicit("dense")``) and minus the direction of Jacobian-free backpropagation (rule ``jfb``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..activations import relu
from ..arrays import Array
from ..errors import HypothesisError
from ..operators import MonotoneDense
from .maps import ForwardBackward, LinearMap, Map, OneLayer
from .rules import gradients, implicit, jfb
from .theory import descent_threshold

__all__ = [
    "TOY_LIMIT",
    "Problem",
    "ascent",
    "ascent_as_registered",
    "dead_unit",
    "dropped_gradient",
    "mon_that_cycles",
    "slope",
    "smooth_layer",
    "toy",
    "toy_series",
    "two_samples",
]


class Problem(NamedTuple):
    """T, its data x, its fixed points z, the gradient g of the loss there, and what the example shows."""

    T: Any
    x: Array
    z: Array
    g: Array
    shows: str


def slope(problem: Problem, rule: Any = jfb) -> float:
    """<gradient, p>, the derivative of the loss along p: negative for descent, positive for ascent."""
    exact = gradients(problem.T, problem.z, problem.x, problem.g, implicit("dense"))
    direction = gradients(problem.T, problem.z, problem.x, problem.g, rule)
    return -float(sum((exact[name] * direction[name]).sum() for name in exact))


def _linear(K: Any, M: Any, v: Any, shows: str) -> Problem:
    # theta = 0 and x = 0: the fixed point of z = K z is 0
    K, M, g = (np.asarray(array, dtype=np.float64) for array in (K, M, v))
    return Problem(LinearMap(K, M, np.zeros(M.shape[0])), 0 * g, 0 * g, g, shows)


def two_samples() -> Problem:
    r"""Averaging does not save the theorem: a batch of two with n = 1, kappa = 1, where p ascends [NEW-jfb-batch].

    ``T(u; d) = d u/2 + theta`` at d = 1, -1 with losses u and -2u: the gradient of the mean is 1/3 and p = 1/2 (for
    the sums 2/3 and 1). Remark 3.1 offers averaging as a reason why kappa does no harm [FPN-Rem3.1, JFB-Rem3.1].

    Examples
    --------
    >>> round(slope(two_samples()), 12)
    0.666666666667
    """
    T = Map(
        lambda z, d: d * z / 2,
        lambda z, d, g: d * g / 2,
        lambda z, d, g: {"theta": g.sum(axis=0)},
        lambda z, d, v: d * v / 2,
        gamma=0.5,
    )
    d = np.array([[1.0], [-1.0]])
    return Problem(T, d, 0 * d, np.array([[1.0], [-2.0]]), "the direction summed over a batch ascends")


def ascent_as_registered() -> Problem:
    r"""gamma = 0.8, kappa = 9 > kappa* = 4: gradient (1, 1), p = (1.4, -0.7333), <gradient, p> = 2/3 > 0
    [NEW-jfb-threshold].

    Examples
    --------
    >>> round(slope(ascent_as_registered()), 12)
    0.666666666667
    """
    K, M = [[0.24, 0.08], [0.72, 0.24]], [[1.0, 0.0], [0.0, 1 / 3]]
    return _linear(K, M, [[-1.4, 2.2]], "above kappa* the direction may ascend")


def ascent(gamma: float, kappa: float, k: int = 0) -> Problem:
    r"""The worst case for given gamma and kappa: it ascends exactly if ``kappa > descent_threshold(gamma, k)``.

    ``M = diag(1, kappa^-1/2)``, so P = (M'M)^-1 = diag(1, kappa); ``w ~ (kappa, 1)^(1/2)`` minimises the cosine of w
    and P w, which is ``2 sqrt(kappa)/(1 + kappa)``; K' turns P w onto w, shortened by gamma, so that
    ``<w, (I - K') P w> = <w, P w> - gamma ||w|| ||P w||``. For neumann(k) the (k+1)-th power of K' must do so: a
    rotation by a (k+1)-th of the angle times gamma [NEW-jfb-threshold, NEW-neumann-descent].

    Parameters
    ----------
    gamma : float in (0, 1)
    kappa : float, >= 1
    k : int
        For the rule neumann(k).

    Examples
    --------
    >>> slope(ascent(0.8, 4.01)) > 0 > slope(ascent(0.8, 3.99))
    True
    """
    if not (kappa >= 1 and 0 < gamma < 1):
        raise HypothesisError(f"ascent needs kappa >= 1 and 0 < gamma < 1; got {kappa!r}, {gamma!r}.")
    w, Pw = np.array([math.sqrt(kappa), 1.0]), np.array([1.0, kappa]) * np.array([math.sqrt(kappa), 1.0])
    angle = (math.atan2(w[1], w[0]) - math.atan2(Pw[1], Pw[0])) / (k + 1)
    turn = gamma * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    above = "above" if kappa > descent_threshold(gamma, k) else "below"
    v = Pw - turn @ Pw  # w = M' gradient = M'M (I - K')^-1 v
    return _linear(turn.T, np.diag([1.0, kappa**-0.5]), v[None], f"the worst case {above} kappa*")


def dead_unit() -> Problem:
    r"""Without full column rank the gradient can vanish where p does not: M_T = (1, 0) [JFB-Asm3.3].

    Examples
    --------
    >>> problem = dead_unit()
    >>> gradients(problem.T, problem.z, problem.x, problem.g, implicit("dense"))["theta"] + 0.0
    array([0.])
    >>> gradients(problem.T, problem.z, problem.x, problem.g, jfb)["theta"]
    array([-0.5])
    """
    return _linear([[0.0, 0.0], [0.5, 0.0]], [[1.0, 0.0]], [[-0.5, 1.0]], "p does not vanish where the gradient does")


def dropped_gradient(delta: float) -> tuple[Problem, Callable[[Array], Array]]:
    r"""Corollary 3.1 with the printed margin: a state at distance delta from z*, inside it, where p = 0 [FPN-Eq61].

    ``T = u/2 + theta``, ``S(u) = u - (u - u*)^2/(2 delta)``: at ``u* + delta`` the derivative of S vanishes.

    Returns
    -------
    problem at u* = 0, and the cotangent of S as a function of u
    """
    problem = _linear([[0.5]], [[1.0]], [[1.0]], "the printed margin admits a direction of length zero")
    return problem, lambda u: 1 - u / delta


def smooth_layer() -> tuple[np.ndarray, np.ndarray]:
    r"""(W, slopes) with I - W > 0 where a smooth activation ascends for some g [NEW-jfb-relu-descent].

    ``I - W = [[.05, -2.093], [2.093, .05]]``, slopes (1, .163): the symmetric part of ``J (I - W'J)^-1 J`` is
    indefinite. For slopes in {0, 1} it is not, and ||W|| < 1 also excludes it.
    """
    return np.eye(2) - np.array([[0.05, -2.093], [2.093, 0.05]]), np.array([1.0, 0.163])


def mon_that_cycles(alpha: float | None = None) -> tuple[OneLayer, ForwardBackward, Array, Array]:
    r"""A MON whose ``T = sigma(W z + x)`` is no contraction: W = -10, I - W = 11, relu, x = 1 [JFB-Sec1-mon-case].

    Picard's iteration cycles 1, 0, 1, 0, ...; the equilibrium is 1/11, which a forward-backward step finds.

    Returns
    -------
    plain map, forward-backward map, x, z*
    """
    one = np.array([[1.0]])
    W = MonotoneDense(np.array([[math.sqrt(10.0)]]), np.array([[0.0]]), m=1.0)  # W = 1 - 1 - 10
    return OneLayer(-10 * one, one, 0 * one[0], relu), ForwardBackward(W, relu, alpha), one, one / 11


# ------------------------------------------------------------------------------------------------
# The toy of JFB section 1

TOY_LIMIT = 4 * 5**-1.25  # .534992: beyond it y = d + y^5 has one real root only, and not the one near d


def toy() -> Map:
    r"""``T(y; d) = d + y^5`` [JFB-Eq4, JFB-Eq5]: from y = 0 to the root of smallest modulus, for |d| <= 4/5^(5/4).

    No contraction: gamma = 5 y^4 holds near the root only, from y = .9 the iteration diverges at d = 1/2, and for
    0 < |d| < .535 there are three real roots, not one as printed.

    Examples
    --------
    >>> import implicitref as ir
    >>> half = np.array([[0.5]])
    >>> y = ir.fixed_point.iterate(toy(), half, 0 * half, tol=1e-12).z
    >>> bool(abs(y[0, 0] - toy_series(0.5)) < 1e-11)
    True
    """
    return Map(
        lambda y, d: d + y**5,
        lambda y, d, g: 5 * y**4 * g,
        lambda y, d, g: {"d": g},
        lambda y, d, v: 5 * y**4 * v,
    )


def toy_series(d: float, terms: int = 2000) -> float:
    r"""``y = sum_k C(5k, k) d^(4k+1)/(4k+1)``, the series of the root [JFB-Eq4]; converges for |d| <= TOY_LIMIT."""
    if not abs(d) <= TOY_LIMIT:
        raise HypothesisError(f"d must satisfy |d| <= 4/5^(5/4) = {TOY_LIMIT:.6f} [JFB-Eq4]; got {d!r}.")
    parts, term = [], float(d)
    for k in range(terms):
        parts.append(term)
        # C(5k+5, k+1)/C(5k, k) times (4k+1)/(4k+5)
        rising = math.prod(5 * k + i for i in range(1, 6)) / ((k + 1) * math.prod(4 * k + i for i in range(1, 5)))
        term *= rising * (4 * k + 1) / (4 * k + 5) * d**4
    return math.fsum(parts)
