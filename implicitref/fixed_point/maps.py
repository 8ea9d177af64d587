r"""Fixed-point maps ``T(z; x) = R(z, Q(x))``: what the iteration and the gradient rules ask of a network operator.

==========================  =================================================================================
``T(z, x)``                 the state after one application, shaped like z, sample by sample
``T.vjp_state(z, x, g)``    K' g, K = dT/dz at (z, x)
``T.vjp_params(z, x, g)``   gradient of ``sum_batch <g, T>`` for every parameter, a dict
``T.jvp_state(z, x, v)``    K v; optional, needed by CG on the normal equations only
``T.gamma``                 optional: a proven contraction factor in z, or None
``T.at(x)``                 optional: ``z -> T(z, x)`` with everything that depends on x alone computed once
``T.linearise(z, x)``       optional: K as a `Jacobian` with everything that K v and K' g share computed once
``T.norm(u)``               optional: the length of every sample of u, where not all of a sample is in u
==========================  =================================================================================

K v for a chain of layers: a linear layer is its own derivative (leave out the bias), an elementwise layer and batch
normalisation by given moments have diagonal Jacobians, so their own vjp serves.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from ..activations import Activation, leaky_relu
from ..arrays import Array, alongside, as_number, checked, eye, inner, namespace, owned, positive
from ..errors import HypothesisError, ShapeError
from ..layers import affine, affine_vjp_params
from ..splitting import Inclusion, rates
from ..splitting.iterations import MAPS
from .theory import spectral_norm

__all__ = [
    "ForwardBackward",
    "Jacobian",
    "LinearMap",
    "Map",
    "OneLayer",
    "PeacemanRachford",
    "at",
    "contraction",
    "dense_jacobian",
    "linearise",
]

identity = leaky_relu(1.0)


class Jacobian(NamedTuple):
    """K = dT/dz at one state for every sample, as a linear map: ``matvec(v) = K v``, ``rmatvec(g) = K' g``."""

    matvec: Callable[[Array], Array]
    rmatvec: Callable[[Array], Array]


def at(T: Any, x: Any) -> Callable[[Array], Array]:
    """``z -> T(z, x)``."""
    offered = getattr(T, "at", None)
    found: Callable[[Array], Array] = offered(x) if offered else lambda z: T(z, x)
    return found


def linearise(T: Any, z: Array, x: Any) -> Jacobian:
    """dT/dz at (z, x): what T itself offers, or its vjp and, where there is one, its jvp."""
    if offered := getattr(T, "linearise", None):
        found: Jacobian = offered(z, x)
        return found
    jvp = getattr(T, "jvp_state", None) or _no_jvp
    return Jacobian(functools.partial(jvp, z, x), functools.partial(T.vjp_state, z, x))


def _no_jvp(z: Array, x: Any, v: Array) -> Array:
    raise HypothesisError(
        "CG on the normal equations needs K v as well as K' v: T must offer jvp_state(z, x, v), and it offers "
        "vjp_state only. Add it, or use implicit('picard'), 'anderson' or 'dense', which need K' v only [JFB-Eq14]."
    )


def contraction(T: Any, gamma: Any = None) -> float | None:
    """The contraction factor to rely on: the argument, or T's own, or None [JFB-Asm2.1]."""
    gamma = getattr(T, "gamma", None) if gamma is None else gamma
    if gamma is None:
        return None
    number = as_number(gamma)
    if number is None or not 0 <= number < 1:
        raise HypothesisError(
            f"gamma must lie in [0, 1), a proven contraction factor of T in z [JFB-Asm2.1]; got {gamma!r}. "
            "Leave it out where none is proven: errors are then estimates."
        )
    return number


