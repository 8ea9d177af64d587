r"""A zero of the sum of an affine and a maximal monotone operator: ``0 in A(z) + B(z)``, ``A(z) = (I - W) z - b``.

Theorem 1 (forward) and Theorem 3 (backward) of MON each give one `Inclusion`; every splitting consumes one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from ..arrays import Array, namespace, positive


class State(NamedTuple):
    """One iterate. u is what the resolvent of B was applied to, so ``z = R_B(u)`` always."""

    z: Array
    u: Array


@dataclasses.dataclass(frozen=True, eq=False)
class Inclusion:
    r"""``0 in (I - W) z - b + B(z)`` (MON eq. A8 with the operators of eq. 3 or eq. 20).

    Attributes
    ----------
    W : operator
        matvec, resolvent(alpha), magnitude(), to_dense().
    b : array (batch, ...)
    B : object with ``prox(u, alpha)``; ``resolvent(alpha)`` and ``reflection(alpha)``, the resolvent and the Cayley
        operator as maps; ``root(u, alpha)``, the w with ``prox(u, alpha) = prox(w, 1)``; ``samples(part)``, itself for
        a slice of the batch
    m : float
        Strong monotonicity of A + B, > 0.
    """

    W: Any
    b: Array
    B: Any
    m: float

    def samples(self, part: slice) -> Inclusion:
        """The same for some samples of the batch."""
        return Inclusion(self.W, self.b[part, ...], self.B.samples(part), self.m)

    def A(self, z: Array) -> Array:
        """(I - W) z - b."""
        return z - self.W.matvec(z) - self.b

    def resolvent_A(self, alpha: float) -> Callable[[Array], Array]:
        """u -> (I + alpha A)^-1 (u) = V (u + alpha b) [MON-EqA6]."""
        alpha = positive("alpha", alpha)
        V, shift = self.W.resolvent(alpha), alpha * self.b
        return lambda u: V.matvec(u + shift)

    def resolvent_B(self, alpha: float) -> Callable[[Array], Array]:
        """u -> (I + alpha B)^-1 (u), a proximal map [MON-EqA7]."""
        resolvent: Callable[[Array], Array] = self.B.resolvent(positive("alpha", alpha))
        return resolvent

    def cayley_A(self, alpha: float) -> Callable[[Array], Array]:
        """C_A = 2 R_A - I [MON-EqA5]: one linear map, 2 V - I, and one addition."""
        C = self.W.resolvent(alpha).cayley()
        if not bool(namespace(self.b).any(self.b)):  # the backward inclusion has b = 0
            matvec: Callable[[Array], Array] = C.matvec
            return matvec
        about: Callable[[Array], Array] = C.about(alpha * self.b)
        return about

    def cayley_B(self, alpha: float) -> Callable[[Array], Array]:
        """C_B = 2 R_B - I [MON-EqA5]; the absolute value where B is the normal cone of the positive orthant."""
        reflection: Callable[[Array], Array] = self.B.reflection(alpha)
        return reflection
