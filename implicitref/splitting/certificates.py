r"""How far is this state from the equilibrium? Bounds computed from the state alone.

All rest on one line. If ``z = R_B(w)`` with step 1 then ``w - z in B(z)``, so ``e = A(z) + w - z = w - (W z + b)`` is an
element of (A + B)(z). A + B is m-strongly monotone and has 0 at z*, hence ``||z - z*|| <= ||e||/m``. For any w this is
C1; for ``w = z + (u - z)/alpha`` after a Peaceman-Rachford step it is C3; on the backward inclusion it is B1.
"""

from __future__ import annotations

import math

from ..arrays import Array, eps, in_double, like, namespace, norm
from .inclusion import Inclusion

__all__ = [
    "adjoint_norm_bounds",
    "adjoint_state_bound",
    "ball",
    "defect",
    "distance",
    "distance_from_state",
    "distance_from_step",
    "sensitivity",
]


def defect(inclusion: Inclusion, w: Array) -> tuple[Array, Array]:
    """``z = R_B(w)``, with step 1, and ``e = w - (W z + b)``, the element of (A + B)(z) that belongs to it; any w."""
    z = inclusion.B.prox(w, 1.0)
    return z, w - inclusion.W.matvec(z) - inclusion.b


def distance(inclusion: Inclusion, alpha: float, u: Array) -> tuple[Array, Array]:
    r"""z = R_B(u) and a bound on ``||z - z*||_2`` for every sample [NEW-cert-C1, NEW-cert-C3, NEW-cert-B1].

    The smaller of two. From u: ``||e||/m`` at the w with ``R_B(w) = z``. From z alone: at ``w = W z + b``, where
    ``y = R_B(w)`` and ``e = W (z - y)``, so ``||z - y|| + ||e||/m``; it reaches a lower floor where R_B contracts much
    and z is known better than u. To both is added what rounding may have hidden: an inner product of length n
    is off by about ``sqrt(n) eps/2`` times the sum of magnitudes (the probabilistic model of Higham and Mary,
    2019). Evaluated in float64 also for float32 states, where the device has it.

    Parameters
    ----------
    inclusion : Inclusion
    alpha : float, > 0
    u : array (batch, ...)

    Returns
    -------
    z : array like u
    bound : array (batch,)
    """
    wide, u_wide = in_double(inclusion), in_double(u)
    z, e = defect(wide, wide.B.root(u_wide, alpha))
    Wz = wide.W.matvec(z)
    y = wide.B.prox(Wz + wide.b, 1.0)
    hidden = _rounding(wide, z, Wz)
    from_u = (norm(e) + hidden) / wide.m
    from_z = norm(z - y) + (norm(wide.W.matvec(z - y)) + hidden) / wide.m
    bound = namespace(z).minimum(from_u, from_z)
    if u_wide is u:
        return z, bound
    narrow = inclusion.B.prox(u, alpha)
    return narrow, like(u, bound + norm(in_double(narrow) - z)) * (1 + eps(u))


def _rounding(inclusion: Inclusion, z: Array, Wz: Array) -> Array:
    # of the product W z, of z = sigma(w) in its last digits, and of the sum w - W z - b with w close to W z + b
    n, unit = math.prod(z.shape[1:]), eps(z) / 2
    product = inclusion.W.magnitude().matvec(namespace(z).abs(z))
    return unit * ((math.sqrt(n) + 4) * norm(product) + 3 * norm(z) + 3 * norm(inclusion.b))


def ball(inclusion: Inclusion, alpha: float, u: Array) -> tuple[Array, Array]:
    r"""Centre and radius of a ball that holds z*: ``z - e/(2m)`` and ``||e||/(2m)``, half of C1 [NEW-cert-C1].

    From ``m ||d||^2 <= <e, d>`` with d = z - z*: complete the square. Exact arithmetic assumed.
    """
    z, e = defect(inclusion, inclusion.B.root(u, alpha))
    return z - e / (2 * inclusion.m), norm(e) / (2 * inclusion.m)


def distance_from_state(inclusion: Inclusion, alpha: float, z: Array) -> tuple[Array, Array, Array]:
    r"""Certificate C2, from z alone [NEW-cert-C2].

    With ``r = z - R_B(z - alpha A(z))`` and ``y = z - r``:
    ``||y - z*|| <= ||(I - alpha G) r||/(alpha m)`` and, with ``q = ||(I + alpha G') r||``,
    ``||z - z*|| <= (q + sqrt(q^2 - 4 alpha m ||r||^2))/(2 alpha m)``.

    Returns
    -------
    y, bound of y, bound of z : array (batch, ...), array (batch,), array (batch,)
    """
    xp = namespace(z)
    r = z - inclusion.B.prox(z - alpha * inclusion.A(z), alpha)
    G_r, Gt_r = r - inclusion.W.matvec(r), r - inclusion.W.rmatvec(r)
    q = norm(r + alpha * Gt_r)
    inside = q * q - 4 * alpha * inclusion.m * norm(r) ** 2
    bound_z = (q + xp.sqrt(xp.where(inside > 0, inside, xp.zeros_like(inside)))) / (2 * alpha * inclusion.m)
    return z - r, norm(r - alpha * G_r) / (alpha * inclusion.m), bound_z


def distance_from_step(rho: float, u: Array, u_next: Array) -> Array:
    r"""``||u+ - u*|| <= rho/(1 - rho) ||u+ - u||`` for a rho-contraction, rho < 1; also bounds ||z+ - z*|| [NEW-cert-C3]."""
    return rho / (1 - rho) * norm(u_next - u)


def adjoint_state_bound(inclusion: Inclusion, norm_W: float, q: Array) -> Array:
    r"""B1's second half: ``||q - u*|| <= (1 + ||W||/m) ||e||`` for the q whose ``J q`` approximates dpre [NEW-cert-B1].

    Parameters
    ----------
    inclusion : Inclusion of Theorem 3, its B holding dz
    norm_W : float, ||W||_2
    q : array (batch, n), any approximation of u* = (I - J W)^-T dz
    """
    _, e = defect(inclusion, q - inclusion.B.dz)
    return (1 + norm_W / inclusion.m) * norm(e)


def adjoint_norm_bounds(m: float, norm_W: float) -> tuple[float, float]:
    r"""``||(I - JW)^-1 J|| <= 1/m`` and ``||(I - W'J)^-1|| <= 1 + ||W||/m`` for every diagonal 0 <= J <= I [NEW-adjoint-norms]."""
    return 1 / m, 1 + norm_W / m


def sensitivity(m: float, change: Array) -> Array:
    r"""``||z*(b + d) - z*(b)|| <= ||d||/m`` for every sample [NEW-sensitivity]."""
    return norm(change) / m
