r"""Gradient rules: functions ``(T, z, x, g) -> w`` that turn the cotangent g at z* into one at the output of T.

Every rule approximates ``w = (I - K')^-1 g``, K = dT/dz at z*, and one line does the rest:
``T.vjp_params(z, x, rule(T, z, x, g))``. The exact w gives the gradient [JFB-Eq13, JFB-Eq14], w = g is
Jacobian-free backpropagation [JFB-Eq16], k terms more of the Neumann series lie between [JFB-Eq22]. The preconditioner
and the gradient are as in (13), (14) with K transposed where the papers' row vectors leave it to the reader.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, all_finite, alongside, checked, count, eye, like, namespace, norm, positive, quiet
from ..errors import HypothesisError, ShapeError
from .driver import Method, Run, Solution, drive, over, solution_of, verdict
from .iteration import iterate
from .maps import Jacobian, contraction, dense_jacobian, linearise

__all__ = ["Implicit", "Rule", "gradients", "implicit", "jfb", "neumann", "rule_named"]

Rule = Callable[[Any, Array, Any, Array], Array]


def jfb(T: Any, z: Array, x: Any, g: Array) -> Array:
    """w = g: the Jacobian is left out. The direction p is minus the result [JFB-Eq16, FPN-Eq13]."""
    return g


def neumann(k: int) -> Rule:
    r"""``w = sum_{i <= k} (K')^i g``: backpropagation through k + 1 steps from z*; neumann(0) is jfb [JFB-Eq22].

    Its error is at most ``gamma^(k+1)/(1 - gamma) ||g||`` [JFB-Eq22], and it is a descent direction under a weaker
    condition than jfb's [NEW-neumann-descent], see `theory.descent_threshold`.
    """
    k = count("k", k, 0, ", the number of powers of K' [JFB-Eq22]")

    def rule(T: Any, z: Array, x: Any, g: Array) -> Array:
        if k == 0:
            return g
        K, w = linearise(T, z, x), g
        for _ in range(k):
            w = g + K.rmatvec(w)
        return w

    return rule


@dataclasses.dataclass(frozen=True)
class Implicit:
    """The exact w, to a tolerance: a rule, and `solve`, which also tells how it was found. Made by `implicit`."""

    solver: str
    tol: float
    max_iter: int
    stop: str

    def __call__(self, T: Any, z: Array, x: Any, g: Array) -> Array:
        """W with (I - K') w = g."""
        return _dense(T, z, x, g) if self.solver == "dense" else self.solve(T, z, x, g).z

    def solve(self, T: Any, z: Array, x: Any, g: Array) -> Solution:
        """As a `Solution`: z is w; residuals ``||g - (I - K') w||`` and bound are in units of every sample's ||g||
        (stop = "absolute": residuals of the normal equations, as they are).
        """
        if self.solver == "dense":
            raise HypothesisError("The dense solver is direct and has no Solution: call the rule itself.")
        return _SOLVERS[self.solver](self, T, z, x, g)


def implicit(solver: str = "picard", *, tol: float = 1e-6, max_iter: int = 1000, stop: str = "relative") -> Implicit:
    r"""The gradient of the implicit function theorem, ``(I - K') w = g`` for every sample [JFB-Eq13, JFB-Eq14].

    Parameters
    ----------
    solver : {"picard", "anderson", "cgnr", "dense"}
        ``w+ = g + K' w`` (certified where gamma is known), the same accelerated, CG on the normal equations as in
        the papers (needs K v), or a dense factorisation, the oracle.
    tol : float, > 0
    max_iter : int, >= 1
    stop : {"relative", "absolute"}
        "relative": every sample's ``||g - (I - K') w|| <= tol ||g||``; with gamma known, ``||w - w*|| <= tol ||g||``.
        "absolute", for "cgnr" only, is the papers' rule, ``||(I - K)(g - (I - K') w)|| <= tol`` looked at after every
        step. On a mean loss g shrinks with the batch, and their tol = 0.1 stops after one step [JFB-Tab2].

    Raises
    ------
    HypothesisError, and ConvergenceError when the rule is applied.

    Examples
    --------
    >>> import numpy as np
    >>> from implicitref.fixed_point import LinearMap
    >>> T = LinearMap(np.array([[0.5]]), np.array([[1.0]]), np.array([0.0]))
    >>> z = x = g = np.array([[1.0]])
    >>> gradients(T, z, x, g, implicit("dense")), gradients(T, z, x, g, jfb)
    ({'theta': array([2.])}, {'theta': array([1.])})
    """
    if not isinstance(solver, str) or solver not in (*_SOLVERS, "dense"):
        raise HypothesisError(f"solver must be one of {', '.join(_SOLVERS)}, dense; got {solver!r}.")
    if not isinstance(stop, str) or stop not in ("relative", "absolute") or (stop == "absolute" and solver != "cgnr"):
        raise HypothesisError(f"stop must be 'relative', or 'absolute' with solver='cgnr'; got {stop!r}.")
    return Implicit(solver, positive("tol", tol), max_iter, stop)


def gradients(T: Any, z: Array, x: Any, g: Array, rule: Rule | str) -> dict[str, Array]:
    r"""Gradient of the loss for every parameter of T, as the rule approximates it [JFB-Eq14, FPN-Eq11].

    Parameters
    ----------
    T : fixed-point map
    z : array (batch, ...), its fixed points
    x : array (batch, ...)
    g : array like z
        Gradient of the loss with respect to z.
    rule : function ``(T, z, x, g) -> w``, or its name, see `rule_named`

    Raises
    ------
    TypeError, ShapeError, HypothesisError
    """
    z = checked("z", z)
    g = alongside("g", checked("g", g), z)
    if tuple(g.shape) != tuple(z.shape):
        raise ShapeError(f"g must have the shape of z, {tuple(z.shape)}; got {tuple(g.shape)}.")
    rule = rule_named(rule) if isinstance(rule, str) else rule
    if not callable(rule):
        raise HypothesisError(f"rule must be a function (T, z, x, g) -> cotangent, or its name; got {rule!r}.")
    with quiet():
        found: dict[str, Array] = T.vjp_params(z, x, rule(T, z, x, g))
    for name, gradient in found.items():
        if not all_finite(gradient):
            raise HypothesisError(f"the gradient of {name} must be finite; it overflows {g.dtype}. Scale g or z down.")
    return found


def rule_named(name: str) -> Rule:
    """The rule called "jfb", "neumann:k", "implicit" or "implicit:solver", as on the command line."""
    head, _, tail = name.partition(":") if isinstance(name, str) else ("", "", "")
    if head == "neumann" and tail.isdecimal():
        return neumann(int(tail))
    if name == "jfb":
        return jfb
    if head == "implicit" and (not tail or tail in (*_SOLVERS, "dense")):
        return implicit(tail or "picard")
    raise HypothesisError(f"rule must be jfb, neumann:k, implicit or implicit:solver (picard, ...); got {name!r}.")


# ------------------------------------------------------------------------------------------------
# Solvers of (I - K') w = g


class _Adjoint(NamedTuple):
    """``T(w; z, x, g) = g + K' w``, whose fixed point is w: as contractive as T itself."""

    T: Any
    gamma: float | None

    def __call__(self, w: Array, data: Any) -> Array:
        return self.at(data)(w)

    def at(self, data: Any) -> Callable[[Array], Array]:
        z, x, g = data
        K = linearise(self.T, z, x)
        return lambda w: g + K.rmatvec(w)


def _by_iteration(rule: Implicit, T: Any, z: Array, x: Any, g: Array) -> Solution:
    # solved for g/||g||, so that the tolerance is relative and tiny cotangents lose nothing
    unit, length = _unit(g)
    acceleration = None if rule.solver == "picard" else rule.solver
    adjoint = _Adjoint(T, contraction(T))
    solution = iterate(adjoint, (z, x, unit), unit, tol=rule.tol, max_iter=rule.max_iter, acceleration=acceleration)
    return dataclasses.replace(solution, z=solution.z * length)


def _unit(g: Array) -> tuple[Array, Array]:
    xp, length = namespace(g), norm(g)
    length = over(xp.where(length > 0, length, xp.ones_like(length)), g)
    return g / length, length


class _CGState(NamedTuple):
    """w, r = g - (I - K') w, s = (I - K) r, the search direction and ||s||^2."""

    z: Array
    r: Array
    s: Array
    p: Array
    ss: Array


def _cgnr_start(F: tuple[Jacobian, Array], w: Array) -> _CGState:
    K, g = F
    r = g - w + K.rmatvec(w)
    s = r - K.matvec(r)
    return _cgnr_step(F, _CGState(w, r, s, s, _square(s)))


def _cgnr_step(F: tuple[Jacobian, Array], state: _CGState) -> _CGState:
    # Hestenes and Stiefel on A'A w = A'g with A = I - K': r is the residual of A w = g, s = A'r that of the normal
    # equations, and A'A is never formed.
    K, (w, r, s, p, ss) = F[0], state
    q = p - K.rmatvec(p)
    alpha = _quotient(ss, _square(q))
    w, r = w + over(alpha, w) * p, r - over(alpha, w) * q
    s = r - K.matvec(r)
    ss_next = _square(s)
    return _CGState(w, r, s, s + over(_quotient(ss_next, ss), w) * p, ss_next)


def _square(s: Array) -> Array:
    return norm(s) ** 2


def _quotient(a: Array, b: Array) -> Array:
    xp = namespace(a)
    return xp.where(b > 0, a / xp.where(b > 0, b, xp.ones_like(b)), xp.zeros_like(a))


def _by_cgnr(rule: Implicit, T: Any, z: Array, x: Any, g: Array) -> Solution:
    absolute, gamma = rule.stop == "absolute", contraction(T)
    rhs, scale = (g, like(g, 1.0)) if absolute else _unit(g)
    method = Method(
        lambda data: (linearise(T, data[0], data[1]), data[2]),
        _cgnr_start,
        _cgnr_step,
        lambda state: norm(state.s if absolute else state.r),
    )
    limit = np.full(z.shape[0], rule.tol * (1 - (0.0 if absolute else gamma or 0.0)))
    run: Run = drive(method, (z, x, rhs), rhs, limit, rule.max_iter)
    solution = solution_of(run, None if absolute else gamma)
    return verdict(dataclasses.replace(solution, z=solution.z * scale), run, rule.tol, "CG on the normal equations")


def _dense(T: Any, z: Array, x: Any, g: Array) -> Array:
    xp, K = namespace(z), dense_jacobian(T, z, x)
    A = eye(K.shape[1], K) - xp.matrix_transpose(K)
    return xp.reshape(xp.linalg.solve(A, xp.reshape(g, (z.shape[0], -1, 1))), z.shape)


_SOLVERS: dict[str, Callable[..., Solution]] = {
    "picard": _by_iteration,
    "anderson": _by_iteration,
    "cgnr": _by_cgnr,
}
