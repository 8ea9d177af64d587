"""Run a splitting until the distance to the equilibrium is certified. Stopping, history and failure live here only."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

from ..arrays import LARGE, Array, count, eps, largest, namespace, norm, one_of, positive, quiet, total_norm
from ..errors import ConvergenceError
from . import rates
from .certificates import defect, distance
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
    converged : boolean array (batch,)
        By the rule that was asked for.
    reason : str
        A sentence.
    bound : array (batch,)
        Certified ``||z - z*||_2``; inf where the state overflowed.
    residuals : array (iterations, batch)
        ``||u+ - u||_2`` at every iteration; under stop = "relative-change" the paper's ``||z+ - z||/||z+||``.
    states : list of State, or None
        Every iterate, with keep=True.
    inclusion, start, method, alpha, stop
        What was solved, from where and how.
    """

    z: Array
    u: Array
    iterations: int
    converged: Array
    reason: str
    inclusion: Inclusion = dataclasses.field(repr=False)
    start: Array = dataclasses.field(repr=False)
    method: str
    alpha: float
    stop: str
    states: list[State] | None = dataclasses.field(default=None, repr=False)
    known_bound: Array | None = dataclasses.field(default=None, repr=False)

    @functools.cached_property
    def bound(self) -> Array:
        """Certified distance of every sample; computed when first asked for where the stopping rule did not need it."""
        known = self.known_bound
        return _certified(self.inclusion, self.alpha, self.u) if known is None else known

    @functools.cached_property
    def residuals(self) -> Array:
        """Residual of every iteration and sample: the iteration is replayed when they are first asked for, so that a
        solve whose history nobody reads pays neither time nor memory for it.
        """
        step, residual, u, rows = MAPS[self.method](self.inclusion, self.alpha), _RESIDUALS[self.stop], self.start, []
        with quiet():
            for _ in range(self.iterations):
                previous, u = u, step(u)
                rows.append(residual(self.inclusion, self.alpha, previous, u))
        return namespace(u).stack(rows)


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
    alpha = 1.0 if method == "picard" else positive("alpha", alpha)
    step = one_of("method", method, MAPS)(inclusion, alpha)
    tol = positive("tol", tol)
    rule = one_of("stop", stop, _RULES)(inclusion, alpha, tol)
    max_iter, iterations, due, start, pace = count("max_iter", max_iter), 0, 1, u, _Pace()
    states: list[State] = []
    with quiet():
        while True:
            for _ in range(min(due, max_iter) - iterations):
                previous = u if iterations + 1 == min(due, max_iter) or callback is not None else None
                u, iterations = step(u), iterations + 1
                if keep:
                    states.append(State(inclusion.B.prox(u, alpha), u))
                if callback is not None:
                    callback(iterations, _RESIDUALS[stop](inclusion, alpha, previous, u))
            check = rule(previous, u)
            if check.done or iterations == max_iter or pace.ended(iterations, check.length, u):
                break
            due = iterations + 1 + pace.pause(iterations, check)
        z, bound = inclusion.B.prox(u, alpha) if check.z is None else check.z, check.bound
        if stop == "certificate":
            measure = bound = _certified(inclusion, alpha, u) if bound is None else bound
        else:
            measure = _RESIDUALS[stop](inclusion, alpha, previous, u) if check.residual is None else check.residual
    converged, kept = measure <= tol, states if keep else None
    reason = f"{_MEASURES[stop]} {largest(measure):.2g} after {iterations} iterations"
    solution = Solution(z, u, iterations, converged, reason, inclusion, start, method, alpha, stop, kept, bound)
    if bool(namespace(z).all(converged)):
        return solution
    cause = _cause(solution, tol, pace.state)
    raise ConvergenceError(cause, dataclasses.replace(solution, reason=cause))


def _certified(inclusion: Inclusion, alpha: float, u: Array) -> Array:
    # in float64 a whole batch of large states would take the memory of many
    xp, parts = namespace(u), _parts(u, (1 / 4, 1 / 2, 3 / 4))
    with quiet():
        bounds = [distance(inclusion.samples(part), alpha, u[part, ...])[1] for part in parts[1:]]
        first = inclusion.samples(parts[0]) if bounds else inclusion
        bound = xp.concat([distance(first, alpha, u[parts[0], ...])[1], *bounds])
    return xp.where(xp.isfinite(bound), bound, xp.full_like(bound, math.inf))


def _step_length(inclusion: Inclusion, alpha: float, previous: Array, u: Array) -> Array:
    return norm(u - previous)


def _relative_change(inclusion: Inclusion, alpha: float, previous: Array, u: Array) -> Array:
    return _change(inclusion.B.resolvent(alpha), previous, u)


