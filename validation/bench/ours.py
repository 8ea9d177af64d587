"""Our side of every task, on the arrays of a place."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ... import mon
from ...arrays import Array, namespace
from ...splitting import iterations
from .. import bench_conv
from .layers import Layer, moved
from .machine import Place
from .measure import OURS, Found, Side

__all__ = ["CERTIFIED", "PRODUCTS", "WHOLE", "following", "product", "reference", "solves", "steps"]

CERTIFIED, WHOLE = bench_conv.CERTIFIED, bench_conv.WHOLE


def solves(layer: Layer, where: Place, alpha: float, passes: int, wanted: tuple[float, ...]) -> list[Side]:
    """By the relative change, as the published loops stop, and by the certificate, which is then inside the time.

    With several threads each takes a part of the images, as in training, and a third side has the batch whole.
    """
    there, parts = moved(layer, where.move), _parts(layer, where)
    first = (1e-3,) * passes

    def solved(stop: str, parts: list[slice]) -> Callable[[tuple[float, ...]], Found]:
        return functools.partial(_solved, there, alpha, passes, stop, parts)

    sides = [Side(OURS, solved(bench_conv.RULE, parts), first), Side(CERTIFIED, solved("certificate", parts), wanted)]
    return sides if len(parts) == 1 else [*sides, Side(WHOLE, solved(bench_conv.RULE, [slice(None)]), first)]


def _parts(layer: Layer, where: Place) -> list[slice]:
    """Short products gain nothing from threads of their own, and on a GPU one call is the whole batch."""
    alone = layer.images is None or where.backend != "numpy"
    return [slice(None)] if alone else bench_conv.shares(layer.batch, where.threads)


def _solved(layer: Layer, alpha: float, passes: int, stop: str, parts: list[slice], tols: tuple[float, ...]) -> Found:
    W, x, dz = layer.W, layer.injection, layer.dz
    found = bench_conv.solved(W, x, layer.activation, dz, alpha, tols[:passes], stop, parts, handed_on=True)
    states = ([s.z for s in solutions] for solutions in (found.forward, found.backward) if solutions)
    return Found(tuple(zs[0] if len(zs) == 1 else np.concatenate(zs) for zs in states), found.iterations)


def steps(layer: Layer, where: Place, alpha: float) -> list[Side]:
    """One Peaceman-Rachford iteration after another, as in `solves`."""
    parts = _parts(layer, where)
    sides = [Side(OURS, _stepped(layer, where, alpha, parts))]
    return sides if len(parts) == 1 else [*sides, Side(WHOLE, _stepped(layer, where, alpha, [slice(None)]))]


def _stepped(layer: Layer, where: Place, alpha: float, parts: list[slice]) -> Callable[[tuple[float, ...]], Found]:
    there = moved(layer, where.move)
    inclusions = [mon.forward_inclusion(there.W, there.injection[rows, ...], there.activation) for rows in parts]
    maps = [iterations.MAPS["peaceman-rachford"](inclusion, alpha) for inclusion in inclusions]

    def advance(us: list[Array]) -> list[Array]:
        return bench_conv.in_threads(lambda i: maps[i](us[i]), range(len(us)), len(us))

    return following(advance, [inclusion.b * 0 for inclusion in inclusions])


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