@dataclasses.dataclass(frozen=True, eq=False)
class Map:
    r"""A fixed-point map made of functions: the first three are needed, the others serve speed or certificates.

    Attributes
    ----------
    forward : callable ``(z, x) -> z``
    vjp_state : callable ``(z, x, g) -> K' g``
    vjp_params : callable ``(z, x, g) -> dict``
    jvp_state : callable ``(z, x, v) -> K v``, optional
    gamma : float in [0, 1), optional
        A proven contraction factor.
    at : callable ``x -> (z -> z)``, optional
    linearise : callable ``(z, x) -> Jacobian``, optional

    Examples
    --------
    >>> import numpy as np
    >>> T = Map(lambda z, x: z / 2 + x, lambda z, x, g: g / 2, lambda z, x, g: {"x": g}, gamma=0.5)
    >>> T(np.array([[2.0]]), np.array([[1.0]]))
    array([[2.]])
    """

    forward: Callable[[Array, Any], Array]
    vjp_state: Callable[[Array, Any, Array], Array]
    vjp_params: Callable[[Array, Any, Array], dict[str, Array]]
    jvp_state: Callable[[Array, Any, Array], Array] | None = None
    gamma: float | None = None
    at: Callable[[Any], Callable[[Array], Array]] | None = None
    linearise: Callable[[Array, Any], Jacobian] | None = None

    def __post_init__(self) -> None:
        contraction(self)

    def __call__(self, z: Array, x: Any) -> Array:
        """T(z; x)."""
        return self.forward(z, x)


def _vjp_state(T: Any, z: Array, x: Array, g: Array) -> Array:
    """K' g."""
    found: Array = T.linearise(z, x).rmatvec(g)
    return found


def _jvp_state(T: Any, z: Array, x: Array, v: Array) -> Array:
    """K v."""
    found: Array = T.linearise(z, x).matvec(v)
    return found


def _rows(z: Array, W: Array) -> Array:
    if z.ndim != 2 or z.shape[1] != W.shape[0]:
        raise ShapeError(f"z must have shape (batch, {W.shape[0]}); got {tuple(z.shape)}.")
    return z


@dataclasses.dataclass(frozen=True, eq=False)
class OneLayer:
    r"""``T(z; x) = sigma(W z + U x + b)``, parameters W, U, b.

    Parameters
    ----------
    W, U, b : array (n, n), (n, d), (n,)
    activation : Activation
        1-Lipschitz, 1/(1 + strong) where f is strongly convex; the identity is ``leaky_relu(1)``.

    Examples
    --------
    >>> import numpy as np, implicitref as ir
    >>> one = np.array([[1.0]])
    >>> T = OneLayer(one / 2, one, one[0], ir.activations.relu)
    >>> T(one, one), round(T.gamma, 12)
    (array([[2.5]]), 0.5)
    """

    W: Array
    U: Array
    b: Array
    activation: Activation = identity

    def __post_init__(self) -> None:
        W = checked("W", self.W, 2)
        U, b = (alongside(name, checked(name, getattr(self, name), axes), W) for name, axes in (("U", 2), ("b", 1)))
        if W.shape[0] != W.shape[1] or U.shape[0] != W.shape[0] or b.shape[0] != W.shape[0]:
            shapes = ", ".join(str(tuple(array.shape)) for array in (W, U, b))
            raise ShapeError(f"W, U, b must have shapes (n, n), (n, d), (n,); got {shapes}.")
        if not isinstance(self.activation, Activation):
            raise HypothesisError(f"activation must be one of implicitref.activations; got {self.activation!r}.")
        for name, value in {"W": W, "U": U, "b": b}.items():
            object.__setattr__(self, name, owned(value))

    @functools.cached_property
    def gamma(self) -> float | None:
        """``||W||_2/(1 + strong)`` where that is below 1, else None: no contraction is proven [JFB-Asm2.1]."""
        factor = spectral_norm(self.W) / (1 + self.activation.strong)
        return factor if factor < 1 else None

    @property
    def params(self) -> dict[str, Array]:
        """W, U, b by name."""
        return {"W": self.W, "U": self.U, "b": self.b}

    def __call__(self, z: Array, x: Array) -> Array:
        """sigma(W z + U x + b)."""
        return self.at(x)(z)

    def at(self, x: Array) -> Callable[[Array], Array]:
        """``z -> sigma(W z + injection)``, the injection U x + b computed once."""
        injection, Wt = affine(x, self.U, self.b), namespace(x).matrix_transpose(self.W)
        return lambda z: self.activation(_rows(z, self.W) @ Wt + injection)

    # With p = W z + U x + b, J = sigma'(p) and dp = J g: d<g, T> = <dp, W dz + dW z + dU x + db>, and K = J W.

    def linearise(self, z: Array, x: Array) -> Jacobian:
        """K = J W."""
        jac, Wt = self.slope(z, x), namespace(z).matrix_transpose(self.W)
        return Jacobian(lambda v: jac * (v @ Wt), lambda g: (jac * g) @ self.W)

    vjp_state, jvp_state = _vjp_state, _jvp_state

    def vjp_params(self, z: Array, x: Array, g: Array) -> dict[str, Array]:
        """dW = sum dp z', dU = sum dp x', db = sum dp."""
        dp = self.slope(z, x) * g
        dU, db = affine_vjp_params(x, dp)
        return {"W": affine_vjp_params(z, dp)[0], "U": dU, "b": db}

    def slope(self, z: Array, x: Array) -> Array:
        """J, the derivative of the activation at W z + U x + b."""
        return self.activation.derivative(affine(z, self.W, self.b) + affine(x, self.U))


