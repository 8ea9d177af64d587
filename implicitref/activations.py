r"""Activations as proximal operators: ``sigma = prox^1_f``, and ``prox^alpha_f`` for every alpha > 0.

MON section 3.2 says that relu is a prox and that tanh, sigmoid and softplus are "close to" one. All
the activations here are exactly ``prox^1_f`` of a closed convex proper f [MON-Sec3.2-prox]. A splitting
with step alpha needs ``prox^alpha_f``, which the printed algorithms replace by sigma: that is right
only for alpha = 1 or an indicator f (``alpha_free``) [MON-Eq8, MON-Alg2].

One formula serves all of them [NEW-prox-alpha]: stationarity of (4) at z reads (x - z)/alpha in df(z), and
``w - z in df(z)`` exactly where z = sigma(w). With w - z = (x - z)/alpha,

    prox^alpha_f(x) = sigma(w),   alpha w + (1 - alpha) sigma(w) = x,

whose left side increases in w with slope between min(1, alpha) and max(1, alpha).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .arrays import (
    Array,
    as_number,
    count,
    eps,
    from_numpy,
    is_array,
    namespace,
    native,
    one_of,
    positive,
    quiet,
    real_dtypes,
    to_numpy,
    zeros,
)
from .errors import HypothesisError, ShapeError

__all__ = [
    "NAMES",
    "Activation",
    "ZeroBorder",
    "arctan",
    "elu",
    "gelu",
    "get",
    "hardtanh",
    "leaky_relu",
    "mish",
    "relu",
    "selu",
    "sigmoid",
    "silu",
    "soft_threshold",
    "softplus",
    "tanh",
    "zero_border",
]

MAX_NEWTON = 60  # at most 22 were seen for alpha in [1e-6, 1e6]; bisection alone needs 53


@dataclasses.dataclass(frozen=True, eq=False)
class Activation:
    r"""An elementwise activation with ``sigma = prox^1_f``.

    Attributes
    ----------
    name : str
        With the parameter, if there is one: ``"leaky_relu(0.1)"``.
    sigma, slope, f : callable
        The activation, a Clarke element of its derivative in [0, 1], and f, entry by entry.
    closed_root : callable, optional
        ``(x, alpha) -> w`` where the root has a closed form; Newton's method otherwise.
    alpha_free : bool
        prox^alpha_f does not depend on alpha: f is an indicator.
    strong : float
        f is ``strong``-strongly convex: sigma is 1/(1 + strong)-Lipschitz [NEW-strong-prox].

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[-1.0, 0.5]])
    >>> leaky = leaky_relu(0.5)
    >>> leaky(x), leaky.prox(x, 4.0)
    (array([[-0.5,  0.5]]), array([[-0.2,  0.5]]))
    """

    name: str
    sigma: Callable[[Array], Array]
    slope: Callable[[Array], Array]
    f: Callable[[Array], Array]
    closed_root: Callable[[Array, float], Array] | None = None
    alpha_free: bool = False
    strong: float = 0.0

    def __call__(self, x: Array) -> Array:
        """sigma(x) = prox^1_f(x), entry by entry."""
        return self.sigma(_real(x))

    def __repr__(self) -> str:
        return self.name

    def prox(self, x: Array, alpha: float = 1.0) -> Array:
        """prox^alpha_f(x) = argmin_z ||x - z||^2/2 + alpha f(z), entry by entry (MON eq. 4); alpha > 0."""
        alpha = positive("alpha", alpha, " [MON-Eq4]")
        if alpha == 1.0 or self.alpha_free:
            return self.sigma(_real(x))
        return self.sigma(self.root(x, alpha))

    def derivative(self, x: Array, alpha: float = 1.0) -> Array:
        """A Clarke element of d prox^alpha_f(x)/dx, in [0, 1]: sigma'/(sigma' + alpha (1 - sigma')) at the root w."""
        alpha = positive("alpha", alpha, " [MON-Eq4]")
        if alpha == 1.0 or self.alpha_free:
            return self.slope(_real(x))
        slope = self.slope(self.root(x, alpha))
        return slope / (slope + alpha * (1 - slope))

    def value(self, z: Array) -> Array:
        """f(z), entry by entry; +inf outside its domain. f vanishes at its minimiser over sigma's range or is left
        with the constant of the register's table, since only differences of f matter.
        """
        with quiet():  # outside the domain the formula may overflow before +inf replaces it
            return self.f(_real(z))

    def root(self, x: Array, alpha: float) -> Array:
        """w with alpha w + (1 - alpha) sigma(w) = x, so that prox^alpha_f(x) = sigma(w)."""
        if self.closed_root:
            return self.closed_root(_real(x), alpha)
        with quiet():  # near the end of the range the bracket and the backward error may overflow
            return newton(self.sigma, self.slope, _real(x), alpha)[0]

    def samples(self, part: slice) -> Activation:
        """The same for some samples of a batch: itself."""
        return self

    def resolvent(self, alpha: float) -> Callable[[Array], Array]:
        """u -> prox^alpha_f(u), the resolvent of alpha df (MON eq. A7)."""
        return self.sigma if self.alpha_free else lambda u: self.prox(u, alpha)

    def reflection(self, alpha: float) -> Callable[[Array], Array]:
        """u -> 2 prox^alpha_f(u) - u, the Cayley operator of df (MON eq. A5); |u| for relu."""
        if self is relu:
            return _absolute
        return lambda u: 2 * self.prox(u, alpha) - u


def newton(
    sigma: Callable[[Array], Array], slope: Callable[[Array], Array], x: Array, alpha: float
) -> tuple[Array, int]:
    r"""The root w of ``F(w) = alpha w + (1 - alpha) sigma(w) - x`` and the number of steps taken.

    Newton's method from w = x inside a bracket: F has slopes in [min(1, alpha), max(1, alpha)], so the root
    lies between ``x - F(x)/max`` and ``x - F(x)/min``. A step that leaves the bracket is replaced by its
    middle. Ends on the backward error |F| <= 8 eps (alpha |w| + |1 - alpha| |sigma| + |x|): a test on the
    step can run for ever [NEW-prox-alpha].
    """
    xp = namespace(x)
    given, finite = x, xp.isfinite(x)  # the root at +-inf is +-inf
    x = xp.where(finite, x, xp.zeros_like(x))
    w, residual = x, (alpha - 1) * (x - sigma(x))
    ends = x - residual / min(1.0, alpha), x - residual / max(1.0, alpha)
    rounding = 4 * eps(x) * xp.abs(x)  # of the ends: where |x| >> |w| it would put the root outside
    low, high = xp.minimum(*ends) - rounding, xp.maximum(*ends) + rounding
    open_ = xp.abs(residual) > 8 * eps(x) * (1 + abs(1 - alpha)) * xp.abs(x)
    steps = 0
    while bool(xp.any(open_)) and steps < MAX_NEWTON:
        trial = w - residual / (alpha + (1 - alpha) * slope(w))
        trial = xp.where((trial >= low) & (trial <= high), trial, low / 2 + high / 2)
        w = xp.where(open_, trial, w)
        s = sigma(w)
        residual = alpha * w + (1 - alpha) * s - x
        low, high = xp.where(residual < 0, w, low), xp.where(residual > 0, w, high)
        open_ = xp.abs(residual) > 8 * eps(x) * (alpha * xp.abs(w) + abs(1 - alpha) * xp.abs(s) + xp.abs(x))
        steps += 1
    return xp.where(finite, w, given), steps


def _real(x: Any) -> Array:
    if not is_array(x):
        raise TypeError(f"x must be an array; got {type(x).__name__}. Use numpy.asarray.")
    x = native(x)
    if x.dtype not in real_dtypes(x):
        raise HypothesisError(f"x must be float32 or float64; got dtype {x.dtype}. Convert it with astype.")
    return x


# ------------------------------------------------------------------------------------------------
# relu: f = 0 on [0, inf)


def _absolute(u: Array) -> Array:
    return namespace(u).abs(u)


def _relu(x: Array) -> Array:
    # on NumPy zeros are twice as fast as the number 0; of a large state one row of them, which costs no memory
    row = x[:1, ...] if math.prod(x.shape) > 2**18 else x
    return namespace(x).maximum(x, zeros(row.shape, row))


def _step(x: Array) -> Array:
    return namespace(x).astype(x > 0, x.dtype)


def _indicator(inside: Array, z: Array) -> Array:
    return namespace(z).where(inside, from_numpy(np.zeros(()), z), from_numpy(np.asarray(math.inf), z))


def _relu_f(z: Array) -> Array:
    return _indicator(z >= 0, z)


def _relu_root(x: Array, alpha: float) -> Array:
    return _indicator_root(x, _relu(x), alpha)


def _indicator_root(x: Array, z: Array, alpha: float) -> Array:
    # prox^alpha = prox^1 = sigma where f is an indicator: w - z = (x - z)/alpha with the same z
    return z + (x - z) / alpha


relu = Activation("relu", _relu, _step, _relu_f, _relu_root, alpha_free=True)


# ------------------------------------------------------------------------------------------------
# leaky relu: f = (1/a - 1) min(z, 0)^2 / 2


def _leaky(x: Array, a: float) -> Array:
    return _larger(a * x, x)  # as a <= 1; on NumPy ten times as fast as a choice by x > 0


def _leaky_slope(x: Array, a: float) -> Array:
    return _larger(_step(x), a)


def _larger(fresh: Array, other: Any) -> Array:
    # the maximum, in the memory of `fresh` where that can be
    if type(fresh) is np.ndarray:  # not of one number
        return np.maximum(fresh, other, out=fresh)
    return namespace(fresh).maximum(fresh, other)


def _leaky_f(z: Array, a: float) -> Array:
    negative = -_relu(-z)
    return (1 / a - 1) / 2 * negative * negative


def _leaky_root(x: Array, alpha: float, a: float) -> Array:
    return namespace(x).where(x > 0, x, x / (a + alpha * (1 - a)))


def leaky_relu(slope: float = 0.01) -> Activation:
    """x for x > 0, slope * x otherwise; 0 < slope <= 1.

    Examples
    --------
    >>> leaky_relu(0.5)
    leaky_relu(0.5)
    """
    slope = _number("leaky_relu", "slope", slope)
    a = _parameter("leaky_relu", "slope", slope, 0 < slope <= 1, "0 < slope <= 1: outside it is no prox [NEW-not-prox]")
    sigma, slope_, f, root = (functools.partial(part, a=a) for part in (_leaky, _leaky_slope, _leaky_f, _leaky_root))
    return Activation(f"leaky_relu({a:g})", sigma, slope_, f, root, alpha_free=a == 1)  # the identity: f = 0


# ------------------------------------------------------------------------------------------------
# hardtanh: f = 0 on [-1, 1]


def _hardtanh(x: Array) -> Array:
    return namespace(x).clip(x, -1.0, 1.0)


def _hardtanh_slope(x: Array) -> Array:
    xp = namespace(x)
    return xp.astype(xp.abs(x) < 1, x.dtype)


def _hardtanh_f(z: Array) -> Array:
    return _indicator(_absolute(z) <= 1, z)


def _hardtanh_root(x: Array, alpha: float) -> Array:
    return _indicator_root(x, _hardtanh(x), alpha)


hardtanh = Activation("hardtanh", _hardtanh, _hardtanh_slope, _hardtanh_f, _hardtanh_root, alpha_free=True)


# ------------------------------------------------------------------------------------------------
# soft threshold: f = lam |z|


def _soft(x: Array, lam: float) -> Array:
    return x - namespace(x).clip(x, -lam, lam)


def _soft_slope(x: Array, lam: float) -> Array:
    xp = namespace(x)
    return xp.astype(xp.abs(x) > lam, x.dtype)


def _soft_f(z: Array, lam: float) -> Array:
    return lam * _absolute(z)


def _soft_root(x: Array, alpha: float, lam: float) -> Array:
    xp = namespace(x)
    shift = (1 - alpha) * lam
    return xp.where(xp.abs(x) > alpha * lam, x + shift * xp.sign(x), x / alpha)


def soft_threshold(lam: float = 1.0) -> Activation:
    """sign(x) max(|x| - lam, 0), lam >= 0.

    Examples
    --------
    >>> import numpy as np
    >>> soft_threshold(1.0).prox(np.array([3.0, -0.5]), 2.0)
    array([1., 0.])
    """
    lam = _number("soft_threshold", "lam", lam)
    level = _parameter("soft_threshold", "lam", lam, lam >= 0, "lam >= 0")
    sigma, slope, f, root = (functools.partial(part, lam=level) for part in (_soft, _soft_slope, _soft_f, _soft_root))
    return Activation(f"soft_threshold({level:g})", sigma, slope, f, root)


# ------------------------------------------------------------------------------------------------
# tanh: f = [(1 + z) ln(1 + z) + (1 - z) ln(1 - z) - z^2] / 2 on [-1, 1]


def _tanh(x: Array) -> Array:
    return namespace(x).tanh(x)


def _tanh_slope(x: Array) -> Array:
    # 1/cosh^2 through e = exp(-|x|): 1 - tanh^2 cancels, cosh overflows
    xp = namespace(x)
    e = xp.exp(-xp.abs(x))
    inverse_cosh = 2 * e / (1 + e * e)
    return xp.clip(inverse_cosh * inverse_cosh, 0.0, 1.0)  # <= 1 but for rounding, which a large alpha would enlarge


def _entropy(t: Array) -> Array:
    # t ln t with its limit 0 at 0; NaN for t < 0, which the callers replace by +inf
    xp = namespace(t)
    return t * xp.log(xp.where(t > 0, t, xp.ones_like(t)))


def _on(inside: Array, values: Array) -> Array:
    return namespace(values).where(inside, values, namespace(values).full_like(values, math.inf))


def _tanh_f(z: Array) -> Array:
    return _on(_absolute(z) <= 1, (_entropy(1 + z) + _entropy(1 - z) - z * z) / 2)


tanh = Activation("tanh", _tanh, _tanh_slope, _tanh_f)


# ------------------------------------------------------------------------------------------------
# sigmoid: f = z ln z + (1 - z) ln(1 - z) - z^2/2 on [0, 1], 3-strongly convex (sigma is 1/4-Lipschitz)


def _sigmoid(x: Array) -> Array:
    xp = namespace(x)
    e = xp.exp(-xp.abs(x))
    return xp.where(x > 0, xp.ones_like(x), e) / (1 + e)


def _sigmoid_slope(x: Array) -> Array:
    xp = namespace(x)
    e = xp.exp(-xp.abs(x))
    return e / ((1 + e) * (1 + e))


def _sigmoid_f(z: Array) -> Array:
    return _on((z >= 0) & (z <= 1), _entropy(z) + _entropy(1 - z) - z * z / 2)


sigmoid = Activation("sigmoid", _sigmoid, _sigmoid_slope, _sigmoid_f, strong=3.0)


# ------------------------------------------------------------------------------------------------
# softplus: f = Li2(exp(-z)) on [0, inf)


def _softplus(x: Array) -> Array:
    xp = namespace(x)
    return _relu(x) + xp.log1p(xp.exp(-xp.abs(x)))


def _softplus_f(z: Array) -> Array:
    from scipy.special import spence  # Li2(y) = spence(1 - y); no array library has it

    host = to_numpy(z)
    inside = host >= 0
    return from_numpy(np.where(inside, spence(-np.expm1(-np.where(inside, host, 0.0))), math.inf), z)


softplus = Activation("softplus", _softplus, _sigmoid, _softplus_f)


# ------------------------------------------------------------------------------------------------
# elu, 0 < a <= 1: f = (z + a) ln(1 + z/a) - z - z^2/2 on [-a, 0], 0 beyond


def _elu(x: Array, a: float) -> Array:
    xp = namespace(x)
    return xp.where(x > 0, x, a * xp.expm1(-_relu(-x)))


def _elu_slope(x: Array, a: float) -> Array:
    xp = namespace(x)
    return xp.where(x > 0, xp.ones_like(x), a * xp.exp(-_relu(-x)))


def _elu_f(z: Array, a: float) -> Array:
    negative = -_relu(-z)
    return _on(z >= -a, a * _entropy(1 + negative / a) - negative - negative * negative / 2)


def elu(a: float = 1.0) -> Activation:
    """x for x > 0, a (exp(x) - 1) otherwise; 0 < a <= 1.

    Raises
    ------
    HypothesisError
        a > 1: the slope at 0 from the left is a, and a prox has slopes in [0, 1].

    Examples
    --------
    >>> elu(1.0)
    elu(1)
    """
    reason = "0 < a <= 1: for a > 1 the slope at 0- is a > 1, and a prox has slopes in [0, 1] [NEW-not-prox]"
    a = _number("elu", "a", a)
    level = _parameter("elu", "a", a, 0 < a <= 1, reason)
    sigma, slope, f = (functools.partial(part, a=level) for part in (_elu, _elu_slope, _elu_f))
    return Activation(f"elu({level:g})", sigma, slope, f)


# ------------------------------------------------------------------------------------------------
# arctan: f = -ln cos z - z^2/2 on (-pi/2, pi/2)


def _arctan(x: Array) -> Array:
    return namespace(x).atan(x)


def _arctan_slope(x: Array) -> Array:
    x = namespace(x).clip(x, -1e18, 1e18)  # the square stays finite in float32
    return 1 / (1 + x * x)


def _arctan_f(z: Array) -> Array:
    xp = namespace(z)
    inside = xp.abs(z) < math.pi / 2
    return _on(inside, -xp.log(xp.cos(xp.where(inside, z, xp.zeros_like(z)))) - z * z / 2)


arctan = Activation("arctan", _arctan, _arctan_slope, _arctan_f)


# ------------------------------------------------------------------------------------------------
# zero border: f plus the indicator of {border = 0} (MON section 4.2)


@dataclasses.dataclass(frozen=True, eq=False)
class ZeroBorder:
    """An activation that also sets the border of every image to zero; see `zero_border`."""

    inner: Activation
    width: int
    shapes: tuple[tuple[int, int, int], ...] | None = None

    def __repr__(self) -> str:
        return f"zero_border({self.inner!r}, {self.width})"

    @property
    def alpha_free(self) -> bool:
        """Whether prox^alpha does not depend on alpha."""
        return self.inner.alpha_free

    @property
    def strong(self) -> float:
        """Strong convexity of f."""
        return self.inner.strong

    def __call__(self, x: Array) -> Array:
        """sigma(x) inside, 0 on the border."""
        return self._mask(x, self.inner(x))

    def prox(self, x: Array, alpha: float = 1.0) -> Array:
        """prox^alpha of f plus the indicator of {border = 0}: prox^alpha_f inside, 0 on the border."""
        return self._mask(x, self.inner.prox(x, alpha))

    def root(self, x: Array, alpha: float) -> Array:
        """w with prox^alpha(x) = sigma(w): the inner root inside, x/alpha on the border."""
        return self._with_border(self.inner.root(x, alpha), 1 / alpha, x)

    def derivative(self, x: Array, alpha: float = 1.0) -> Array:
        """The derivative inside, 0 on the border."""
        return self._mask(x, self.inner.derivative(x, alpha))

    def value(self, z: Array) -> Array:
        """f inside; on the border 0 at 0 and +inf elsewhere."""
        return namespace(z).where(self._inside(z), self.inner.value(z), _indicator(z == 0, z))

    def samples(self, part: slice) -> ZeroBorder:
        """The same for some samples of a batch: itself."""
        return self

    def resolvent(self, alpha: float) -> Callable[[Array], Array]:
        """u -> prox^alpha(u)."""
        return lambda u: self.prox(u, alpha)

    def reflection(self, alpha: float) -> Callable[[Array], Array]:
        """u -> 2 prox^alpha(u) - u: the inner reflection inside, -u on the border."""
        inner = self.inner.reflection(alpha)
        return lambda u: self._with_border(inner(u), -1.0, u)

    def _mask(self, x: Array, values: Array) -> Array:
        return self._with_border(values, 0.0, x)

    def _with_border(self, values: Array, factor: float, x: Array) -> Array:
        """`values` inside, ``factor * x`` on the border."""
        xp, inside = namespace(values), self._inside(x)
        if type(values) is not np.ndarray or not values.flags.writeable or values is x:
            return xp.where(inside, values, factor * x if factor else xp.zeros_like(values))
        # a fresh array, nobody else holds it: a tenth of the entries, whatever their order in memory
        for strip, source in zip(self._strips(values), self._strips(x), strict=True):
            strip[...] = factor * source if factor else 0.0
        return values

    def _strips(self, x: np.ndarray) -> list[np.ndarray]:
        """Views of the four sides of every image."""
        strips, w, start = [], self.width, 0
        for c, h, columns in self.shapes or (x.shape[1:],):
            tier = x if self.shapes is None else x[:, start : start + c * h * columns].reshape(-1, c, h, columns)
            strips += [tier[:, :, :w], tier[:, :, h - w :], tier[..., :w], tier[..., columns - w :]]
            start += c * h * columns
        return strips

    def _inside(self, x: Array) -> Array:
        xp = namespace(x)
        if self.shapes is None and x.ndim != 4:
            raise ShapeError(
                f"zero_border without shapes needs states (batch, channels, height, width); got shape {tuple(x.shape)}."
                " Give shapes for flat states."
            )
        mask = _interior(self.width, self.shapes or (tuple(x.shape[1:]),))
        if self.shapes is not None and tuple(x.shape[-1:]) != (mask.size,):
            raise ShapeError(
                f"zero_border shapes hold {mask.size} entries a sample; the state has shape {tuple(x.shape)}."
            )
        mask = mask if self.shapes is not None else mask.reshape(x.shape[1:])
        return xp.asarray(mask, device=x.device) if hasattr(x, "device") else xp.asarray(mask)


@functools.lru_cache(maxsize=64)
def _interior(width: int, shapes: tuple[tuple[int, int, int], ...]) -> np.ndarray:
    masks = []
    for channels, height, columns in shapes:
        mask = np.zeros((channels, height, columns), dtype=bool)
        mask[:, width : height - width, width : columns - width] = True
        masks.append(mask.ravel())
    return np.concatenate(masks)


def zero_border(activation: Activation, width: int, shapes: list[tuple[int, int, int]] | None = None) -> ZeroBorder:
    """The activation with `width` border pixels of every image held at zero (MON section 4.2, zero padding).

    Setting an entry to zero is the prox of the indicator of {0}, so this is again ``prox^1`` of a closed
    convex proper function, for every alpha.

    Parameters
    ----------
    activation : Activation
    width : int
        Border pixels on each side, >= 0.
    shapes : list of (channels, height, width), optional
        The tiers of a flat state (batch, n), as in ``W.shapes``. Without it states are images.

    Raises
    ------
    HypothesisError
        `width` is not an integer >= 0, or `shapes` are no shapes.

    Examples
    --------
    >>> import numpy as np
    >>> zero_border(relu, 1)(np.ones((1, 1, 3, 3))).sum()
    np.float64(1.0)
    """
    if not isinstance(activation, Activation):
        raise HypothesisError(f"activation must be one of implicitref.activations; got {activation!r}.")
    width = count("width", width, 0)
    return ZeroBorder(activation, width, None if shapes is None else _tiers(shapes))


def _tiers(shapes: Any) -> tuple[tuple[int, int, int], ...]:
    try:
        found = tuple((count("shapes", c), count("shapes", h), count("shapes", w)) for c, h, w in shapes)
    except (TypeError, ValueError):
        found = ()
    if not found:
        raise HypothesisError(f"shapes must hold (channels, height, width), integers >= 1, a tier; got {shapes!r}.")
    return found


# ------------------------------------------------------------------------------------------------
# by name, and what is refused

NAMES: dict[str, Any] = {
    "relu": relu,
    "leaky_relu": leaky_relu,
    "tanh": tanh,
    "sigmoid": sigmoid,
    "softplus": softplus,
    "elu": elu,
    "arctan": arctan,
    "hardtanh": hardtanh,
    "soft_threshold": soft_threshold,
}

_SLOPES = {
    "gelu": "its slope runs from -0.13 to 1.13",
    "silu": "its slope is negative for x < -1.28 and reaches 1.10",
    "mish": "its slope is negative for x < -1.19 and reaches 1.09",
    "selu": "its slope at 0- is 1.758",
}


def _refuse(name: str, *_: Any, **__: Any) -> Activation:
    raise HypothesisError(
        f"{name} is not a proximal operator: {_SLOPES[name]}, and prox^1_f is nondecreasing with slopes in [0, 1] "
        f"for every convex f, so Theorem 1 does not apply [NEW-not-prox]. Use one of {', '.join(NAMES)}."
    )


gelu = functools.partial(_refuse, "gelu")
silu = functools.partial(_refuse, "silu")
mish = functools.partial(_refuse, "mish")
selu = functools.partial(_refuse, "selu")


def get(name: str, *parameters: float) -> Activation:
    """The activation called `name`, with its parameter if it has one.

    Examples
    --------
    >>> get("leaky_relu", 0.2)
    leaky_relu(0.2)
    """
    if isinstance(name, str) and name in _SLOPES:
        _refuse(name)
    found = one_of("activation", name, NAMES)
    if len(parameters) > (takes := 0 if isinstance(found, Activation) else 1):
        raise HypothesisError(f"{name} has {('no', 'one')[takes]} parameter; got {', '.join(map(repr, parameters))}.")
    return found if isinstance(found, Activation) else found(*parameters)


def _number(activation: str, name: str, value: Any) -> float:
    number = as_number(value)
    if number is None:
        raise HypothesisError(f"{activation} needs a number as {name}; got {value!r}.")
    return number


def _parameter(activation: str, name: str, value: float, holds: bool, requirement: str) -> float:
    if not (holds and math.isfinite(value)):
        raise HypothesisError(f"{activation} needs {requirement}; got {name} = {value!r}.")
    return float(value)
