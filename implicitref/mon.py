r"""Monotone operator equilibrium networks: Theorems 1 to 3 of Winston and Kolter (MON), Algorithms 1 to 4.

``z* = sigma(W z* + U x + b)`` with ``I - W >= m I``. Theorem 1 and Theorem 3 each return an `Inclusion`; the four
algorithms are two inclusions times two splittings.

=================  ==========================  ===========================
                   forward-backward            Peaceman-Rachford
=================  ==========================  ===========================
equilibrium        Algorithm 1                 Algorithm 2
equilibrium_vjp    Algorithm 3                 Algorithm 4
=================  ==========================  ===========================
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

from .activations import Activation, ZeroBorder
from .arrays import (
    LARGE,
    Array,
    alongside,
    checked,
    each,
    eye,
    inner,
    leaves,
    like,
    memoised,
    namespace,
    owned,
    place,
    zeros_alike,
)
from .errors import HypothesisError, ShapeError
from .operators import Transpose
from .operators.linear import batch_of
from .splitting import Inclusion, Solution, rates, solve

__all__ = [
    "AdjointProx",
    "adjoint",
    "adjoint_state",
    "backward_inclusion",
    "equilibrium",
    "equilibrium_vjp",
    "forward_inclusion",
    "implicit_matrix",
]


def forward_inclusion(W: Any, injection: Array, activation: Activation | ZeroBorder) -> Inclusion:
    r"""Theorem 1 [MON-Thm1]: z* is the zero of ``A(z) = (I - W) z - (U x + b)`` plus ``B = df`` (eq. 3).

    Holds for the set of solutions, with any step alpha, where sigma = prox^1_f. f may be strongly convex (sigmoid),
    which adds to m [NEW-strong-prox].

    Parameters
    ----------
    W : operator, I - W >= m I
    injection : array (batch, n)
        U x + b.
    activation : Activation

    Raises
    ------
    ShapeError, HypothesisError
    """
    injection, sigma = _states("injection", W, injection), _activation(activation)
    return Inclusion(_operator(W, injection), injection, sigma, W.m + sigma.strong)


def backward_inclusion(W: Any, jac: Array, dz: Array) -> Inclusion:
    r"""Theorem 3 [MON-Thm3]: dpre = u-tilde is the zero of ``A(u) = (I - W') u`` plus ``B(u) = D u - v`` (eq. 20).

    ``J = (I + D)^-1``, J_ii = 0 allowed (u-tilde_i = 0), W may be singular. The zero is ``J u*``, the gradient at the
    pre-activation [NEW-backward-zero]; u* itself is ``v + W' u-tilde`` (eq. 19), see `adjoint_state`.

    Parameters
    ----------
    W : operator
    jac : array (batch, n), in [0, 1]
        Clarke Jacobian of sigma at the pre-activation.
    dz : array (batch, n)
        v, the cotangent at z*.

    Raises
    ------
    ShapeError, HypothesisError
    """
    dz = _states("dz", W, dz)
    jac, xp = owned(_same("jac", jac, dz, "dz"), W.memory), namespace(dz)
    if not bool(xp.all((jac >= 0) & (jac <= 1))):
        raise HypothesisError("jac must lie in [0, 1], as the slopes of every prox do [MON-Thm3].")
    return _backward_inclusion(_operator(W, dz), jac, dz)


def _backward_inclusion(W: Any, jac: Array, dz: Array) -> Inclusion:
    return Inclusion(Transpose(W), zeros_alike(dz), AdjointProx(jac, dz), W.m)


@dataclasses.dataclass(frozen=True, eq=False)
class AdjointProx:
    r"""``B(u) = D u - v`` of eq. 20, written with ``J = (I + D)^-1`` so that J = 0 needs no branch.

    The printed resolvent (24), (25) and Algorithms 3, 4 divide by ``1 + alpha (1 + D)``; correct is ``1 + alpha D``
    [MON-Eq24]. n = 1, W = 1/2, J = 1, v = 1: the truth is 2, as printed 2/3.
    """

    jac: Array
    dz: Array

    def samples(self, part: slice) -> AdjointProx:
        """The same for some samples of the batch."""
        return AdjointProx(self.jac[part, ...], self.dz[part, ...])

    def prox(self, u: Array, alpha: float = 1.0) -> Array:
        """(u + alpha v)/(1 + alpha D) = J (u + alpha v)/(J + alpha (1 - J))."""
        return self.resolvent(alpha)(u)

    def resolvent(self, alpha: float) -> Callable[[Array], Array]:
        """u -> prox^alpha(u) = s u + t."""
        return _line(*self._line(alpha))

    def _line(self, alpha: float) -> tuple[Array, Array]:
        return self._kept_line(alpha) if math.prod(self.dz.shape) < LARGE else self._slope_and_intercept(alpha)

    @memoised
    def _kept_line(self, alpha: float) -> tuple[Array, Array]:
        return self._slope_and_intercept(alpha)

    def _slope_and_intercept(self, alpha: float) -> tuple[Array, Array]:
        s = self.jac / (self.jac + alpha * (1 - self.jac))
        return s, s * (alpha * self.dz)

    def root(self, u: Array, alpha: float) -> Array:
        """w with prox^alpha(u) = prox^1(w) = J (w + v)."""
        return (u + alpha * self.dz) / (self.jac + alpha * (1 - self.jac)) - self.dz

    def reflection(self, alpha: float) -> Callable[[Array], Array]:
        """u -> 2 prox^alpha(u) - u = (2 s - 1) u + 2 t, one product and one sum."""
        s, t = self._line(alpha)
        slope = 2 * s
        slope -= 1  # a fresh array
        return _line(slope, 2 * t)


def _line(slope: Array, intercept: Array) -> Callable[[Array], Array]:
    def line(u: Array) -> Array:
        result = slope * u
        result += intercept  # a fresh array, nobody else holds it
        return result

    return line


def equilibrium(
    W: Any,
    injection: Array,
    activation: Activation | ZeroBorder,
    *,
    method: str = "peaceman-rachford",
    alpha: float | None = None,
    tol: float = 1e-6,
    max_iter: int = 1000,
    start: Array | None = None,
    stop: str = "certificate",
    keep: bool = False,
) -> Solution:
    r"""The equilibrium ``z* = sigma(W z* + injection)`` [MON-Alg1, MON-Alg2], with prox^alpha where they print sigma.

    Parameters
    ----------
    W : operator
    injection : array (batch, n)
        U x + b.
    activation : Activation
    method : {"peaceman-rachford", "forward-backward", "douglas-rachford", "picard"}
    alpha : float, optional
        Step > 0; by default the best provable one [NEW-best-alpha]. Forward-backward is guaranteed below
        `rates.forward_backward_limit`; larger steps are tried, and end in ConvergenceError where they fail.
    tol : float
        Certified ``||z - z*||_2`` of every sample, absolute.
    max_iter : int
    start : array like injection, optional
        u to start from (`Solution.u` of an earlier solve); 0 by default.
    stop : {"certificate", "relative-change"}
        The papers' relative-change rule accepts non-solutions [NEW-stopping-fooled].
    keep : bool
        Keep every iterate in `Solution.states`.

    Raises
    ------
    ShapeError, HypothesisError, ConvergenceError

    Examples
    --------
    >>> import numpy as np, implicitref as ir
    >>> W = ir.operators.MonotoneDense(np.array([[1.0]]), np.array([[0.0]]), m=1.0)   # W = -1
    >>> ir.mon.equilibrium(W, np.array([[1.0]]), ir.activations.relu).z               # z = relu(1 - z)
    array([[0.5]])
    """
    inclusion = forward_inclusion(W, injection, activation)
    b = inclusion.b
    start = zeros_alike(b) if start is None else owned(_same("start", start, b), W.memory)
    alpha = rates.best_alpha(inclusion.W, method) if alpha is None else alpha
    return solve(inclusion, start, method=method, alpha=alpha, tol=tol, max_iter=max_iter, stop=stop, keep=keep)


def equilibrium_vjp(
    W: Any,
    injection: Array,
    activation: Activation | ZeroBorder,
    z: Array,
    dz: Array,
    *,
    method: str = "peaceman-rachford",
    alpha: float | None = None,
    tol: float = 1e-6,
    max_iter: int = 1000,
    start: Array | None = None,
    stop: str = "certificate",
    pre: Array | None = None,
) -> tuple[dict[str, Array], Solution]:
    r"""Gradients through the equilibrium: Theorem 2 by Theorem 3, Algorithms 3 and 4 corrected [MON-Alg3, MON-Alg4].

    Parameters
    ----------
    W, injection, activation, method, alpha, tol, max_iter, start, stop
        As in `equilibrium`; tol certifies ``||dpre - dpre*||_2`` at the given z.
    z : array (batch, n)
        The equilibrium.
    dz : array (batch, n)
        Gradient of the loss at z.
    pre : array (batch, n), optional
        The pre-activation W z + injection where it is known, as ``activation.root(u, alpha)`` of the forward solve.

    Returns
    -------
    grads : dict
        "injection" (= dpre, per sample), "m", and every parameter of W, summed over the batch.
    solution : Solution
        Its z is dpre.

    Examples
    --------
    >>> import numpy as np, implicitref as ir
    >>> W = ir.operators.MonotoneDense(np.array([[1.0]]), np.array([[0.0]]), m=1.0)
    >>> b, one = np.array([[1.0]]), np.array([[1.0]])
    >>> grads, _ = ir.mon.equilibrium_vjp(W, b, ir.activations.relu, np.array([[0.5]]), one)
    >>> grads["injection"], grads["A"]               # z = b/2 = b/(1 + A^2)
    (array([[0.5]]), array([[-0.5]]))
    """
    # z = sigma(p), p = W z + injection: d<loss> = <dpre, dW z + dinjection> with dpre the gradient at p
    injection = _checked_states("injection", W, injection)
    W, z = _operator(W, injection), _same("z", z, injection)
    pre = _preactivation(W, injection, z) if pre is None else _same("pre", pre, injection)
    jac, dz = _activation(activation).derivative(pre), _same("dz", dz, injection)
    start = None if start is None else _same("start", start, injection)
    del pre  # of the size of a state
    options: dict[str, Any] = {"method": method, "alpha": alpha, "tol": tol, "max_iter": max_iter, "stop": stop}
    solution = _adjoint(W, _backward_inclusion(W, jac, owned(dz, W.memory)), start, **options)
    dpre = solution.z
    return {"injection": dpre, **W.vjp(z, dpre), "m": -inner(dpre, z)}, solution


def adjoint(
    W: Any,
    jac: Array,
    dz: Array,
    *,
    method: str = "peaceman-rachford",
    alpha: float | None = None,
    tol: float = 1e-6,
    max_iter: int = 1000,
    start: Array | None = None,
    stop: str = "certificate",
) -> Solution:
    r"""dpre = u-tilde, the zero of Theorem 3's inclusion, by Algorithms 3 and 4 corrected [MON-Alg3, MON-Alg4].

    Arguments as in `backward_inclusion` and `equilibrium`; the z of the solution is dpre.

    Examples
    --------
    >>> import numpy as np, implicitref as ir
    >>> W = ir.operators.MonotoneDense(np.array([[1.0]]), np.array([[0.0]]), m=1.0)
    >>> ir.mon.adjoint(W, np.array([[1.0]]), np.array([[1.0]])).z        # dz + W' dpre = dpre
    array([[0.5]])
    """
    # dz + W' dpre is the whole gradient at z, so dpre = J (dz + W' dpre), which is (20): (I - W') dpre + D dpre = dz
    options: dict[str, Any] = {"method": method, "alpha": alpha, "tol": tol, "max_iter": max_iter, "stop": stop}
    inclusion = backward_inclusion(W, jac, dz)
    return _adjoint(_operator(W, inclusion.b), inclusion, start, **options)


def _adjoint(W: Any, inclusion: Inclusion, start: Array | None, **options: Any) -> Solution:
    b = inclusion.b
    start = b if start is None else owned(_same("start", start, b, "dz"), W.memory)
    alpha = rates.best_alpha(W, options["method"]) if options["alpha"] is None else options["alpha"]
    return solve(inclusion, start, **(options | {"alpha": alpha}))


def _preactivation(W: Any, injection: Array, z: Array) -> Array:
    pre = W.matvec(z)
    pre += injection  # a fresh array, which keeps the memory order of states
    return pre


def adjoint_state(W: Any, dpre: Array, dz: Array) -> Array:
    r"""``u* = (I - JW)^-T v = v + W' u-tilde`` [MON-Eq18, MON-Eq19]. Algorithms 3 and 4 return u-tilde, not u*."""
    return dz + W.rmatvec(dpre)


def implicit_matrix(W: Array, jac: Array) -> Array:
    r"""``(I - JW)^-1 J`` for one sample, the derivative of z* by the pre-activation's injection (Theorem 2, eq. 11).

    Dense, O(n^3): the reference that the splittings are compared with.

    Parameters
    ----------
    W : array (n, n)
    jac : array (n,)
    """
    identity = eye(W.shape[0], W)
    return namespace(W, jac).linalg.solve(identity - jac[:, None] * W, identity * jac)


def _states(name: str, W: Any, x: Array) -> Array:
    # a copy: a Solution computes its history when asked, and later writes by the caller must not reach it
    return owned(_checked_states(name, W, x), W.memory)


def _checked_states(name: str, W: Any, x: Array) -> Array:
    for needed in ("matvec", "rmatvec", "resolvent", "m", "memory"):
        if not hasattr(W, needed):
            raise TypeError(f"W must be an operator of implicitref.operators; got {type(W).__name__}.")
    return batch_of(name, checked(name, x), W.state_shape)


def _operator(W: Any, injection: Array) -> Any:
    # results follow the injection: an operator of another dtype or device is converted, once, and keeps its factors
    first = leaves(next(iter(W.params.values())))[0]
    if alongside("W", first, injection) is first:
        return W
    known = W.__dict__.setdefault("_moved", {})
    if place(injection) not in known:
        known[place(injection)] = W.replace(
            **{name: each(functools.partial(like, injection), p) for name, p in W.params.items()}
        )
    return known[place(injection)]


def _same(name: str, x: Array, first: Array, called: str = "injection") -> Array:
    x = checked(name, x)
    if tuple(x.shape) != tuple(first.shape):
        raise ShapeError(f"{name} must have the shape of {called}, {tuple(first.shape)}; got {tuple(x.shape)}.")
    return alongside(name, x, first)


def _activation(activation: Any) -> Activation | ZeroBorder:
    if not isinstance(activation, (Activation, ZeroBorder)):
        raise HypothesisError(f"activation must be one of implicitref.activations; got {activation!r}.")
    return activation
