"""Our side of every task, on the arrays of a place."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ... import mon
from ...arrays import Array, namespace
from ...splitting import iterations
from .layers import Layer, moved
from .machine import Place
from .measure import OURS, Found, Side

__all__ = ["CERTIFIED", "PRODUCTS", "following", "product", "reference", "solves", "step"]

CERTIFIED = f"{OURS}, certified"


def solves(layer: Layer, where: Place, alpha: float, passes: int, wanted: tuple[float, ...]) -> list[Side]:
    """By the relative change, as the published loops stop, and by the certificate, which is then inside the time."""
    there = moved(layer, where.move)
    by_change = functools.partial(_solved, there, alpha, passes, "relative-change")
    by_certificate = functools.partial(_solved, there, alpha, passes, "certificate")
    return [Side(OURS, by_change, (1e-3,) * passes), Side(CERTIFIED, by_certificate, wanted)]


def _solved(layer: Layer, alpha: float, passes: int, stop: str, tols: tuple[float, ...]) -> Found:
    W, x, sigma = layer.W, layer.injection, layer.activation
    forward = mon.equilibrium(W, x, sigma, alpha=alpha, tol=tols[0], stop=stop)
    if passes == 1:
        return Found((forward.z,), (forward.iterations,))
    pre = sigma.root(forward.u, alpha)
    grads, backward = mon.equilibrium_vjp(
        W, x, sigma, forward.z, layer.dz, pre=pre, alpha=alpha, tol=tols[1], stop=stop
    )
    return Found((forward.z, grads["injection"]), (forward.iterations, backward.iterations))


def step(layer: Layer, where: Place, alpha: float) -> Side:
    """One Peaceman-Rachford iteration after another."""
    there = moved(layer, where.move)
    inclusion = mon.forward_inclusion(there.W, there.injection, there.activation)
    return Side(OURS, following(iterations.MAPS["peaceman-rachford"](inclusion, alpha), inclusion.b * 0))


def following(advance: Callable[[Any], Any], state: Any) -> Callable[[tuple[float, ...]], Found]:
    """Each call goes on from the state of the one before."""

    def run(tols: tuple[float, ...]) -> Found:
        nonlocal state
        state = advance(state)
        return Found(iterations=(1,))

    return run


def _factored(layer: Layer, alpha: float) -> Any:
    return layer.W.replace(**layer.W.params).resolvent(alpha)  # a new operator has no factors yet


def _gradient(layer: Layer, alpha: float) -> Array:
    xp = namespace(layer.injection)
    grads = layer.W.vjp(layer.injection, layer.dz)
    first = [g[0] if isinstance(g, list) else g for name, g in sorted(grads.items()) if name in "AB"]
    return xp.concat([xp.reshape(g, (-1,)) for g in first])


PRODUCTS: dict[str, Callable[[Layer, float], Array]] = {
    "W z": lambda layer, alpha: layer.W.matvec(layer.injection),
    "W' z": lambda layer, alpha: layer.W.rmatvec(layer.injection),
    "resolvent": lambda layer, alpha: layer.W.resolvent(alpha).matvec(layer.injection),
    "gradients by A and B": _gradient,
    "factorisation": lambda layer, alpha: _factored(layer, alpha).matvec(layer.injection[:1, ...]),
}


def product(name: str, layer: Layer, where: Place, alpha: float) -> Side:
    """One of `PRODUCTS`, factored before where it has factors and is not their factorisation."""
    there = moved(layer, where.move)
    return Side(OURS, lambda tols: Found((PRODUCTS[name](there, alpha),)))


def reference(name: str, layer: Layer, alpha: float) -> np.ndarray:
    """The same by NumPy in float64."""
    wide = moved(layer, lambda x: np.asarray(x, dtype=np.float64))
    return np.asarray(PRODUCTS[name](wide, alpha))
