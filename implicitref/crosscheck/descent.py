"""Of a legitimate approximation of the gradient: its angle, whether it descends here, and whether it must."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ..fixed_point import theory
from . import systems
from .equations import Point
from .report import Approximation

__all__ = ["approximation"]

DECIDED_UP_TO = 64  # entries of a state for which M and K are formed


def approximation(point: Point, observed: Mapping[str, np.ndarray], powers: int | None = 1) -> Approximation:
    """Angle and descent of the observed blocks, x left out, against the gradient at the same point.

    What is left out of the series of K' begins with its power `powers`; None for a series of another map.
    """
    truth, names = point.blocks(point.dpre), sorted(set(observed) - {"x"}) or sorted(observed)
    a, b = (np.concatenate([blocks[name].ravel() for name in names]) for blocks in (observed, truth))
    along, lengths = float(a @ b), float(np.linalg.norm(a) * np.linalg.norm(b))
    angle = math.degrees(math.acos(max(-1.0, min(1.0, along / lengths)))) if lengths else 0.0
    return Approximation(angle, along > 0, *_guarantee(point, powers))


def _guarantee(point: Point, powers: int | None) -> tuple[bool | None, str]:
    # of the first sample, by kappa(M'M) < kappa*(||K||^powers) [NEW-jfb-threshold]: M has a row a parameter, a column
    # an entry
    if powers is None:
        return None, "the theorem is about z = T(z), not about a splitting's step."
    n = math.prod(point.z.shape[1:])
    if n > DECIDED_UP_TO or not point.forward_products:
        return None, f"a state of {n} entries is too large to decide it."
    one = point.part(slice(0, 1))
    K = systems.matrices(one.jacobian, one.z)[0]
    norm = float(np.linalg.norm(K, 2))
    if norm >= 1:
        return False, f"||dT/dz|| = {norm:.3g} is no contraction in the Euclidean norm [JFB-Asm2.1]."
    gamma = norm**powers
    kappa = theory.conditioning(_parameter_jacobian(one))
    limit = theory.descent_threshold(gamma)
    sign = "<" if kappa < limit else ">="
    because = f"kappa(M'M) = {kappa:.3g} {sign} {limit:.3g} at ||dT/dz|| = {norm:.3g} [NEW-jfb-threshold]."
    return kappa < limit, because


def _parameter_jacobian(one: Point) -> np.ndarray:
    columns = []
    for e in np.eye(math.prod(one.z.shape[1:])):
        found = one.blocks(one.jac * e.reshape(one.z.shape))
        columns.append(np.concatenate([block.ravel() for name, block in sorted(found.items()) if name != "x"] or [e]))
    return np.stack(columns, axis=1)