@dataclasses.dataclass(frozen=True, eq=False)
class LinearMap:
    r"""``T(z; x) = K z + M' theta + x``, the map of which the theorems of FPN speak: K = dT/dz, M = dT/dtheta.

    Parameters
    ----------
    K : array (n, n)
    M : array (p, n), in the orientation of gradients [JFB-Eq17]
    theta : array (p,)
    """

    K: Array
    M: Array
    theta: Array

    @functools.cached_property
    def gamma(self) -> float | None:
        """``||K||_2`` where that is below 1."""
        factor = spectral_norm(self.K)
        return factor if factor < 1 else None

    def __call__(self, z: Array, x: Array) -> Array:
        """K z + M' theta + x."""
        return _rows(z, self.K) @ namespace(z).matrix_transpose(self.K) + self.theta @ self.M + x

    def linearise(self, z: Array, x: Array) -> Jacobian:
        """K."""
        return Jacobian(lambda v: v @ namespace(v).matrix_transpose(self.K), lambda g: g @ self.K)

    vjp_state, jvp_state = _vjp_state, _jvp_state

    def vjp_params(self, z: Array, x: Array, g: Array) -> dict[str, Array]:
        """dtheta = M g, summed over the batch."""
        xp = namespace(g)
        return {"theta": xp.sum(g @ xp.matrix_transpose(self.M), axis=0)}


@dataclasses.dataclass(frozen=True, eq=False)
class ForwardBackward:
    r"""The forward-backward step of a MON as T: ``T(z; x) = prox^alpha((1 - alpha) z + alpha (W z + x))``.

    x is the injection U d + b, (batch, n). With T = sigma(W z + x) instead a MON need not be a contraction, whatever
    the paper says [JFB-Sec1-mon-case].

    Parameters
    ----------
    W : operator, I - W >= m I
    activation : Activation
    alpha : float, optional
        By default the best provable step; a contraction below `rates.forward_backward_limit`.
    """

    W: Any
    activation: Activation
    alpha: float | None = None

    def __post_init__(self) -> None:
        _set_alpha(self, "forward-backward")

    @functools.cached_property
    def gamma(self) -> float | None:
        """``||I - alpha (I - W)||_2/(1 + alpha strong)`` where that is below 1, the bound of the class of W for large W
        [NEW-rate-fb].
        """
        factor = _mon_factor(self, rates.forward_backward, rates.forward_backward_class)
        factor /= 1 + self.alpha * self.activation.strong  # type: ignore[operator]
        return factor if factor < 1 else None

    def __call__(self, z: Array, x: Array) -> Array:
        """prox^alpha(z - alpha ((I - W) z - x))."""
        return self.activation.prox(self._pre(z, x), self.alpha)  # type: ignore[arg-type]

    # With p = z - alpha ((I - W) z - x), P = dprox^alpha(p), dp = P g: K = P (I - alpha (I - W)), and the gradient at
    # W z + x is alpha dp.

    def linearise(self, z: Array, x: Array) -> Jacobian:
        """K = P (I - alpha (I - W))."""
        P, alpha, W = self._slope(z, x), self.alpha, self.W

        def transposed(g: Array) -> Array:
            dp = P * g
            return dp - alpha * (dp - W.rmatvec(dp))

        return Jacobian(lambda v: P * (v - alpha * (v - W.matvec(v))), transposed)

    vjp_state, jvp_state = _vjp_state, _jvp_state

    def vjp_params(self, z: Array, x: Array, g: Array) -> dict[str, Array]:
        """As in MON: "injection", every parameter of W, and m."""
        return _mon_gradients(self.W, z, self.alpha * self._slope(z, x) * g)

    def _pre(self, z: Array, x: Array) -> Array:
        return z - self.alpha * (z - self.W.matvec(z) - x)

    def _slope(self, z: Array, x: Array) -> Array:
        return self.activation.derivative(self._pre(z, x), self.alpha)  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True, eq=False)
