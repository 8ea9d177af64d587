"""Second sources: definitions, enumerations and differences that share no code with the package."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.special


def assert_close(actual: Any, desired: Any, *, scale: float, tol: float) -> None:
    """``max |actual - desired| <= tol * scale``, with shapes equal and everything finite.

    The scale is explicit, so that nothing passes because it is small, and a NaN never passes.
    """
    actual, desired = np.asarray(actual, dtype=np.float64), np.asarray(desired, dtype=np.float64)
    assert actual.shape == desired.shape, f"shapes differ: {actual.shape}, {desired.shape}"
    assert math.isfinite(scale), f"scale must be finite, got {scale}"
    assert scale > 0, f"scale must be > 0, got {scale}"
    assert 0 < tol < 1, f"tol must lie in (0, 1), got {tol}"
    assert np.isfinite(actual).all(), f"{np.count_nonzero(~np.isfinite(actual))} entries of actual are not finite"
    assert np.isfinite(desired).all(), "desired is not finite"
    error = np.abs(actual - desired)
    worst = np.unravel_index(np.argmax(error), error.shape) if error.size else ()
    largest = float(np.max(error, initial=0.0))
    assert largest <= tol * scale, (
        f"error {largest:.3e} > {tol:.1e} * {scale:.3e} at {worst}: {actual[worst]!r} for {desired[worst]!r}"
    )


def size(*arrays: Any) -> float:
    """1 + the largest magnitude in the arrays: the usual scale."""
    return 1 + max((float(np.max(np.abs(np.asarray(a)), initial=0.0)) for a in arrays), default=0.0)


# ------------------------------------------------------------------------------------------------
# Activations by their definitions: sigma, its derivative, f with its domain, kinks. Keys are repr(activation).


def _elu(a: float) -> dict[str, Any]:
    def f(z: Any) -> Any:
        return 0 if z >= 0 else (z + a) * (mpmath.log1p(z / a) if z > -a else 0) - z - z * z / 2

    return {
        "sigma": lambda x: np.where(x > 0, x, a * np.expm1(np.minimum(x, 0))),
        "slope": lambda x: np.where(x > 0, 1.0, a * np.exp(np.minimum(x, 0))),
        "f": f,
        "domain": (-a, math.inf),
        "kinks": [] if a == 1 else [0.0],
    }


def _leaky(a: float) -> dict[str, Any]:
    return {
        "sigma": lambda x: np.maximum(x, a * x),
        "slope": lambda x: np.where(x > 0, 1.0, a),
        "f": lambda z: 0 if z >= 0 else (1 / mpmath.mpf(a) - 1) / 2 * z * z,
        "domain": (-math.inf, math.inf),
        "kinks": [0.0],
    }


def _soft(lam: float) -> dict[str, Any]:
    return {
        "sigma": lambda x: np.sign(x) * np.maximum(np.abs(x) - lam, 0),
        "slope": lambda x: (np.abs(x) > lam).astype(float),
        "f": lambda z: lam * abs(z),
        "domain": (-math.inf, math.inf),
        "kinks": [-lam, lam],
    }


def _xlogx(t: Any) -> Any:
    return t * mpmath.log(t) if t > 0 else mpmath.mpf(0)


DEFINITIONS: dict[str, dict[str, Any]] = {
    "relu": {
        "sigma": lambda x: np.maximum(x, 0),
        "slope": lambda x: (x > 0).astype(float),
        "f": lambda z: 0,
        "domain": (0, math.inf),
        "kinks": [0.0],
    },
    "hardtanh": {
        "sigma": lambda x: np.minimum(np.maximum(x, -1), 1),
        "slope": lambda x: (np.abs(x) < 1).astype(float),
        "f": lambda z: 0,
        "domain": (-1, 1),
        "kinks": [-1.0, 1.0],
    },
    "tanh": {
        "sigma": np.tanh,
        "slope": lambda x: np.cosh(np.clip(x, -350, 350)) ** -2.0,
        "f": lambda z: (_xlogx(1 + z) + _xlogx(1 - z) - z * z) / 2,
        "domain": (-1, 1),
        "kinks": [],
    },
    "sigmoid": {
        "sigma": scipy.special.expit,
        "slope": lambda x: scipy.special.expit(x) * scipy.special.expit(-x),
        "f": lambda z: _xlogx(z) + _xlogx(1 - z) - z * z / 2,
        "domain": (0, 1),
        "kinks": [],
    },
    "softplus": {
        "sigma": lambda x: np.logaddexp(0, x),
        "slope": scipy.special.expit,
        "f": lambda z: mpmath.polylog(2, mpmath.exp(-z)).real,
        "domain": (0, math.inf),
        "kinks": [],
    },
    "arctan": {
        "sigma": np.arctan,
        "slope": lambda x: 1 / (1 + np.square(x)),
        "f": lambda z: -mpmath.log(mpmath.cos(z)) - z * z / 2,
        "domain": (-math.pi / 2, math.pi / 2),
        "kinks": [],
    },
    "elu(1)": _elu(1.0),
    "elu(0.5)": _elu(0.5),
    "leaky_relu(0.01)": _leaky(0.01),
    "leaky_relu(0.3)": _leaky(0.3),
    "leaky_relu(1)": _leaky(1.0),
    "soft_threshold(0.5)": _soft(0.5),
}


def prox(name: str, x: float, alpha: float, digits: int = 50) -> float:
    """argmin_z (x - z)^2/2 + alpha f(z) by golden section on the objective, in `digits` digits of mpmath."""
    entry = DEFINITIONS[name]
    with mpmath.workdps(digits):
        low, high = _bracket(entry["domain"], mpmath.mpf(x), alpha)

        def objective(z: Any) -> Any:
            return (x - z) ** 2 / 2 + mpmath.mpf(alpha) * entry["f"](z)

        return float(_golden(objective, low, high, mpmath.mpf(10) ** (3 - digits // 2)))


def _bracket(domain: tuple[float, float], x: Any, alpha: float) -> tuple[Any, Any]:
    # f is monotone on each side of 0 or bounded there, so the minimiser lies within |x| + 2 of 0 for alpha f(0) small;
    # softplus moves right by at most sqrt(2 alpha f(0)), f(0) = pi^2/6
    reach = abs(x) + 2 + mpmath.sqrt(4 * mpmath.mpf(alpha))
    low = max(mpmath.mpf(domain[0]), -reach) if math.isfinite(domain[0]) else -reach
    high = min(mpmath.mpf(domain[1]), reach) if math.isfinite(domain[1]) else reach
    if math.isfinite(domain[1]) and domain[1] > 1.5:  # arctan: the end is pi/2 to every digit, and open
        high, low = mpmath.pi / 2, -mpmath.pi / 2
        return low + (high - low) * mpmath.mpf(10) ** -35, high - (high - low) * mpmath.mpf(10) ** -35
    return low, high


def _golden(objective: Callable[[Any], Any], low: Any, high: Any, width: Any) -> Any:
    ratio = (mpmath.sqrt(5) - 1) / 2
    a, b = high - ratio * (high - low), low + ratio * (high - low)
    fa, fb = objective(a), objective(b)
    while high - low > width:
        if fa <= fb:
            high, b, fb = b, a, fa
            a = high - ratio * (high - low)
            fa = objective(a)
        else:
            low, a, fa = a, b, fb
            b = low + ratio * (high - low)
            fb = objective(b)
    return (low + high) / 2


def curvature(name: str, z: float) -> float:
    """f''(z) by differences in 60 digits."""
    with mpmath.workdps(60):
        return float(
            mpmath.diff(lambda t: mpmath.mpf(DEFINITIONS[name]["f"](t)), mpmath.mpf(z), 2, h=mpmath.mpf(10) ** -15)
        )


# ------------------------------------------------------------------------------------------------
# W by its definition, and its derivatives by complex steps


def dense_weight(A: Any, B: Any, m: Any, g: Any = None, h: Any = None, norms_of: Any = None) -> np.ndarray:
    """(1 - m) I - [g/||A||^2] A'A + [h/||B||] (B - B'), entry by entry; analytic, so complex steps pass through.

    The norms are those of the pair `norms_of`, by default of A and B.
    """
    A, B = np.asarray(A), np.asarray(B)
    square_A, square_B = (np.square(p).sum() for p in norms_of or (A, B))
    gram = np.einsum("ki,kj->ij", A, A)
    skew = B - np.einsum("ij->ji", B)
    if g is not None:
        gram = g * gram / square_A
    if h is not None:
        skew = h * skew / np.sqrt(square_B)
    return (1 - m) * np.identity(A.shape[0]) - gram + skew


def correlation(kernel: Any, size: tuple[int, int]) -> np.ndarray:
    """The matrix of ``(K z)_o(x) = sum k[o, i, d] z_i(x + d - (k - 1)//2)``, wrapped, one roll for each d; analytic."""
    kernel = np.asarray(kernel)
    (o, i, kh, kw), pixels = kernel.shape, np.arange(size[0] * size[1])
    K = np.zeros((o, pixels.size, i, pixels.size), kernel.dtype)
    for a, b in np.ndindex(kh, kw):
        seen = np.roll(pixels.reshape(size), ((kh - 1) // 2 - a, (kw - 1) // 2 - b), axis=(0, 1)).ravel()
        K[:, pixels, :, seen] += kernel[:, :, a, b]
    return K.reshape(o * pixels.size, i * pixels.size)


def conv_weight(A: Any, B: Any, m: Any, size: tuple[int, int], g: Any = None, h: Any = None) -> np.ndarray:
    """`dense_weight` of two circular convolutions, with the norms of the kernels."""
    A, B = np.asarray(A), np.asarray(B)
    return dense_weight(correlation(A, size), correlation(B, size), m, g, h, norms_of=(A, B))


def weight_gradient(
    H: np.ndarray, params: dict[str, Any], weight: Callable[..., np.ndarray] = dense_weight
) -> dict[str, Any]:
    """d<H, W>/d(parameter) of every entry of every parameter, by complex steps: no cancellation, exact to eps.

    A parameter that is a list of arrays has a list of gradients.
    """
    return {name: _complex_gradient(lambda p, name=name: (H * weight(**(params | {name: p}))).sum(), params[name])
            for name in params}  # fmt: skip


def _complex_gradient(function: Callable[[Any], Any], at: Any) -> Any:
    if not isinstance(at, list):
        return _complex_steps(function, at)
    return [_complex_steps(lambda p, k=k: function([*at[:k], p, *at[k + 1 :]]), entry) for k, entry in enumerate(at)]


def _complex_steps(function: Callable[[Any], Any], at: Any, step: float = 1e-30) -> np.ndarray:
    at = np.asarray(at, dtype=np.float64)
    gradient = np.empty(at.shape)
    for index in np.ndindex(at.shape):
        moved = at.astype(np.complex128)
        moved[index] += 1j * step
        gradient[index] = function(moved if at.ndim else moved[()]).imag / step
    return gradient


def central_difference(function: Callable[[Any], float], at: Any, direction: Any, step: float) -> float:
    """The derivative of a scalar function along a direction, five points, error O(step^4)."""
    at, direction = np.asarray(at, dtype=np.float64), np.asarray(direction, dtype=np.float64)
    f = [function(at + k * step * direction) for k in (-2, -1, 1, 2)]
    return (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * step)


# ------------------------------------------------------------------------------------------------
# Equilibria


def relu_equilibrium(W: np.ndarray, b: np.ndarray) -> np.ndarray:
    """z = relu(W z + b) for one sample by trying all 2^n active sets: the complementarity problem, n <= 6."""
    n = b.shape[0]
    G = np.identity(n) - W
    found = []
    for active in itertools.product([False, True], repeat=n):
        on = np.array(active)
        z = np.zeros(n)
        if on.any():
            z[on] = np.linalg.solve(G[np.ix_(on, on)], b[on])
        slack = G @ z - b  # >= 0 where z = 0, = 0 where z > 0
        found.append((max(0.0, *(-z), *(-slack[~on])), z))
    return min(found, key=lambda pair: pair[0])[1]


def nnls_equilibrium(W: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The relu equilibrium for symmetric W: argmin_{z >= 0} z'Gz/2 - b'z = ||R z - R^-T b||^2/2, G = R'R."""
    R = scipy.linalg.cholesky(np.identity(b.shape[0]) - W)
    return scipy.optimize.nnls(R, scipy.linalg.solve_triangular(R, b, trans="T"))[0]


def bordered(name: str, inside: np.ndarray) -> dict[str, Any]:
    """The definition of an activation that is held at zero wherever `inside` is False."""
    entry = DEFINITIONS[name]
    return entry | {
        "sigma": lambda x: np.where(inside, entry["sigma"](x), 0.0),
        "slope": lambda x: np.where(inside, entry["slope"](x), 0.0),
    }


def newton_equilibrium(W: np.ndarray, b: np.ndarray, name: str | dict[str, Any], start: np.ndarray) -> np.ndarray:
    """z = sigma(W z + b) for one sample by semismooth Newton steps from a good start, to rounding.

    sigma by its name in DEFINITIONS or as an entry like those.
    """
    entry = DEFINITIONS[name] if isinstance(name, str) else name
    sigma, slope = entry["sigma"], entry["slope"]
    z = np.asarray(start, dtype=np.float64).copy()
    for _ in range(20):
        pre = W @ z + b
        step = np.linalg.solve(np.identity(z.size) - slope(pre)[:, None] * W, sigma(pre) - z)
        z = z + step
        if np.abs(step).max() <= 4e-16 * (1 + np.abs(z).max()):
            break
    residual = np.abs(z - sigma(W @ z + b)).max()
    assert residual <= 1e-13 * (1 + np.abs(z).max()) * (1 + np.abs(W).sum()), f"oracle residual {residual:.1e}"
    return z


def newton_equilibria(W: np.ndarray, b: np.ndarray, name: str | dict[str, Any], start: np.ndarray) -> np.ndarray:
    """`newton_equilibrium` for every row."""
    return np.stack([newton_equilibrium(W, row, name, z) for row, z in zip(b, start, strict=True)])


def long_relu_equilibrium(W: np.ndarray, b: np.ndarray, start: np.ndarray) -> np.ndarray:
    """z = relu(W z + b) for one sample in extended precision: principal pivots, each solved by iterative refinement.

    Newton steps at first; then one entry at a time, the first that is wrong (Murty 1974), which ends for I - W > 0.
    """
    W, b = W.astype(np.longdouble), b.astype(np.longdouble)
    on = W @ start + b > 0
    for pivot in range(2000):
        G, z = np.identity(int(on.sum())) - W[np.ix_(on, on)], np.zeros_like(b)
        inverse = np.linalg.inv(G.astype(np.float64))
        for _ in range(8):
            residual = b[on] - G @ z[on]
            z[on] += inverse @ residual.astype(np.float64)
        wrong = np.flatnonzero(np.where(on, z < 0, W @ z + b > 0))
        if not wrong.size:
            return z
        on[wrong if pivot < 10 else wrong[:1]] ^= True
    raise AssertionError("the active set did not settle")


def implicit_dpre(W: np.ndarray, jac: np.ndarray, dz: np.ndarray) -> np.ndarray:
    """J (I - W'J)^-1 dz for every row, dense (Theorem 2): the gradient at the pre-activation."""
    n = W.shape[0]
    return np.stack([j * np.linalg.solve(np.identity(n) - W.T * j, v) for j, v in zip(jac, dz, strict=True)])


def clear_of_kinks(name: str, pre: np.ndarray, distance: float = 1e-3) -> bool:
    """Whether every pre-activation is further than `distance` from every kink."""
    return all(float(np.abs(pre - kink).min()) > distance for kink in DEFINITIONS[name]["kinks"])
