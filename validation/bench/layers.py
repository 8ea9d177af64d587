"""The layers that are measured, the operations and bytes that they ask for, and the certificate of any state of theirs.

Counts are of our own form in float32 and stand beside the case: one Peaceman-Rachford iteration ``u+ = C |u| + c``, and
the gradients by the parameters of W after the two passes.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ... import activations, mon
from ...arrays import all_finite, each, in_double, largest, norm, to_numpy
from .. import bench_conv, bench_dense
from .machine import Need

__all__ = ["Layer", "certified", "dense", "iteration_need", "moved", "slopes", "solve_need", "tiered", "wanted"]

FLOAT = 4  # bytes


class Layer(NamedTuple):
    """``z* = sigma(W z* + injection)`` in float32 with a cotangent dz; `images` is what PyTorch's forms are made of."""

    name: str
    W: Any
    activation: Any
    injection: np.ndarray
    dz: np.ndarray
    images: bench_conv.Problem | None = None

    @property
    def batch(self) -> int:
        """Samples."""
        return len(self.injection)


def dense(n: int, m: float, batch: int, seed: int = 0) -> Layer:
    """PyTorch's initialisation of A and B; m as given, so that L/m grows as m falls."""
    W, injection = bench_dense.problem(batch=batch, n=n, m=m, seed=seed)
    dz = np.random.default_rng([seed, 1]).normal(size=injection.shape).astype(np.float32) / np.float32(batch)
    return Layer(f"dense n={n} m={m:g} batch={batch}", W, activations.relu, injection, dz)


def tiered(channels: tuple[int, ...], side: int, batch: int, seed: int = 0) -> Layer:
    """One convolution, or several tiers, with a border of zeros."""
    p = bench_conv.problem(bench_conv.Case(channels, side), batch, seed)
    kind = "conv" if len(channels) == 1 else "tiers"
    name = f"{kind} {','.join(map(str, channels))} at {side}x{side} batch={batch}"
    return Layer(name, bench_conv.narrow(p), p.activation, p.state(p.injection), p.state(p.dz), p)


def moved(layer: Layer, move: Any) -> Layer:
    """The layer with its arrays in another library."""
    W = layer.W.replace(**{name: each(move, p) for name, p in layer.W.params.items()})
    return layer._replace(W=W, injection=move(layer.injection), dz=move(layer.dz))


# ---- operations and bytes ----


def iteration_need(layer: Layer) -> Need:
    """Of one Peaceman-Rachford iteration."""
    if layer.images is None:
        return _dense_iteration(layer.W.size, layer.batch)
    count, entries = bench_conv.counts(layer.images.case, layer.batch), layer.injection.size
    return Need(1e9 * count["transform_gflop"], 1e9 * count["blocks_gflop"], 2 * entries, 1e9 * count["moved_gbyte"])


def _dense_iteration(n: int, batch: int) -> Need:
    # |u|: one read, one write; the product: one read, one write, and the matrix; + c: two reads, one write
    return Need(2 * batch * n**2, 0, 2 * batch * n, FLOAT * (n**2 + 7 * batch * n))


def solve_need(layer: Layer, iterations: tuple[int, ...]) -> Need:
    """Of both passes together, and where there are two of the gradients by the parameters."""
    need = iteration_need(layer).times(sum(iterations))
    return need.plus(gradient_need(layer)) if len(iterations) > 1 else need


def gradient_need(layer: Layer) -> Need:
    """Of `W.vjp`: dense by its formula. On images one convolution transforms two states and multiplies every block
    once, as an iteration does; several tiers are counted so too, which leaves out what couples them.
    """
    if layer.images is not None:
        return iteration_need(layer)
    n, batch = layer.W.size, layer.batch
    return Need(2 * n**2 * (batch + n), 0, 2 * n**2, FLOAT * (2 * batch * n + 7 * n**2))  # dy'z, then A (H + H')


# ---- certificates ----


def wanted(layer: Layer, accuracy: float, passes: int) -> tuple[float, ...]:
    """The certified distances asked for: accuracy times the longest injection, and times the longest cotangent."""
    lengths = (largest(norm(x.astype(np.float64))) for x in (layer.injection, layer.dz)[:passes])
    return tuple(accuracy * length for length in lengths)


def certified(layer: Layer, state: tuple[Any, ...]) -> tuple[float, ...]:
    """Certified distance of the worst sample, in float64 and from the arrays alone, whoever computed them: of z to the
    equilibrium, and of dpre to the zero of Theorem 3's inclusion at that z.
    """
    z, *backward = (to_numpy(x).astype(np.float64).reshape(layer.injection.shape) for x in state)
    if not all(map(all_finite, (z, *backward))):
        return (math.inf,) * len(state)
    W, injection, dz = (in_double(x) for x in (layer.W, layer.injection, layer.dz))
    forward = bench_dense.certified(mon.forward_inclusion(W, injection, layer.activation), z)
    if not backward:
        return (forward,)
    jac = slopes(layer, W.matvec(z) + injection, (1 + W.lipschitz()) * forward, backward[0])
    return forward, bench_dense.certified(mon.backward_inclusion(W, jac, dz), backward[0])


def slopes(layer: Layer, pre: np.ndarray, off: float, dpre: np.ndarray) -> np.ndarray:
    """J of relu at a pre-activation known to `off`: an entry whose sign is open so is taken as the side took it.

    J_i = 0 says dpre_i = 0. Two states on two sides of a kink pose two backward problems, and both gradients are right.
    """
    jac, inside = (layer.activation.derivative(x) for x in (pre, abs(pre) + 1))
    return np.where(abs(pre) <= off, (dpre != 0) * inside, jac)
