r"""Mistakes of the forward pass: each an equation that somebody's state solves instead of ``z = sigma(W z + U x + b)``.

No solver is needed: where ``z - sigma(W~ z + b~) = 0`` for the wrong W~ or b~, the mistake is found. Stopped iterations
are compared iterate by iterate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from ..activations import ZeroBorder
from ..mon import forward_inclusion
from ..operators import MonotoneConv, MonotoneDense, MonotoneMultiTier
from ..splitting import rates
from ..splitting.iterations import MAPS
from .equations import Layer
from .mistakes import flipped, fourier_factors, odd_convolution, pieces_of, shifted_phase, zero_padded_product

__all__ = ["FORWARD", "ForwardMistake"]

STEPS = 40  # of stopped iterations that are told apart
ENOUGH = 6  # entries from which on a fitted number proves something


class Forward(NamedTuple):
    """A layer, inputs, the state that somebody returned, the equilibrium."""

    equation: Any
    x: np.ndarray
    z: np.ndarray
    z_star: np.ndarray

    @property
    def injection(self) -> np.ndarray:
        """U x + b."""
        return np.asarray(self.equation.inject(self.x))

    def state(self, pre: np.ndarray) -> np.ndarray:
        """sigma(pre)."""
        return np.asarray(self.equation.activation(pre))


Predictions = Iterator[tuple[str, np.ndarray]]


class ForwardMistake(NamedTuple):
    """As `mistakes.Mistake`; `states` yields (detail, what z would have to be)."""

    name: str
    says: str
    remedy: str
    source: str
    states: Callable[[Forward], Predictions]
    unfinished: bool = False


def _with(condition: Callable[[Forward], bool], *products: Callable[[Forward], np.ndarray]) -> Any:
    """Mistakes in W z: states sigma(product + injection)."""

    def states(f: Forward) -> Predictions:
        for product in products if condition(f) else ():
            yield "", f.state(product(f) + f.injection)

    return states


def _monotone(f: Forward) -> bool:
    return bool(f.equation.monotone)


def _dense(f: Forward) -> bool:
    return _monotone(f) and isinstance(f.equation.W, MonotoneDense)


def _conv(f: Forward) -> bool:
    return _monotone(f) and isinstance(f.equation.W, MonotoneConv)


def _tiers(f: Forward) -> bool:
    return _monotone(f) and isinstance(f.equation.W, MonotoneMultiTier)


def _layer(f: Forward) -> bool:
    return isinstance(f.equation, Layer)


def _scaled(f: Forward) -> bool:
    return _monotone(f) and bool({"g", "h", "gs"} & set(f.equation.W.params))


def _gram(f: Forward) -> np.ndarray:
    # - A'A z = W z - (1 - m) z - (B - B') z: the part of W that does not see B
    W = f.equation.W
    return np.asarray((W.matvec(f.z) + W.rmatvec(f.z)) / 2 - (1 - W.m) * f.z)


def _skew(f: Forward) -> np.ndarray:
    W = f.equation.W
    return np.asarray((W.matvec(f.z) - W.rmatvec(f.z)) / 2)


def _identity(f: Forward, factor: float) -> np.ndarray:
    return np.asarray(factor * f.z)


def _rows(f: Forward) -> np.ndarray:
    A = pieces_of(f.equation.W)["A"]
    return np.asarray((1 - f.equation.W.m) * f.z - f.z @ A @ A.T + _skew(f))


def _root_of_gram(f: Forward) -> np.ndarray:
    A = pieces_of(f.equation.W)["A"]
    return np.asarray((1 - f.equation.W.m) * f.z - f.z @ A.T + _skew(f))


def _symmetric_B(f: Forward) -> np.ndarray:
    B = pieces_of(f.equation.W)["B"]
    return np.asarray((1 - f.equation.W.m) * f.z + _gram(f) + f.z @ (B + B.T).T)


def _one_B(f: Forward) -> np.ndarray:
    B = pieces_of(f.equation.W)["B"]
    return np.asarray((1 - f.equation.W.m) * f.z + _gram(f) + f.z @ B.T)


def _skews(f: Forward) -> Predictions:
    yield from _with(_dense, _symmetric_B, _one_B)(f)
    yield from _with(_monotone, lambda f: f.equation.W.matvec(f.z) - _skew(f))(f)


def _raw(W: Any) -> Any:
    return W.replace(**{scale: None for scale in ("g", "h", "gs") if scale in W.params})


def _scales(f: Forward) -> Predictions:
    W = f.equation.W
    changed = [_raw(W)]
    if not _tiers(f):
        A, B = np.linalg.norm(W.A), np.linalg.norm(W.B)
        if W.g is not None:
            changed += [W.replace(g=W.g * A), W.replace(g=W.g**0.5), W.replace(g=W.g**2), W.replace(g=W.g * A**2)]
        if W.h is not None:
            changed += [W.replace(h=W.h / B), W.replace(h=W.h * B)]
    for other in changed:
        yield "", f.state(other.matvec(f.z) + f.injection)


def _injections(f: Forward) -> Predictions:
    Wz, injection, bias = f.equation.W.matvec(f.z), f.injection, f.equation.inject(0 * f.x)
    yield "minus the injection", f.state(Wz - injection)
    yield "without U x + b", f.state(Wz)
    if f.equation.b is not None:
        yield "without b", f.state(Wz + injection - bias)
        yield "minus b", f.state(Wz + injection - 2 * bias)
        yield "twice b", f.state(Wz + injection + bias)
    yield "without U x", f.state(Wz + bias)


def _activations(f: Forward) -> Predictions:
    pre = f.equation.W.matvec(f.z) + f.injection
    yield "no activation", pre
    if isinstance(f.equation.activation, ZeroBorder):
        yield "no border of zeros", f.equation.activation.inner(pre)
    at = f.equation.W.matvec(f.z_star) + f.injection
    yield "the pre-activation is returned", at
    if f.z.size >= ENOUGH:  # u = z + alpha (pre - z) is what Peaceman-Rachford iterates
        step, direction = f.z - f.z_star, at - f.z_star
        alpha = float(np.sum(step * direction)) / max(float(np.sum(direction**2)), 1e-300)
        yield f"the auxiliary u is returned, alpha = {alpha:.3g}", f.z_star + alpha * direction


def _sigma_for_prox(f: Forward) -> Predictions:
    # z = sigma(z - alpha A(z)), A(z) = z - W z - b: the alpha that fits
    if f.z.size < ENOUGH:
        return
    A = f.z - f.equation.W.matvec(f.z) - f.injection

    def off(log_alpha: float) -> float:
        return float(np.linalg.norm(f.z - f.state(f.z - np.exp(log_alpha) * A)))

    grid = np.linspace(-5, 5, 41)
    start = grid[int(np.argmin([off(t) for t in grid]))]
    found = minimize_scalar(off, bounds=(start - 0.25, start + 0.25), method="bounded", options={"xatol": 1e-12})
    alpha = float(np.exp(found.x))
    if abs(alpha - 1) > 1e-6:
        step = f.state(f.z - alpha * A) - f.z
        yield f"alpha = {alpha:.4g}", f.z + step / min(1.0, alpha)  # a short step is small wherever it starts


def _fourier(f: Forward) -> Predictions:
    W = f.equation.W
    Wz = W.matvec(f.z)
    for c in fourier_factors(W):
        yield f"factor {c:.3g}", f.state((1 - W.m) * f.z + c * (Wz - (1 - W.m) * f.z) + f.injection)


def _coupling(f: Forward) -> np.ndarray:
    W = f.equation.W
    tiers, parts = W.by_tiers(), W.split(f.z)
    inside = W.join([tiers.diagonal(i, part) for i, part in enumerate(parts)])
    return np.asarray((inside + W.matvec(f.z)) / 2)


def _uncoupled(f: Forward) -> np.ndarray:
    W = f.equation.W
    tiers, parts = W.by_tiers(), W.split(f.z)
    return np.asarray(W.join([tiers.diagonal(i, part) for i, part in enumerate(parts)]))


def _phases(f: Forward) -> Predictions:
    for by in ((1, 1), (0, 1), (1, 0)):
        yield f"phase {by}", f.state(shifted_phase(f.equation.W, by).matvec(f.z) + f.injection)


def _stopped(f: Forward) -> Predictions:
    z = np.zeros_like(f.z_star)
    for k in range(1, STEPS):
        z = f.equation.step(z, f.x)
        yield f"k = {k} of z = T(z)", z
    if not _monotone(f):
        return
    inclusion = forward_inclusion(f.equation.W, f.injection, f.equation.activation)
    for method in ("peaceman-rachford", "forward-backward"):
        for alpha in {rates.best_alpha(f.equation.W, method), 1.0}:
            step, u = MAPS[method](inclusion, alpha), np.zeros_like(f.z_star)
            for k in range(1, STEPS):
                u = step(u)
                yield f"k = {k} of {method}, alpha = {alpha:.3g}", np.asarray(inclusion.B.prox(u, alpha))


def _if(condition: Callable[[Forward], bool], states: Callable[[Forward], Predictions]) -> Any:
    return lambda f: states(f) if condition(f) else iter(())


FORWARD: tuple[ForwardMistake, ...] = (
    ForwardMistake(
        "forward-stopped",
        "the forward iteration is stopped after k steps",
        "Iterate until the distance to the equilibrium is certified, or to a residual near the dtype's floor.",
        "NEW-stopping-fooled",
        _stopped,
        unfinished=True,
    ),
    ForwardMistake(
        "weight-transposed-in-the-forward-pass",
        "W' is used where W belongs, or B' - B for B - B'",
        "W = (1 - m) I - A'A + B - B'; rows of a batch need z @ W.T.",
        "MON-Prop1",
        _with(_layer, lambda f: f.equation.W.rmatvec(f.z)),
    ),
    ForwardMistake(
        "sign-of-the-injection",
        "the injection U x + b enters with the wrong sign, or not at all, as in (9) as printed",
        "The resolvent is V (u + alpha (U x + b)).",
        "MON-Eq9",
        _if(_layer, _injections),
    ),
    ForwardMistake(
        "identity-left-out",
        "(1 - m) I is left out of W, or its m, or 1 + m stands for 1 - m",
        "W = (1 - m) I - A'A + B - B'.",
        "MON-Eq7",
        _with(
            _monotone,
            lambda f: f.equation.W.matvec(f.z) - _identity(f, 1 - f.equation.W.m),
            lambda f: f.equation.W.matvec(f.z) + _identity(f, f.equation.W.m),
            lambda f: f.equation.W.matvec(f.z) + _identity(f, 2 * f.equation.W.m),
            lambda f: f.equation.W.matvec(f.z) - f.z,
        ),
    ),
    ForwardMistake(
        "sign-of-the-gram-part-forward",
        "+ A'A stands for - A'A, or A'A is left out",
        "W = (1 - m) I - A'A + B - B'.",
        "MON-Prop1",
        _with(
            _monotone,
            lambda f: f.equation.W.matvec(f.z) - 2 * _gram(f),
            lambda f: f.equation.W.matvec(f.z) - _gram(f),
        ),
    ),
    ForwardMistake(
        "gram-of-rows-forward",
        "A A', or A itself, stands for A'A",
        "W = (1 - m) I - A'A + B - B'.",
        "MON-Prop1",
        _with(_dense, _rows, _root_of_gram),
    ),
    ForwardMistake(
        "skew-part-not-skew-forward",
        "B, or B + B', stands for B - B', or it is left out",
        "W = (1 - m) I - A'A + B - B'.",
        "MON-Prop1",
        _skews,
    ),
    ForwardMistake(
        "scales-forward",
        "the scales of appendix D.2 are left out, or the norm is not squared where it should be",
        "- g A'A/||A||^2 + h (B - B')/||B||.",
        "MON-AppD.2-weightnorm",
        _if(_scaled, _scales),
    ),
    ForwardMistake(
        "sigma-for-prox-alpha",
        "the splitting applies sigma where prox^alpha belongs: the printed Algorithms 1 and 2",
        "Apply prox^alpha_f; sigma is right for alpha = 1 and for indicators (relu, hardtanh) only.",
        "MON-Alg2",
        _if(lambda f: _monotone(f) and not f.equation.activation.alpha_free, _sigma_for_prox),
    ),
    ForwardMistake(
        "wrong-output",
        "something else than z* is returned, or the activation is left out",
        "Return z = sigma(W z + U x + b).",
        "MON-Eq2",
        _if(_layer, _activations),
    ),
    ForwardMistake(
        "kernel-flipped",
        "a convolution stands for a correlation: kernels turned by 180 degrees, or a missing conjugate in Fourier",
        "Deep-learning convolutions are correlations: multiply by conj(fft2(kernel)).",
        "MON-EqB4",
        _with(lambda f: _conv(f) or _tiers(f), lambda f: flipped(f.equation.W).matvec(f.z)),
    ),
    ForwardMistake(
        "zero-padding-for-circular",
        "zero padding stands for circular padding",
        "Pad circularly, or hold a border of zeros with zero_border.",
        "MON-Sec4.2-padding",
        _with(lambda f: _conv(f) and odd_convolution(f), lambda f: zero_padded_product(f.equation.W, f.z)),  # type: ignore[arg-type]
    ),
    ForwardMistake(
        "fourier-scale-forward",
        "the DFT is not unitary: a factor of the number of pixels, or its root",
        "F must be unitary, 1/sqrt(s) for each axis, not 1/s.",
        "MON-EqB1",
        _if(lambda f: _conv(f) or _tiers(f), _fourier),
    ),
    ForwardMistake(
        "tiers-not-coupled",
        "what a tier passes to the next is left out, or taken once for twice",
        "W_{i+1,i} = -2 A_{i+1}' S_i.",
        "MON-EqC3",
        _with(_tiers, _coupling, _uncoupled),
    ),
    ForwardMistake(
        "stride-phase-forward",
        "the strided convolution keeps the pixels 1, 1 + r, ...",
        "Keep the pixels 0, r, 2 r, ...",
        "MON-EqC13",
        _if(_tiers, _phases),
    ),
)