def _change(R_B: Callable[[Array], Array], previous: Array, u: Array) -> Array:
    z = R_B(u)
    return _ratio(norm(z - R_B(previous)), norm(z))


def _ratio(change: Array, size: Array) -> Array:
    return change / namespace(size).maximum(size, eps(size) ** 4)  # 0/0 is 0: the rule is fooled, as printed


_RESIDUALS = {"certificate": _step_length, "relative-change": _relative_change}
_MEASURES = {"certificate": "certified distance", "relative-change": "relative change"}


class _Check(NamedTuple):
    """What a stopping rule saw: a length over the whole batch, the length at which it expects to stop, whether to stop
    now, and by the way z, the residuals or the bound.
    """

    length: float
    target: float
    done: bool
    z: Array | None = None
    residual: Array | None = None
    bound: Array | None = None


Rule = Callable[[Array, Array], _Check]  # (previous u, u) -> check


def _by_certificate(inclusion: Inclusion, alpha: float, tol: float) -> Rule:
    # The length of a step costs little, ||e||/m a product with W, the certificate that product in float64 and the
    # rounding: each is computed when the one before it says that the next may pass. Their ratios vary slowly.
    target = 10 * tol * math.sqrt(inclusion.b.shape[0])  # beyond it some sample moved 10 tol: none such passes

    def rule(previous: Array, u: Array) -> _Check:
        nonlocal target
        length = total_norm(u - previous)
        if length > target or not math.isfinite(length):
            return _Check(length, target, False)
        _, e = defect(inclusion, inclusion.B.root(u, alpha))
        worst, bound = largest(norm(e)) / inclusion.m, None
        if worst <= 2 * tol:  # near the floor the certificate may be the smaller of the two
            bound = _certified(inclusion, alpha, u)
            worst = largest(bound)
        target = tol * length / worst if worst else 0.0
        return _Check(length, target, bound is not None and worst <= tol, bound=bound)

    return rule


def _by_relative_change(inclusion: Inclusion, alpha: float, tol: float) -> Rule:
    # All samples pass only if the first few do: of large states an eighth is asked first, its change standing for all,
    # so that a look costs little; then the others by halves, which take half of the memory that all of them would.
    parts = _parts(inclusion.b, (1 / 8, 9 / 16))
    first = parts[0]
    B = inclusion.B if len(parts) == 1 else inclusion.B.samples(first)
    R_first, share = B.resolvent(alpha), math.sqrt(inclusion.b.shape[0] / max(1, first.stop))
    last: tuple[Array | None, Array | None] = (None, None)  # in consecutive checks the old z is known

    def rule(previous: Array, u: Array) -> _Check:
        nonlocal last
        z, old = R_first(u[first, ...]), last[1] if previous is last[0] else R_first(previous[first, ...])
        last, change = (u, z), z - old
        length, size = share * total_norm(change), share * total_norm(z)
        if not length <= tol * size:  # then some sample moved more than tol of its length
            return _Check(length, tol * size if math.isfinite(length) else 0.0, False)
        residual = _ratio(norm(change), norm(z))
        worst = largest(residual)
        for part in parts[1:] if worst <= tol else []:
            R_B = inclusion.B.samples(part).resolvent(alpha)
            residual = namespace(z).concat([residual, _change(R_B, previous[part, ...], u[part, ...])])
            worst = largest(residual)
            if not worst <= tol:
                break
        target = length * tol / max(worst, tol) if math.isfinite(worst) else 0.0
        whole = residual if worst <= tol else None
        return _Check(length, target, worst <= tol, z if len(parts) == 1 else None, whole)

    return rule


def _parts(x: Array, cuts: tuple[float, ...]) -> list[slice]:
    """The batch, cut at these shares of it where the states are large."""
    batch = x.shape[0]
    inner = {math.ceil(cut * batch) for cut in cuts} if math.prod(x.shape) >= LARGE else set()
    ends = sorted({0, *inner, batch})
    return [slice(*pair) for pair in itertools.pairwise(ends)] or [slice(0, 0)]


_RULES: dict[str, Callable[[Inclusion, float, float], Rule]] = {
    "certificate": _by_certificate,
    "relative-change": _by_relative_change,
}


