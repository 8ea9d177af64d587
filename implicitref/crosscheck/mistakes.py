r"""The library of mistakes: each a small executable variant of the true gradient, run at the state of the layer.

The truth is ``dpre = J (dz + W' dpre)``, then ``<dpre, dW z + dinjection>`` [MON-Thm2, MON-Thm3]. A mistake yields
recipes, every one a gradient that somebody would get who made it. Mistakes that give one gradient on a problem are
reported together.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..activations import ZeroBorder
from ..fixed_point.maps import ForwardBackward, PeacemanRachford
from ..layers.conv import conv2d, conv2d_vjp
from ..mon import backward_inclusion
from ..operators import MonotoneConv, MonotoneDense, MonotoneMultiTier
from ..splitting import rates
from ..splitting.iterations import MAPS
from . import systems
from .equations import Layer, Point
from .weights import PlainWeight, assembled, flat, pieces

__all__ = ["LIBRARY", "Mistake", "Recipe", "blocks"]

Blocks = dict[str, np.ndarray]
Edit = Callable[[str, np.ndarray], np.ndarray]  # (name of a block, the block) to what became of it
DEEPEST = 60  # steps of an adjoint that are told apart


class Recipe(NamedTuple):
    """One variant of the gradient; what is None or empty is as it should be."""

    detail: str
    dpre: np.ndarray
    for_weights: np.ndarray | None = None
    for_injection: np.ndarray | None = None
    z: np.ndarray | None = None
    coefficients: Mapping[str, tuple[float, ...]] = {}
    chain: str = "full"
    edit: Edit | None = None
    part: slice | None = None


class Mistake(NamedTuple):
    """A mistake: its name, what it looks like, what to change, which line of a paper it belongs to."""

    name: str
    says: str
    remedy: str
    source: str
    recipes: Callable[[Point], Iterator[Recipe]]
    legitimate: bool = False


def blocks(point: Point, recipe: Recipe, weights: bool) -> Blocks:
    """The gradient by the parameters of W (weights=True) or by all the others, as the recipe has it."""
    if recipe.part is not None:
        return _of_part(point, recipe.part, recipe, weights)
    dpre = recipe.for_weights if weights else recipe.for_injection
    dpre = recipe.dpre if dpre is None else dpre
    if weights:
        found = _weights(point, point.z if recipe.z is None else recipe.z, dpre, recipe)
    else:
        found = point.equation.injection_blocks(point, point.x, dpre)
    return found if recipe.edit is None else {name: recipe.edit(name, block) for name, block in found.items()}


def _of_part(point: Point, part: slice, recipe: Recipe, weights: bool) -> Blocks:
    # nothing is known of the other samples: their rows of x are zero, unless the recipe says otherwise
    narrow = point.part(part)
    found = blocks(narrow, Recipe(recipe.detail, narrow.dpre, edit=recipe.edit), weights)
    if "x" in found and len(found["x"]) < len(point.x):
        rows = np.zeros(point.x.shape)
        rows[part] = found["x"]
        found["x"] = rows
    return found


def _weights(point: Point, z: np.ndarray, dpre: np.ndarray, recipe: Recipe) -> Blocks:
    if recipe.coefficients or recipe.chain != "full":
        W = point.equation.W
        return assembled(W, pieces(W, z, dpre), recipe.coefficients, recipe.chain)
    found: Blocks = point.equation.weight_blocks(point, z, dpre)
    return found


# ------------------------------------------------------------------------------------------------
# What a problem has


def _layer(point: Point) -> bool:
    return isinstance(point.equation, Layer)


def _monotone(point: Point) -> bool:
    return bool(point.equation.monotone)


def _kernels(point: Point) -> bool:
    return _monotone(point) and not isinstance(point.equation.W, MonotoneDense)


def _scaled(point: Point) -> bool:
    return _monotone(point) and bool({"g", "h", "gs"} & set(point.equation.W.params))


def _tiers(point: Point) -> bool:
    return _layer(point) and isinstance(point.equation.W, MonotoneMultiTier)


Condition = Callable[[Point], bool]


def _times(factor: float, names: Collection[str]) -> Edit:
    return lambda name, block: factor * block if name in names else block


def _replaced(found: Mapping[str, np.ndarray]) -> Edit:
    return lambda name, block: found.get(name, block)


def _where(condition: Condition, recipes: Callable[[Point], Iterator[Recipe]]) -> Callable[[Point], Iterator[Recipe]]:
    return lambda point: recipes(point) if condition(point) else iter(())


def _dpre(
    condition: Condition, rule: Callable[[Point], np.ndarray | Iterator[np.ndarray]]
) -> Callable[[Point], Iterator[Recipe]]:
    def recipes(point: Point) -> Iterator[Recipe]:
        found = rule(point)
        for dpre in [found] if isinstance(found, np.ndarray) else found:
            yield Recipe("", dpre)

    return _where(condition, recipes)


def _edited(condition: Condition, *edits: Callable[[Point], Edit]) -> Any:
    return _where(condition, lambda p: (Recipe("", p.dpre, edit=edit(p)) for edit in edits))


def _coefficients(condition: Condition, *choices: Mapping[str, tuple[float, ...]]) -> Any:
    return _where(condition, lambda p: (Recipe("", p.dpre, coefficients=c) for c in choices))


# ------------------------------------------------------------------------------------------------
# The adjoint equation


def _solved(
    point: Point,
    product: Callable[[np.ndarray], np.ndarray],
    jac: np.ndarray | None = None,
    rhs: np.ndarray | None = None,
) -> np.ndarray:
    """Dpre of ``dpre = J product(dpre) + rhs``, rhs = J dz if not given."""
    J = point.jac if jac is None else jac
    return systems.solve(lambda u: J * product(u), J * point.dz if rhs is None else rhs)


def _not_transposed(p: Point) -> Iterator[np.ndarray]:
    # W for W', or the whole of I - J W for its transpose
    yield _solved(p, p.W.matvec)
    yield np.asarray(p.jac * systems.solve(p.jacobian, p.dz))


def _slope_outside_only(p: Point) -> np.ndarray:
    return np.asarray(p.jac * systems.solve(p.W.rmatvec, p.dz))


def _slopes_commuted(p: Point) -> np.ndarray:
    return systems.solve(lambda u: p.W.rmatvec(p.jac * u), p.jac * p.dz)


def _slope_missing_at_the_end(p: Point) -> Iterator[Recipe]:
    yield Recipe("everywhere", p.adjoint)
    yield Recipe("in the weights", p.dpre, for_weights=p.adjoint)
    yield Recipe("in the injection", p.dpre, for_injection=p.adjoint)


def _printed_denominator(p: Point) -> np.ndarray:
    # (24), (25) divide by 1 + alpha (1 + D): (2 I - W' + D) dpre = dz
    return systems.solve(lambda u: p.jac * (p.W.rmatvec(u) - u), p.jac * p.dz)


def _other_slopes(p: Point) -> Iterator[np.ndarray]:
    activation = p.equation.activation
    for at in (p.z, p.pre - p.W.matvec(p.z)):
        if at.shape == p.pre.shape:
            yield _solved(p, p.W.rmatvec, activation.derivative(at))


def _slope_of_alpha(p: Point) -> Iterator[Recipe]:
    for alpha in _steps(p):
        slope = p.jac / (p.jac + alpha * (1 - p.jac))
        yield Recipe(f"alpha = {alpha:.3g}", _solved(p, p.W.rmatvec, slope))


def _steps(p: Point) -> list[float]:
    best = [rates.best_alpha(p.equation.W, method) for method in ("forward-backward", "peaceman-rachford")]
    return [*best, 0.5, 2.0]


def _sign_of_W(p: Point) -> np.ndarray:
    return _solved(p, lambda u: -p.W.rmatvec(u))


def _identity_left_out(p: Point) -> Iterator[np.ndarray]:
    m = float(p.equation.W.m)
    yield _solved(p, lambda u: p.W.rmatvec(u) - (1 - m) * u)
    yield _solved(p, lambda u: p.W.rmatvec(u) + m * u)


def _no_adjoint(p: Point) -> np.ndarray:
    return p.dz


def _neumann(p: Point) -> Iterator[Recipe]:
    # w_k = dz + K' w_{k-1}, dpre = J w: k = 0 is Jacobian-free backpropagation
    dpre = p.jac * p.dz
    for k in range(1, DEEPEST + 1):
        following = p.jac * (p.dz + p.W.rmatvec(dpre))
        if not np.max(np.abs(following)) < 1e100 or np.array_equal(following, dpre):
            return
        dpre = following
        yield Recipe(f"k = {k}", dpre)


def _jfb(p: Point) -> Iterator[Recipe]:
    yield Recipe("of T = sigma(W z + U x + b)" if _layer(p) else "", p.jac * p.dz)
    if _monotone(p):
        injection = p.equation.inject(p.x)
        for alpha in _steps(p):
            T = ForwardBackward(p.equation.W, p.equation.activation, alpha)
            found = T.vjp_params(p.z, injection, p.dz)["injection"]
            yield Recipe(f"of the forward-backward step, alpha = {alpha:.3g}", np.asarray(found))


def _jfb_of_peaceman_rachford(p: Point) -> Iterator[Recipe]:
    injection = p.equation.inject(p.x)
    for alpha in {rates.best_alpha(p.equation.W, "peaceman-rachford"), 1.0}:
        T = PeacemanRachford(p.equation.W, p.equation.activation, alpha)
        u = p.z + alpha * (p.pre - p.z)
        w = T.read_vjp(u, p.dz)
        K = T.linearise(u, injection)
        for k in range(6):
            yield Recipe(f"k = {k}, alpha = {alpha:.3g}", 2 * alpha * p.equation.W.resolvent(alpha).rmatvec(w))
            w = T.read_vjp(u, p.dz) + K.rmatvec(w)


def _splitting_stopped(p: Point) -> Iterator[Recipe]:
    inclusion = backward_inclusion(p.equation.W, np.clip(p.jac, 0, 1), p.dz)
    for method in ("peaceman-rachford", "forward-backward"):
        for alpha in {rates.best_alpha(p.equation.W, method), 1.0}:
            step, u = MAPS[method](inclusion, alpha), np.zeros_like(p.dz)
            for k in range(1, DEEPEST // 2):
                u = step(u)
                yield Recipe(f"k = {k} of {method}, alpha = {alpha:.3g}", np.asarray(inclusion.B.prox(u, alpha)))


# ------------------------------------------------------------------------------------------------
# Convolutions


def flipped(W: Any) -> Any:
    """The operator with every kernel turned by 180 degrees."""
    turn = {name: _turned(getattr(W, name)) for name in ("A", "B", "S") if hasattr(W, name)}
    return W.replace(**turn)


def _turned(K: Any) -> Any:
    if isinstance(K, list | tuple):
        return [_turned(k) for k in K]
    return np.ascontiguousarray(K[..., ::-1, ::-1])


def zero_padded_product(W: MonotoneConv, z: np.ndarray) -> np.ndarray:
    """W z with zero padding where W is circular; kernels of odd sides."""
    A, B = (pieces_of(W)[name] for name in ("A", "B"))

    def apply(K: np.ndarray, v: np.ndarray) -> np.ndarray:
        return np.asarray(conv2d(v, K, padding=(K.shape[2] // 2, K.shape[3] // 2)))

    def back(K: np.ndarray, v: np.ndarray) -> np.ndarray:
        return np.asarray(conv2d_vjp(v.shape, K, v, padding=(K.shape[2] // 2, K.shape[3] // 2)))

    return np.asarray((1 - W.m) * z - back(A, apply(A, z)) + apply(B, z) - back(B, z))


def pieces_of(W: Any) -> dict[str, np.ndarray]:
    """The matrices or kernels A and B that act, scales included."""
    A, B = W.A, W.B
    if W.g is not None:
        A = W.g**0.5 * A / np.linalg.norm(A)
    if W.h is not None:
        B = W.h * B / np.linalg.norm(B)
    return {"A": np.asarray(A), "B": np.asarray(B)}


def odd_convolution(point: Point) -> bool:
    """One convolution, kernels of odd sides."""
    W = getattr(point.equation, "W", None)
    return isinstance(W, MonotoneConv) and all(side % 2 for K in (W.A, W.B) for side in K.shape[2:])


def _wrapped_or_not(p: Point) -> np.ndarray:
    W = p.equation.W
    transposed = W.replace(B=-W.B)  # W' has the other sign of B - B'
    return _solved(p, lambda u: zero_padded_product(transposed, u))


def fourier_factors(W: Any) -> list[float]:
    """What a wrong normalisation of the DFT makes of a convolution."""
    pixels = math.prod(W.size if isinstance(W, MonotoneConv) else W.sizes[0])
    return [1 / pixels, pixels**-0.5, pixels**0.5, float(pixels)]


def _wrong_fourier_scale(p: Point) -> Iterator[Recipe]:
    kernels = [name for name in p.equation.params if name[0] in "ABS"]
    for c in fourier_factors(p.equation.W):
        yield Recipe(f"factor {c:.3g} in the kernels", p.dpre, edit=_times(c, kernels))
        yield Recipe(f"factor {c * c:.3g} in the kernels", p.dpre, edit=_times(c * c, kernels))
        yield Recipe(f"factor {c:.3g} in the adjoint", _solved(p, functools.partial(_scaled_kernel, p.equation.W, c)))


def _scaled_kernel(W: Any, c: float, u: np.ndarray) -> np.ndarray:
    # W' with a factor at everything but the identity
    return np.asarray((1 - W.m) * u + c * (W.rmatvec(u) - (1 - W.m) * u))


def _kernel_edits(p: Point) -> Iterator[Recipe]:
    for letters in ("ABS", "AB", "A", "B", "S"):
        yield Recipe(f"turned: {letters}", p.dpre, edit=_on_kernels(letters, lambda k: k[..., ::-1, ::-1]))


def _swapped_channels(p: Point) -> Iterator[Recipe]:
    for letters in ("ABS", "AB", "A", "B", "S"):
        yield Recipe(letters, p.dpre, edit=_on_kernels(letters, lambda k: k.swapaxes(0, 1)))


def _on_kernels(letters: str, change: Callable[[np.ndarray], np.ndarray]) -> Edit:
    def edit(name: str, block: np.ndarray) -> np.ndarray:
        changed = change(block) if name[0] in letters and block.ndim == 4 else block
        return changed if changed.shape == block.shape else block

    return edit


def _border_forgotten(p: Point) -> np.ndarray:
    return _solved(p, p.W.rmatvec, p.equation.activation.inner.derivative(p.pre))


def _decoupled(p: Point) -> Iterator[np.ndarray]:
    W = p.equation.W
    alone = W.by_tiers()

    def inside(u: np.ndarray) -> np.ndarray:
        return np.asarray(W.join([alone.diagonal_transposed(i, part) for i, part in enumerate(W.split(u))]))

    yield _solved(p, inside)
    yield _solved(p, lambda u: (inside(u) + W.rmatvec(u)) / 2)


def shifted_phase(W: MonotoneMultiTier, by: tuple[int, int] = (1, 1)) -> MonotoneMultiTier:
    """The operator whose strided kernels keep the pixels ``by`` further on: kernels of the next size, shifted."""
    return W.replace(S=[np.pad(S, ((0, 0), (0, 0), (2 * by[0], 0), (2 * by[1], 0))) for S in W.S])


def _phase_in_the_gradient(p: Point) -> Iterator[Recipe]:
    W = p.equation.W
    for by in ((1, 1), (0, 1), (1, 0)):
        found = flat(shifted_phase(W, by).vjp(p.z, p.dpre))
        cropped = {name: k[:, :, 2 * by[0] :, 2 * by[1] :] if name[0] == "S" else k for name, k in found.items()}
        for letters in (("S", "gs"), ("A", "g"), ("A", "S", "g", "gs")):
            only = {name: k for name, k in cropped.items() if name.partition(".")[0] in letters}
            yield Recipe(f"in {letters[0]}", p.dpre, edit=_replaced(only))
        yield Recipe("in the adjoint", _solved(p, shifted_phase(W, by).rmatvec))


# ------------------------------------------------------------------------------------------------
# What is made of dpre


def _scalar(factor: float) -> Callable[[Point], Edit]:
    return lambda p: lambda name, block: factor * block


def _mean(power: int) -> Callable[[Point], Iterator[Recipe]]:
    def recipes(p: Point) -> Iterator[Recipe]:
        c = float(len(p.z)) ** power
        yield Recipe("all blocks", p.dpre, edit=lambda name, block: c * block)
        yield Recipe("the parameters", p.dpre, edit=_times(c, p.equation.params))
        for only in p.equation.params:
            yield Recipe(only, p.dpre, edit=_times(c, (only,)))

    return recipes


def _pixels(p: Point) -> Iterator[Recipe]:
    c = math.prod(p.z.shape[2:]) if not _tiers(p) else math.prod(p.equation.W.sizes[0])
    for factor in (1 / c, 1 / (c * len(p.z))):
        yield Recipe("bias", p.dpre, edit=_times(factor, ("b",)))


def _one_sample(p: Point) -> Iterator[Recipe]:
    if len(p.z) == 1:
        return
    right = _replaced({"x": p.blocks(p.dpre)["x"]}) if "x" in _all_names(p) else None
    for where, part in (("the first", slice(0, 1)), ("the last", slice(len(p.z) - 1, None))):
        yield Recipe(where, p.dpre, part=part)
        yield Recipe(f"{where}, in the parameters", p.dpre, part=part, edit=right)


def _detached(p: Point) -> Iterator[Recipe]:
    names = [*p.equation.params, *(["x"] if "x" in _all_names(p) else [])]
    weights = {name for name in names if name in _weight_names(p)}
    groups = [weights, *({name} for name in names), {"A", "B"}, {"x", "U"}, {"g", "h"}, {"U", "b", "x"}]
    for group in groups:
        letters = ", ".join(sorted(group & set(names)))
        if letters:
            yield Recipe(letters, p.dpre, edit=_times(0.0, group))


def _weight_names(p: Point) -> set[str]:
    return set(p.equation.params) - {"U", "b", "C", "D"} - ({"B"} if p.equation.kind == "implicit" else set())


def _all_names(p: Point) -> set[str]:
    return {*p.blocks(np.zeros_like(p.dz))}


def _single_factors(p: Point) -> Iterator[Recipe]:
    names = sorted(_all_names(p))
    for factor, name in itertools.product((2.0, 0.5), names):
        yield Recipe(f"{factor:g} times {name}", p.dpre, edit=_times(factor, (name,)))


def _signs(p: Point) -> Iterator[Recipe]:
    for name in sorted(_all_names(p)):
        if name[0] != "B" or p.equation.kind == "implicit":
            yield Recipe(name, p.dpre, edit=_times(-1.0, (name,)))


def _skew_sign(p: Point) -> Iterator[Recipe]:
    skew = [name for name in p.equation.params if name.partition(".")[0] == "B"]
    for names in (skew, *([name] for name in skew), [*skew, *(name for name in p.equation.params if name[0] == "h")]):
        yield Recipe(", ".join(names), p.dpre, edit=_times(-1.0, names))


def _plain(p: Point) -> bool:
    return _layer(p) and isinstance(p.equation.W, PlainWeight)


def _transposed_block(p: Point) -> Edit:
    name = p.equation.W.name
    return lambda n, k: k.T if n == name else k


def _gram_of_rows(p: Point) -> Iterator[Recipe]:
    W = p.equation.W
    H = p.dpre.T @ p.z
    dA = -(H + H.T) @ pieces_of(W)["A"]
    found = assembled(W, {"A": [dA], "B": [H, -H.T]}, {}, "full")
    yield Recipe("", p.dpre, edit=_replaced(found))


def _chains(*chains: str) -> Callable[[Point], Iterator[Recipe]]:
    def recipes(p: Point) -> Iterator[Recipe]:
        for chain in chains:
            yield Recipe(chain, p.dpre, chain=chain)
            wrong = assembled(p.equation.W, pieces(p.equation.W, p.z, p.dpre), {}, chain)
            for letters in ("A", "B", "S"):
                only = {name: block for name, block in wrong.items() if name[0] == letters}
                yield Recipe(f"{chain}, {letters}", p.dpre, edit=_replaced(only))

    return recipes


def _states(p: Point) -> Iterator[Recipe]:
    injection = p.pre - p.W.matvec(p.z)
    for detail, z in (("the pre-activation", p.pre), ("the injection", injection)):
        yield Recipe(detail, p.dpre, z=z)


def _mixed(p: Point) -> Iterator[Recipe]:
    yield Recipe("in the weights", p.dpre, for_weights=p.dz)
    yield Recipe("in the injection", p.dpre, for_injection=p.dz)
    yield Recipe("in the weights, J dz", p.dpre, for_weights=p.jac * p.dz)
    yield Recipe("in the injection, J dz", p.dpre, for_injection=p.jac * p.dz)


def _input_by_U(p: Point) -> Iterator[Recipe]:
    U = p.equation.U
    if U is not None and U.ndim == 2 and U.shape[0] == U.shape[1]:
        yield Recipe("", p.dpre, edit=_replaced({"x": p.dpre @ U.T}))


def _bypass(p: Point) -> Iterator[Recipe]:
    D = p.equation.D
    if p.equation.C is not None and D is not None:
        yield Recipe("D' dy left out of x", p.dpre, edit=lambda n, k: k - p.dy @ D if n == "x" else k)


def _alternatives(p: Point) -> Iterator[Recipe]:
    for name, T in getattr(p.equation.T, "alternatives", {}).items():
        K = T.linearise(p.z, p.x) if hasattr(T, "linearise") else None
        product = (lambda g, T=T: T.vjp_state(p.z, p.x, g)) if K is None else K.rmatvec
        w = systems.solve(product, p.dz)
        found = T.vjp_params(p.z, p.x, w)
        yield Recipe(name, w, edit=_replaced(flat(found)))


# ------------------------------------------------------------------------------------------------
# The list. Earlier entries are the more likely ones: a class of equal gradients is named by its first.

LIBRARY: tuple[Mistake, ...] = (
    Mistake(
        "jfb",
        "the Jacobian is left out: Jacobian-free backpropagation, w = dz instead of (I - K')^-1 dz",
        "Nothing, if it is meant: declare rule='jfb'. For the gradient solve the adjoint equation.",
        "JFB-Eq16",
        _jfb,
        legitimate=True,
    ),
    Mistake(
        "neumann",
        "the adjoint is stopped after k steps, a Neumann series of k powers of K'",
        "Nothing, if it is meant: declare rule='neumann:k'. For the gradient iterate to a tolerance.",
        "JFB-Eq22",
        _neumann,
        legitimate=True,
    ),
    Mistake(
        "neumann-peaceman-rachford",
        "the gradient goes through k + 1 Peaceman-Rachford steps from the equilibrium",
        "Nothing, if it is meant. For the gradient iterate Algorithm 4 to a tolerance.",
        "JFB-Eq22",
        _where(_monotone, _jfb_of_peaceman_rachford),
        legitimate=True,
    ),
    Mistake(
        "adjoint-not-transposed",
        "the adjoint is solved with W where it needs W', or with I - J W where it needs the transpose",
        "Use rmatvec (W.T) in the backward solve; symmetric test matrices hide this.",
        "MON-Eq18",
        _dpre(lambda p: p.forward_products, _not_transposed),
    ),
    Mistake(
        "slope-left-out-of-the-adjoint",
        "the slope J of the activation multiplies only the result: dpre = J (I - W')^-1 dz",
        "Solve dpre = J (dz + W' dpre): J belongs inside the system.",
        "MON-Thm2",
        _dpre(_layer, _slope_outside_only),
    ),
    Mistake(
        "slope-left-out-at-the-end",
        "u* = (I - JW)^-T dz is used where dpre = J u* belongs",
        "Multiply by J before the gradients by parameters: they need u-tilde, not u*.",
        "MON-Eq19",
        _where(_layer, _slope_missing_at_the_end),
    ),
    Mistake(
        "slope-on-the-wrong-side",
        "J and W' are in the wrong order: u = J dz + W' J u",
        "Solve dpre = J dz + J W' dpre.",
        "MON-Eq18",
        _dpre(_layer, _slopes_commuted),
    ),
    Mistake(
        "slope-applied-twice",
        "J is applied once too often: J dpre",
        "dpre already holds J.",
        "MON-Eq19",
        _dpre(_layer, lambda p: p.jac * p.dpre),
    ),
    Mistake(
        "printed-denominator",
        "the resolvent of Algorithms 3 and 4 as printed, (u + alpha v)/(1 + alpha (1 + D))",
        "Divide by 1 + alpha D.",
        "MON-Eq24",
        _dpre(_layer, _printed_denominator),
    ),
    Mistake(
        "slope-at-the-wrong-place",
        "J is the slope at z* (the post-activation), or at the injection",
        "Evaluate the slope at W z* + U x + b.",
        "MON-Eq11",
        _dpre(_layer, _other_slopes),
    ),
    Mistake(
        "slope-of-another-prox",
        "the slope is that of prox^alpha, or prox^1 where prox^alpha belongs",
        "The gradient at the equilibrium needs the slope of sigma = prox^1 at W z* + U x + b.",
        "MON-Alg4",
        _where(lambda p: _monotone(p) and not p.equation.activation.alpha_free, _slope_of_alpha),
    ),
    Mistake(
        "sign-of-w-in-the-adjoint",
        "the adjoint is solved with -W'",
        "Solve (I - J W') dpre = J dz.",
        "MON-Eq18",
        _dpre(lambda p: True, _sign_of_W),
    ),
    Mistake(
        "identity-left-out-of-the-adjoint",
        "W' in the adjoint lacks (1 - m) I, or its m",
        "W = (1 - m) I - A'A + B - B' in both passes.",
        "MON-Eq7",
        _dpre(_monotone, _identity_left_out),
    ),
    Mistake(
        "no-adjoint",
        "dz is used as if the layer were explicit and linear",
        "Solve dpre = J (dz + W' dpre) first.",
        "MON-Thm2",
        _dpre(_layer, _no_adjoint),
    ),
    Mistake(
        "adjoint-in-part-of-the-blocks",
        "some blocks are made with dz, or J dz, instead of dpre",
        "Use dpre for the weights and for the injection.",
        "MON-Thm2",
        _where(_layer, _mixed),
    ),
    Mistake(
        "adjoint-splitting-stopped",
        "Algorithm 3 or 4 is stopped after k steps",
        "Iterate to a certified tolerance.",
        "MON-Alg4",
        _where(_monotone, _splitting_stopped),
    ),
    Mistake(
        "sign-of-the-skew-part",
        "the sign of the gradient by B: B - B' taken as B' - B, or dW transposed",
        "dB = dW - dW' with dW = sum dpre z'.",
        "MON-Prop1",
        _where(_monotone, _skew_sign),
    ),
    Mistake(
        "weight-transposed",
        "the gradient by W is z dpre' instead of dpre z'",
        "dW = sum dpre z'.",
        "MON-Eq11",
        _edited(_plain, _transposed_block),
    ),
    Mistake(
        "gram-not-symmetrised",
        "the gradient by A takes one side of A'A only",
        "dA = -A (dW + dW').",
        "MON-Prop1",
        _coefficients(_monotone, {"A": (2, 0)}, {"A": (0, 2)}, {"A": (1, 0)}, {"A": (0, 1)}),
    ),
    Mistake(
        "gram-of-rows",
        "the gradient by A is that of A A'",
        "dA = -A (dW + dW'), A on the left.",
        "MON-Prop1",
        _where(lambda p: _monotone(p) and isinstance(p.equation.W, MonotoneDense), _gram_of_rows),
    ),
    Mistake(
        "sign-of-the-gram-part",
        "the gradient by A has the sign of + A'A",
        "W holds - A'A: dA = -A (dW + dW').",
        "MON-Prop1",
        _coefficients(_monotone, {"A": (-1, -1)}, {"A": (-1, -1, -1)}),
    ),
    Mistake(
        "skew-part-not-skew",
        "the gradient by B takes one term of B - B' only, or that of B + B'",
        "dB = dW - dW'.",
        "MON-Prop1",
        _coefficients(_monotone, {"B": (1, 0)}, {"B": (0, 1)}, {"B": (1, -1)}),
    ),
    Mistake(
        "weight-normalisation-left-out",
        "the norms ||A||, ||B|| are held constant, or the chain rule through the scales is left out",
        "Differentiate K/||K|| too: (c/s) (dK - <dK, K> K/s^2).",
        "MON-AppD.2-weightnorm",
        _where(_scaled, _chains("constant-norm", "raw")),
    ),
    Mistake(
        "root-of-the-scale",
        "the gradient by g lacks the derivative of its root",
        "d sqrt(g) = dg/(2 sqrt(g)).",
        "MON-AppD.2-weightnorm",
        _where(_scaled, lambda p: iter([Recipe("", p.dpre, chain="no-root")])),
    ),
    Mistake(
        "kernel-not-flipped",
        "the adjoint convolves with the kernels of the forward pass, not flipped; or a conjugate is missing in Fourier",
        "The transpose of a correlation turns its kernel by 180 degrees: conj(D)' in Fourier, not D'.",
        "MON-EqB4",
        _dpre(_kernels, lambda p: _solved(p, flipped(p.equation.W).rmatvec)),
    ),
    Mistake(
        "kernel-gradient-flipped",
        "the gradient by a kernel is turned by 180 degrees",
        "Correlate dpre with z, z shifted by d - centre.",
        "MON-EqB4",
        _where(_kernels, _kernel_edits),
    ),
    Mistake(
        "kernel-channels-swapped",
        "the gradient by a kernel has its channels, (out, in), swapped",
        "Kernels are (out, in, kh, kw).",
        "MON-EqB4",
        _where(_kernels, _swapped_channels),
    ),
    Mistake(
        "zero-padding-in-the-adjoint",
        "the adjoint is zero-padded where the forward pass wraps around",
        "Use one border in both passes, or the border prox.",
        "MON-Sec4.2-padding",
        _dpre(odd_convolution, _wrapped_or_not),
    ),
    Mistake(
        "border-forgotten",
        "the border of zeros is not zero in the adjoint",
        "The slope of the border is 0.",
        "MON-Sec4.2-padding",
        _dpre(lambda p: _layer(p) and isinstance(p.equation.activation, ZeroBorder), _border_forgotten),
    ),
    Mistake(
        "fourier-scale",
        "the DFT is not unitary: a factor of the number of pixels, or its root",
        "F must be unitary, 1/sqrt(s) for each axis, not 1/s.",
        "MON-EqB1",
        _where(_kernels, _wrong_fourier_scale),
    ),
    Mistake(
        "tiers-not-coupled-in-the-adjoint",
        "the adjoint leaves out what a tier passes to the next, or has it once for twice",
        "W_{i+1,i} = -2 A_{i+1}' S_i; its transpose carries gradients from the last tier to the first.",
        "MON-EqC6",
        _dpre(_tiers, _decoupled),
    ),
    Mistake(
        "coupling-left-out-of-the-gradient",
        "the gradients by A and S lack the block below the diagonal, -2 A_{i+1}' S_i",
        "Add C(S_i z_i, u_{i+1}) to A_{i+1} and C(A_{i+1} u_{i+1}, z_i) to S_i, both twice.",
        "MON-EqC3",
        _coefficients(
            _tiers,
            {"A": (1, 1, 0), "S": (1, 0, 1)},
            {"A": (1, 1, 0)},
            {"S": (1, 0, 1)},
            {"A": (1, 1, 0.5), "S": (1, 0.5, 1)},
            {"A": (1, 1, 0.5)},
            {"S": (1, 0.5, 1)},
        ),
    ),
    Mistake(
        "strided-gram-not-symmetrised",
        "the gradient by S takes one side of S'S only",
        "dS = -C(S u + 2 A u', z) - C(S z, u).",
        "MON-EqC5",
        _coefficients(_tiers, {"S": (2, 1, 0)}, {"S": (0, 1, 2)}, {"S": (1, 1, 0)}, {"S": (0, 1, 1)}, {"S": (0, 1, 0)}),
    ),
    Mistake(
        "stride-phase",
        "the strided convolution keeps the pixels 1, 1 + r, ... in the backward pass",
        "Keep the pixels 0, r, 2 r, ...",
        "MON-EqC13",
        _where(_tiers, _phase_in_the_gradient),
    ),
    Mistake(
        "detached",
        "a block is zero: its branch is detached, or its gradient was forgotten",
        "Let the gradient flow into it: W z, U x and b all take part.",
        "MON-Thm2",
        _detached,
    ),
    Mistake(
        "mean-for-sum",
        "the gradient is divided by the batch",
        "Sum over the batch; 1/batch belongs into the loss, once.",
        "MON-Eq11",
        _mean(-1),
    ),
    Mistake(
        "sum-for-mean",
        "the gradient is multiplied by the batch",
        "The 1/batch of the loss is already in dz.",
        "MON-Eq11",
        _mean(1),
    ),
    Mistake(
        "mean-over-pixels",
        "the gradient of the bias is a mean over pixels",
        "Sum over pixels and batch.",
        "MON-Eq11",
        _where(lambda p: _kernels(p) and p.equation.b is not None, _pixels),
    ),
    Mistake(
        "one-sample",
        "only one sample of the batch is seen",
        "Sum over the batch.",
        "MON-Eq11",
        _one_sample,
    ),
    Mistake(
        "factor-two",
        "twice the gradient",
        "Look for ||.||^2 without 1/2, or a branch counted twice.",
        "MON-Eq11",
        _edited(lambda p: True, _scalar(2.0)),
    ),
    Mistake(
        "factor-half",
        "half the gradient",
        "Look for a 1/2 too many.",
        "MON-Eq11",
        _edited(lambda p: True, _scalar(0.5)),
    ),
    Mistake(
        "sign",
        "minus the gradient",
        "Return the gradient, not the direction of descent.",
        "MON-Eq11",
        _edited(lambda p: True, _scalar(-1.0)),
    ),
    Mistake(
        "factor-in-one-block",
        "one block is twice or half what it should be",
        "Look for a branch counted twice, or a 1/2, in that block.",
        "MON-Eq11",
        _single_factors,
    ),
    Mistake("sign-of-one-block", "one block has the wrong sign", "Turn its sign.", "MON-Eq11", _signs),
    Mistake(
        "weights-at-the-wrong-state",
        "the gradient by the weights is made with the pre-activation, or the injection, where z* belongs",
        "dW = sum dpre z*'.",
        "MON-Eq11",
        _where(_layer, _states),
    ),
    Mistake(
        "input-by-u-not-transposed",
        "the gradient by x is U dpre instead of U' dpre",
        "dx = U' dpre.",
        "MON-Eq11",
        _where(_layer, _input_by_U),
    ),
    Mistake(
        "bypass-left-out",
        "the path of x through D is left out of its gradient",
        "dx = B' dpre + D' dy.",
        "GREEDY-Eq2",
        _where(_layer, _bypass),
    ),
    Mistake(
        "statistics-constant",
        "statistics of the batch are treated as constants, or another of the named alternatives of T",
        "Differentiate the mean and the variance too.",
        "JFB-Eq14",
        _where(lambda p: not _layer(p), _alternatives),
    ),
)
