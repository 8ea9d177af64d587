"""Run a splitting until the distance to the equilibrium is certified. Stopping, history and failure live here only."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from ..arrays import Array, eps, largest, namespace, norm, positive, quiet
from ..errors import ConvergenceError, HypothesisError
from . import rates
from .certificates import distance
from .inclusion import Inclusion, State
from .iterations import MAPS

__all__ = ["Solution", "solve"]


@dataclasses.dataclass(frozen=True, eq=False)
class Solution:
    r"""What a solve found.

    Attributes
    ----------
    z, u : array (batch, ...)
        The state and what the resolvent of B was applied to, ``z = R_B(u)``. u warm-starts another solve.
    iterations : int
    residuals : array (iterations, batch)
        ``||u+ - u||_2`` at every iteration; under stop = "relative-change" the paper's ``||z+ - z||/||z+||``.
    bound : array (batch,)
        Certified ``||z - z*||_2``; inf where the iteration diverged.
    converged : boolean array (batch,)
        By the rule that was asked for.
    reason : str
    alpha : float
        The step that was used.
    states : list of State, or None
        Every iterate, with keep=True.
    """

    z: Array
    u: Array
    iterations: int
    residuals: Array
    bound: Array
    converged: Array
    reason: str
    alpha: float
    states: list[State] | None = None


def solve(
    inclusion: Inclusion,
    u: Array,
    *,
    method: str = "peaceman-rachford",
    alpha: float,
    tol: float = 1e-6,
    max_iter: int = 1000,
    stop: str = "certificate",
    keep: bool = False,
    callback: Callable[[int, Array], None] | None = None,
) -> Solution:
    r"""A zero of the inclusion, to a certificate.

    Parameters
    ----------
    inclusion : Inclusion
    u : array (batch, ...)
        Where to start; ``z_0 = R_B(u)``.
    method : {"peaceman-rachford", "forward-backward", "douglas-rachford", "picard"}
    alpha : float, > 0
    tol : float, > 0
        Certified ``||z - z*||_2`` of every sample, absolute.
    max_iter : int, >= 1
    stop : {"certificate", "relative-change"}
        "relative-change" is the papers' rule, ``||z+ - z||/||z+|| <= tol`` with 0/0 = 0, here for every sample. It
        accepts non-solutions [NEW-stopping-fooled]; `Solution.bound` tells.
    keep : bool
        Keep every iterate.
    callback : callable, optional
        Called as ``callback(iteration, residuals)`` with an array (batch,).

    Raises
    ------
    ConvergenceError
        The iteration diverged, ran out of iterations, or met the floor of the dtype; `.solution` holds what it found.
    """
    alpha, tol, max_iter = positive("alpha", alpha), positive("tol", tol), _count("max_iter", max_iter)
    step = _choice("method", method, MAPS)(inclusion, alpha)
    rule = _choice("stop", stop, _RULES)(inclusion, alpha, tol)
    alpha = 1.0 if method == "picard" else alpha
    history: list[Array] = []
    states: list[State] = []
    watch = _Watch()
    with quiet():
        while True:
            previous, u = u, step(u)
            residual, done = rule(previous, u)
            history.append(residual)
            if keep:
                states.append(State(inclusion.B.prox(u, alpha), u))
            if callback is not None:
                callback(len(history), residual)
            if done or len(history) == max_iter or watch.ended(residual, u):
                break
        z, bound = distance(inclusion, alpha, u)
    xp = namespace(z)
    bound = xp.where(xp.isfinite(bound), bound, xp.full_like(bound, math.inf))
    converged = bound <= tol if stop == "certificate" else history[-1] <= tol
    cause = "" if bool(xp.all(converged)) else _cause(inclusion, method, alpha, tol, max_iter, watch, bound)
    reason = cause or f"converged in {len(history)} iterations: certified distance {largest(bound):.2g}"
    solution = Solution(
        z, u, len(history), xp.stack(history), bound, converged, reason, alpha, states if keep else None
    )
    if cause:
        raise ConvergenceError(cause, solution)
    return solution


def _by_certificate(inclusion: Inclusion, alpha: float, tol: float) -> Callable[[Array, Array], tuple[Array, bool]]:
    # The certificate costs a product with W, the step length almost nothing, and their ratio varies slowly: the
    # certificate is computed once at the start and then when the ratio of last time says that it will pass.
    ratio = 0.0

    def rule(previous: Array, u: Array) -> tuple[Array, bool]:
        nonlocal ratio
        residual = norm(u - previous)
        length = largest(residual)
        if ratio * length > tol or not math.isfinite(length):
            return residual, False
        bound = largest(distance(inclusion, alpha, u)[1])
        ratio = bound / length if length else 0.0
        return residual, bound <= tol

    return rule


def _by_relative_change(inclusion: Inclusion, alpha: float, tol: float) -> Callable[[Array, Array], tuple[Array, bool]]:
    R_B = inclusion.resolvent_B(alpha)
    z: Array | None = None

    def rule(previous: Array, u: Array) -> tuple[Array, bool]:
        nonlocal z
        z, old = R_B(u), R_B(previous) if z is None else z
        change, size = norm(z - old), norm(z)
        xp = namespace(size)
        zero = xp.zeros_like(size)
        residual = xp.where(change == 0, zero, change / xp.where(change == 0, xp.ones_like(size), size))
        return residual, largest(residual) <= tol

    return rule


_RULES = {"certificate": _by_certificate, "relative-change": _by_relative_change}


class _Watch:
    """Notices that an iteration overflows, or that its steps have come down to rounding and shrink no more."""

    PATIENCE = 50

    def __init__(self) -> None:
        self.shortest, self.since, self.state = math.inf, 0, "iterations"

    def ended(self, residual: Array, u: Array) -> bool:
        length = largest(residual)
        if not math.isfinite(length):
            self.state = "diverged"
            return True
        self.since = 0 if length < self.shortest else self.since + 1
        self.shortest = min(length, self.shortest)
        if self.since >= self.PATIENCE and length <= 100 * eps(u) * largest(norm(u)):
            self.state = "floor"
            return True
        return False


def _cause(
    inclusion: Inclusion, method: str, alpha: float, tol: float, max_iter: int, watch: _Watch, bound: Array
) -> str:
    """A sentence: what happened, why, and what to do."""
    if watch.state == "floor":
        return (
            f"{method} reached the floor of {bound.dtype}: the certified distance stays at {largest(bound):.2g} > tol = "
            f"{tol:.2g}. Ask for tol >= {2 * largest(bound):.1g}, or pass float64 arrays."
        )
    happened = (
        f"{method} diverged: the state overflowed"
        if watch.state == "diverged"
        else f"{method} did not reach tol = {tol:.2g} in max_iter = {max_iter} iterations; the certified distance is "
        f"{largest(bound):.2g}"
    )
    return f"{happened} (alpha = {alpha:.4g}). {_remedy(inclusion, method, alpha)}"


def _remedy(inclusion: Inclusion, method: str, alpha: float) -> str:
    G = rates.gap(inclusion.W)
    if method == "picard" or method == "forward-backward":
        limit = rates.forward_backward_limit(G)
        name = "Picard is forward-backward at alpha = 1, which" if method == "picard" else "Forward-backward"
        if alpha >= limit:
            return (
                f"{name} is guaranteed only for alpha < {limit:.4g} [MON-Sec3.4-alpha]. Use peaceman-rachford, which "
                "converges for every alpha > 0, or forward-backward with alpha=None."
            )
        rate = rates.forward_backward(G, alpha)
    else:
        rate = rates.peaceman_rachford(G, alpha)
        rate = rate if method == "peaceman-rachford" else rates.douglas_rachford(rate)
    return (
        f"The contraction factor is {rate:.6g}, about {math.log(10) / max(-math.log(rate), 1e-300):.3g} iterations a digit: "
        "raise max_iter, or use peaceman-rachford with alpha=None, the best provable step."
    )


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < 1:
        raise HypothesisError(f"{name} must be an integer >= 1; got {value!r}.")
    return int(value.__index__())


def _choice(name: str, value: str, table: dict[str, Any]) -> Any:
    if value not in table:
        raise HypothesisError(f"{name} must be one of {', '.join(table)}; got {value!r}.")
    return table[value]