class _Pace:
    """When to look next, and when to give up: where steps grow without end, or shrink no more and are down to rounding.

    A check reads the state back from its device and costs as much as the cheap half of a step, so that nine
    tenths of the iterations that the last rate predicts are run without one.
    """

    PATIENCE, LONGEST_PAUSE, GROWTH = 20, 16, 1e16

    def __init__(self) -> None:
        self.shortest, self.reached, self.state = math.inf, 0, "iterations"
        self.first, self.length, self.iteration = 0.0, math.nan, 0

    def pause(self, iteration: int, check: _Check) -> int:
        rate = (check.length / self.length) ** (1 / (iteration - self.iteration)) if self.length > 0 else math.nan
        self.length, self.iteration = check.length, iteration
        if not (0 < rate < 1 and 0 < check.target < check.length):
            return 0
        return min(int(math.log(check.target / check.length) / math.log(rate) * 0.9), self.LONGEST_PAUSE)

    def ended(self, iteration: int, length: float, u: Array) -> bool:
        self.first = self.first or length
        if not math.isfinite(length) or length > self.GROWTH * self.first:  # a convergent splitting's never grow
            self.state = "diverged"
            return True
        if length < 0.9 * self.shortest:
            self.shortest, self.reached = length, iteration
        # a quarter of the run: however slow the rate that made steps this short, it would have shown in that time
        patience = max(self.PATIENCE, iteration / 4)
        if iteration - self.reached >= patience and length <= 32 * eps(u) * total_norm(u):
            self.state = "floor"
            return True
        return False


def _cause(solution: Solution, tol: float, ending: str) -> str:
    """A sentence: what happened, why, and what to do."""
    worst, method = largest(solution.bound), solution.method
    if ending == "floor":
        wider = ", or pass float64 arrays" if eps(solution.z) > 1e-8 else ""
        return (
            f"{method} reached the floor of {solution.z.dtype}: the certified distance stays at {worst:.2g} > "
            f"tol = {tol:.2g}. Ask for tol >= {2 * worst:.1g}{wider}."
        )
    happened = (
        f"{method} diverged towards overflow: its steps had grown 1e16-fold after {solution.iterations} iterations"
        if ending == "diverged"
        else f"{method} did not reach tol = {tol:.2g} in max_iter = {solution.iterations} iterations; the certified "
        f"distance is {worst:.2g}"
    )
    try:
        remedy = _remedy(solution.inclusion, method, solution.alpha)
    except (ArithmeticError, ValueError):  # no inverse in the range: entries near the ends of the range
        remedy = "The problem is too ill-conditioned: raise m, or scale it."
    return f"{happened} (alpha = {solution.alpha:.4g}). {remedy}"


def _remedy(inclusion: Inclusion, method: str, alpha: float) -> str:
    L, limit, best_step, rate = _facts(inclusion)
    if method in ("picard", "forward-backward") and alpha >= limit:
        name = "Picard is forward-backward at alpha = 1, which" if method == "picard" else "Forward-backward"
        return (
            f"{name} is guaranteed only for alpha < {limit:.4g} [MON-Sec3.4-alpha]. Use peaceman-rachford, which "
            "converges for every alpha > 0, or forward-backward with alpha=None."
        )
    digit, best = _iterations_a_digit(rate(method, alpha)), _iterations_a_digit(rate("peaceman-rachford", best_step))
    if best > 1e6:
        return f"The problem is too ill-conditioned, L/m = {L / inclusion.m:.1e}: raise m."
    if digit < 1.5 * best:
        return f"It needs about {digit:.3g} iterations a digit: raise max_iter, or raise m."
    return (
        f"At this step it needs about {digit:.3g} iterations a digit, peaceman-rachford at alpha = {best_step:.3g} "
        f"about {best:.3g}: use that (alpha=None), or raise max_iter."
    )


def _facts(inclusion: Inclusion) -> tuple[float, float, float, Callable[[str, float], float]]:
    # L, the limit of forward-backward, the best step of Peaceman-Rachford and the factor of a method at a step: of
    # this operator where its spectrum is affordable, of its class elsewhere
    if rates.affordable(inclusion.W):
        G = rates.gap(inclusion.W)
        best_step = rates.search(G, inclusion.m, "peaceman-rachford")
        exact = functools.partial(rates.factor, G)
        return rates.constants(G)[1], rates.forward_backward_limit(G), best_step, exact
    W, m = inclusion.W, inclusion.m
    L, length = (rates.effective_lipschitz(W, m, method) for method in ("forward-backward", "peaceman-rachford"))

    def bound(method: str, alpha: float) -> float:
        return rates.class_factor(m, L if method in ("picard", "forward-backward") else length, method, alpha)

    return L, 2 * m / L**2, rates.best_alpha(W, "peaceman-rachford"), bound


def _iterations_a_digit(rate: float) -> float:
    return math.log(10) / -math.log(rate) if 0 < rate < 1 else (1.0 if rate <= 0 else math.inf)
