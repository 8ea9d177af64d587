r"""Splittings as infinite generators of `State`, and each as one map ``u -> u+`` for the driver.

The generators are the algorithms line by line. The maps are the same iterations written with Cayley
operators, ``u+ = C_A C_B u`` (MON eq. A10); tests step both together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..arrays import Array, checked
from ..errors import ShapeError
from .inclusion import Inclusion, State

__all__ = ["MAPS", "douglas_rachford", "forward_backward", "peaceman_rachford", "picard"]


def forward_backward(inclusion: Inclusion, alpha: float, z: Array) -> Iterator[State]:
    r"""``z+ = R_B(z - alpha A(z))`` (MON eq. A9; Algorithms 1 and 3).

    Converges for every B iff ``alpha < lambda_min(G^-1 + G^-T)``, G = I - W; ``alpha < 2m/L^2`` suffices
    (strictly: the paper's section 3.4 prints <=) [MON-Sec3.4-alpha].
    """
    R_B, z = inclusion.resolvent_B(alpha), _start("z", inclusion, z)
    while True:
        u = z - alpha * inclusion.A(z)
        z = R_B(u)
        yield State(z, u)


def peaceman_rachford(inclusion: Inclusion, alpha: float, u: Array) -> Iterator[State]:
    r"""Algorithms 2 and 4 of MON (eq. 9 with + alpha (U x + b): the printed minus sign is wrong).

    Converges for every alpha > 0 where A is Lipschitz and strongly monotone [MON-EqA10].
    """
    R_A, R_B, u = inclusion.resolvent_A(alpha), inclusion.resolvent_B(alpha), _start("u", inclusion, u)
    z = R_B(u)
    while True:
        u_half = 2 * z - u
        z_half = R_A(u_half)
        u = 2 * z_half - u_half
        z = R_B(u)
        yield State(z, u)


def douglas_rachford(inclusion: Inclusion, alpha: float, u: Array) -> Iterator[State]:
    r"""Peaceman-Rachford averaged with the identity: ``u+ = (u + C_A C_B u)/2``. Every alpha > 0."""
    R_A, R_B, u = inclusion.resolvent_A(alpha), inclusion.resolvent_B(alpha), _start("u", inclusion, u)
    z = R_B(u)
    while True:
        u = u + R_A(2 * z - u) - z
        z = R_B(u)
        yield State(z, u)


def picard(inclusion: Inclusion, z: Array) -> Iterator[State]:
    r"""``z+ = sigma(W z + U x + b)`` (MON eq. 1): forward-backward at alpha = 1. Safe only for ||W||_2 < 1."""
    return forward_backward(inclusion, 1.0, z)


def _start(name: str, inclusion: Inclusion, u: Array) -> Array:
    u = checked(name, u)
    if tuple(u.shape) != tuple(inclusion.b.shape):
        raise ShapeError(f"{name} must have the shape of its b, {tuple(inclusion.b.shape)}; got {tuple(u.shape)}.")
    return u


def _forward_backward_map(inclusion: Inclusion, alpha: float) -> Callable[[Array], Array]:
    R_B = inclusion.resolvent_B(alpha)

    def step(u: Array) -> Array:
        z = R_B(u)
        return z - alpha * inclusion.A(z)

    return step


def _peaceman_rachford_map(inclusion: Inclusion, alpha: float) -> Callable[[Array], Array]:
    C_A, C_B = inclusion.cayley_A(alpha), inclusion.cayley_B(alpha)
    return lambda u: C_A(C_B(u))


def _douglas_rachford_map(inclusion: Inclusion, alpha: float) -> Callable[[Array], Array]:
    C = _peaceman_rachford_map(inclusion, alpha)
    return lambda u: (u + C(u)) / 2


MAPS: dict[str, Callable[[Inclusion, float], Callable[[Array], Array]]] = {
    "forward-backward": _forward_backward_map,
    "peaceman-rachford": _peaceman_rachford_map,
    "douglas-rachford": _douglas_rachford_map,
    "picard": lambda inclusion, alpha: _forward_backward_map(inclusion, 1.0),
}