class PeacemanRachford:
    r"""The Peaceman-Rachford step of a MON as T: ``T(u; x) = C_A C_B u``, a contraction for every alpha > 0.

    The state is u; the equilibrium is ``z = read(u) = prox^alpha(u)``. x is the injection, (batch, n).

    Parameters
    ----------
    W : operator, I - W >= m I
    activation : Activation
    alpha : float, optional
        By default the best provable step.
    """

    W: Any
    activation: Activation
    alpha: float | None = None

    def __post_init__(self) -> None:
        _set_alpha(self, "peaceman-rachford")

    @functools.cached_property
    def gamma(self) -> float | None:
        """``||(I - alpha G)(I + alpha G)^-1||_2``, G = I - W; the bound of the class of W for large W [NEW-rate-pr]."""
        factor = _mon_factor(self, rates.peaceman_rachford, rates.peaceman_rachford_class)
        return factor if factor < 1 else None

    def __call__(self, u: Array, x: Array) -> Array:
        """2 V (2 z - u + alpha x) - (2 z - u), z = prox^alpha(u)."""
        return self.at(x)(u)

    def at(self, x: Array) -> Callable[[Array], Array]:
        """The map of the splitting module, C_A and C_B made once."""
        inclusion = Inclusion(self.W, x, self.activation, self.W.m + self.activation.strong)
        return MAPS["peaceman-rachford"](inclusion, self.alpha)  # type: ignore[arg-type]

    def read(self, u: Array) -> Array:
        """z = prox^alpha(u)."""
        return self.activation.prox(u, self.alpha)  # type: ignore[arg-type]

    def read_vjp(self, u: Array, dz: Array) -> Array:
        """The cotangent at u of a loss whose cotangent at z = read(u) is dz."""
        return self.activation.derivative(u, self.alpha) * dz  # type: ignore[arg-type]

    # With P = dprox^alpha(u), y = 2 z - u, z_half = V (y + alpha x), u+ = 2 z_half - y, C = 2 V - I: K = C (2 P - I).
    # V = (I + alpha (I - W))^-1, so dz_half = alpha V (dW z_half + dx): the gradient at W z_half + x is 2 alpha V' g.

    def linearise(self, u: Array, x: Array) -> Jacobian:
        """K = (2 V - I)(2 P - I)."""
        C = self.W.resolvent(self.alpha).cayley()
        reflection = 2 * self.activation.derivative(u, self.alpha) - 1  # type: ignore[arg-type]
        return Jacobian(lambda v: C.matvec(reflection * v), lambda g: reflection * C.rmatvec(g))

    vjp_state, jvp_state = _vjp_state, _jvp_state

    def vjp_params(self, u: Array, x: Array, g: Array) -> dict[str, Array]:
        """As in MON: "injection", every parameter of W, and m."""
        V = self.W.resolvent(self.alpha)
        z_half = V.matvec(2 * self.read(u) - u + self.alpha * x)
        return _mon_gradients(self.W, z_half, 2 * self.alpha * V.rmatvec(g))  # type: ignore[operator]


def _set_alpha(T: Any, method: str) -> None:
    alpha = rates.best_alpha(T.W, method) if T.alpha is None else positive("alpha", T.alpha)
    object.__setattr__(T, "alpha", alpha)


def _mon_factor(T: Any, exact: Callable[..., float], of_class: Callable[..., float]) -> float:
    if T.W.size <= rates.EXACT_UP_TO:
        return exact(rates.gap(T.W), T.alpha)
    return of_class(T.W.m, T.W.lipschitz(), T.alpha)


def _mon_gradients(W: Any, z: Array, dpre: Array) -> dict[str, Array]:
    # d<loss> = <dpre, dW z + dinjection>, and dW/dm = -I
    return {"injection": dpre, **W.vjp(z, dpre), "m": -inner(dpre, z)}


def dense_jacobian(T: Any, z: Array, x: Any) -> Array:
    """K for every sample, (batch, n, n), by n applications of K' to unit vectors: row i of K is K' e_i."""
    xp, K, batch, n = namespace(z), linearise(T, z, x), z.shape[0], math.prod(z.shape[1:])
    unit = eye(n, z)
    rows = [K.rmatvec(xp.reshape(xp.broadcast_to(unit[i, :], (batch, n)), z.shape)) for i in range(n)]
    return xp.stack([xp.reshape(row, (batch, n)) for row in rows], axis=1)
