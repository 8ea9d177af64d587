r"""How far is this state from the equilibrium? Bounds computed from the state alone.

All rest on one line. If ``z = R_B(w)`` with step 1 then ``w - z in B(z)``, so ``e = A(z) + w - z = w - (W z + b)``
is an element of (A + B)(z). A + B is m-strongly monotone and has 0 at z*, hence ``||z - z*|| <= ||e||/m``. For any w
this is C1; for ``w = z + (u - z)/alpha`` after a Peaceman-Rachford step it is C3; on the backward inclusion it is B1.
"""

from __future__ import annotations

import math

from ..arrays import Array, eps, in_double, largest, like, namespace, norm
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

    ``||e||/m`` plus what rounding may have hidden of e. Evaluated in float64 also for float32 states, where the
    device has it.

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
    length, hidden = norm(e), _rounding(wide, z, wide.W.frobenius() * norm(z))
    m = max(wide.m - eps(z) * (1 + wide.W.frobenius()), 1e-300)  # W was rounded when it was formed
    near_floor = largest(length) < 100 * largest(hidden)
    bound = _near_floor(wide, m, z, length) if near_floor else (length + hidden) / m
    if u_wide is u:
        return z, bound
    narrow = inclusion.B.prox(u, alpha)
    return narrow, like(u, bound + norm(in_double(narrow) - z)) * (1 + eps(u))


def _near_floor(inclusion: Inclusion, m: float, z: Array, length: Array) -> Array:
    r"""The bound where rounding matters, at the price of two more products.

    The smaller of C1 at the state's own w, ``||e||/m``, and C1 at ``w = W z + b``: there ``y = R_B(w)`` and
    ``e = W (z - y)``, so ``||z - y|| + ||e||/m``, which sees no more than z (u may be known less well than z).
    """
    xp, Wz = namespace(z), inclusion.W.matvec(z)
    y = inclusion.B.prox(Wz + inclusion.b, 1.0)
    hidden = _rounding(inclusion, z, norm(inclusion.W.magnitude().matvec(xp.abs(z))))
    return xp.minimum(length + hidden, m * norm(z - y) + norm(inclusion.W.matvec(z - y)) + hidden) / m


def _rounding(inclusion: Inclusion, z: Array, product: Array) -> Array:
    # An inner product of length n is off by about sqrt(n) eps/2 times the sum of magnitudes (the probabilistic model of
    # Higham and Mary, 2019); `product` bounds the norm of those sums. z = sigma(w) and the sum w - W z - b with
    # w close to W z + b add a few units of the last digit.
    n, unit = math.prod(z.shape[1:]), eps(z) / 2
    return unit * ((math.sqrt(n) + 4) * product + 3 * norm(z) + 3 * norm(inclusion.b))


def ball(inclusion: Inclusion, alpha: float, u: Array) -> tuple[Array, Array]:
    r"""Centre and radius of a ball that holds z*: ``z - e/(2m)`` and ``||e||/(2m)``, half of C1 [NEW-cert-C1].

    From ``m ||d||^2 <= <e, d>`` with d = z - z*: complete the square. Exact arithmetic assumed.
    """
    z, e = defect(inclusion, inclusion.B.root(u, alpha))
    return z - e / (2 * inclusion.m), norm(e) / (2 * inclusion.m)


def distance_from_state(inclusion: Inclusion, alpha: float, z: Array) -> tuple[Array, Array, Array]:
    r"""Certificate C2, from z alone [NEW-cert-C2].

    With ``r = z - R_B(z - alpha A(z))`` and ``y = z - r``:
    ``||y - z*|| <= ||(I - alpha G) r||/(alpha m)`` and
    ``||z - z*|| <= (q + sqrt(q^2 - 4 alpha m (1 + alpha mu) ||r||^2))/(2 alpha m)`` with
    ``q = ||(I + alpha G' + 2 alpha mu I) r||``, B being mu-strongly monotone and m the modulus of A + B.

    Returns
    -------
    y, bound of y, bound of z : array (batch, ...), array (batch,), array (batch,)
    """
    xp = namespace(z)
    r = z - inclusion.B.prox(z - alpha * inclusion.A(z), alpha)
    G_r, Gt_r = r - inclusion.W.matvec(r), r - inclusion.W.rmatvec(r)
    mu = getattr(inclusion.B, "strong", 0.0)
    q = norm((1 + 2 * alpha * mu) * r + alpha * Gt_r)
    inside = q * q - 4 * alpha * inclusion.m * (1 + alpha * mu) * norm(r) ** 2
    bound_z = (q + xp.sqrt(xp.where(inside > 0, inside, xp.zeros_like(inside)))) / (2 * alpha * inclusion.m)
    return z - r, norm(r - alpha * G_r) / (alpha * inclusion.m), bound_z


def distance_from_step(rho: float, u: Array, u_next: Array) -> Array:
    r"""``||u+ - u*|| <= rho/(1 - rho) ||u+ - u||`` for a rho-contraction; bounds ||z+ - z*|| too [NEW-cert-C3]."""
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
    r"""``||(I - JW)^-1 J|| <= 1/m``, ``||(I - W'J)^-1|| <= 1 + ||W||/m`` for every diagonal J in [0, I]
    [NEW-adjoint-norms].
    """
    return 1 / m, 1 + norm_W / m


def sensitivity(m: float, change: Array) -> Array:
    r"""``||z*(b + d) - z*(b)|| <= ||d||/m`` for every sample [NEW-sensitivity]."""
    return norm(change) / m
