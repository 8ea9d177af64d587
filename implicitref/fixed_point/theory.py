r"""The theory of FPN and JFB as functions: contraction, coercivity, conditioning, and when the direction descends.

K = dT/dz and M = dT/dtheta (p x n, in the orientation of gradients) at the fixed point of one sample; v the cotangent
there. The gradient is ``M (I - K')^-1 v`` and the direction of Jacobian-free backpropagation ``p = -M v``, hence
``<gradient, p> = -<w, (I - K') P w>`` with ``w = M' gradient`` and ``P = (M'M)^-1``, whose extreme eigenvalues are
called low and high below. kappa = high/low = kappa(M'M).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..arrays import Array, checked, from_numpy, largest, namespace, norm, positive, to_numpy, zeros
from ..errors import HypothesisError

__all__ = [
    "clipped",
    "coercivity",
    "conditioning",
    "corollary_radius",
    "descent_constant",
    "descent_threshold",
    "gram_bound",
    "inverse_coercivity",
    "inverse_coercivity_printed",
    "iterations_bound",
    "measured_ratio",
    "meets_condition",
    "neumann_error",
    "norm_bounds",
    "one_layer_slope",
    "parameter_jacobian",
    "preconditioner",
    "product_bound",
    "rescaled",
    "residual_interval",
    "spectral_norm",
]


# ------------------------------------------------------------------------------------------------
# Lipschitz constants


def spectral_norm(W: Array) -> float:
    """``||W||_2``, rounded up by what the SVD may be off: exact for an affine layer [JFB-Asm2.1]."""
    matrix = to_numpy(checked("W", W, 2)).astype(np.float64)
    return float(np.linalg.norm(matrix, 2) * (1 + 2e-16 * max(matrix.shape))) if matrix.size else 0.0


def gram_bound(W: Array, squarings: int = 4) -> float:
    r"""``||W||_2 <= ||G^(2^k)||_F^(1/2^(k+1))``, G = W'W, k squarings: a proven upper bound from products alone.

    Too large by at most the factor ``rank^(1/2^(k+2))``: k = 0 is ``||W'W||_F^(1/2)``.

    Examples
    --------
    >>> import numpy as np
    >>> bound = gram_bound(np.diag([3.0, 1.0]))
    >>> bool(3 <= bound <= 3 * 2 ** (1 / 2**6))
    True
    """
    matrix = to_numpy(checked("W", W, 2)).astype(np.float64)
    size = float(np.max(np.abs(matrix), initial=0.0))
    if size == 0:
        return 0.0
    G, log_scale = (matrix / size).T @ (matrix / size), 2 * math.log(size)
    for _ in range(squarings):
        size = float(np.linalg.norm(G))
        G, log_scale = (G / size) @ (G / size), 2 * (log_scale + math.log(size))
    log_bound = (log_scale + math.log(np.linalg.norm(G))) / 2 ** (squarings + 1)
    return float(math.exp(log_bound) * (1 + 4e-16 * max(matrix.shape)))


def norm_bounds(
    K: Any, like: Array, rng: np.random.Generator, *, steps: int = 100, failure: float = 1e-10
) -> tuple[Array, Array]:
    r"""``low <= ||K||_2 <= high`` for every sample, from products with K and K' only.

    Power iteration on K'K from a random unit v gives low, proven. For high, ``||(K'K)^(s/2) v|| >= |<v, e>| ||K||^s``
    with e the leading direction, and ``|<v, e>| < t`` has probability below ``t sqrt(max(n, 2))``: high holds but for
    the probability `failure`, whatever the spectrum. One random direction alone is often 2 to 3 times too small.

    Parameters
    ----------
    K : linear map with matvec and rmatvec, such as `maps.linearise` gives
    like : array (batch, ...)
        What K is applied to has its shape and library.
    rng : numpy.random.Generator
    steps : int, products with K
    failure : float in (0, 1)

    Returns
    -------
    low, high : array (batch,)
    """
    v = from_numpy(rng.normal(size=tuple(like.shape)), like)
    v, log_total, low = v / _column(norm(v), v), np.zeros(v.shape[0]), zeros((v.shape[0],), like)
    for step in range(steps):
        v = K.matvec(v) if step % 2 == 0 else K.rmatvec(v)
        length = norm(v)
        low = _larger(low, length)
        log_total = log_total + np.log(np.maximum(to_numpy(length).astype(np.float64), 1e-300))
        v = v / _column(_larger(length, length * 0 + 1e-30), v)
    n = max(2, math.prod(like.shape[1:]))
    high = np.exp((log_total + math.log(math.sqrt(n) / failure)) / steps)
    return low, from_numpy(high, low)


def _column(length: Array, v: Array) -> Array:
    return length.reshape((-1,) + (1,) * (v.ndim - 1))


def _larger(a: Array, b: Array) -> Array:
    return namespace(a).maximum(a, b)


def product_bound(*factors: float) -> float:
    """``Lip(f_k o ... o f_1) <= prod Lip(f_i)``: a proven bound for a composition from bounds of its layers."""
    return math.prod(positive("factor", factor) if factor else 0.0 for factor in factors)


def measured_ratio(T: Any, x: Any, z: Array, w: Array) -> Array:
    """``||T(z; x) - T(w; x)||/||z - w||`` for every sample: a lower bound of the Lipschitz constant, no more
    [JFB-Asm2.1]."""
    return norm(T(z, x) - T(w, x)) / norm(z - w)


def rescaled(weight: Array, measured: float, gamma: float) -> Array:
    """The weight times ``min(1, gamma/measured)``: how the papers keep T contractive while they train.

    With ``measured = spectral_norm(W)`` it makes one layer a gamma-contraction; with a measured ratio, a lower bound,
    it does not. L layers in a chain: give each ``measured**(1/L)`` and ``gamma**(1/L)``.

    Examples
    --------
    >>> import numpy as np
    >>> rescaled(np.array([[3.0]]), 3.0, 0.9), rescaled(np.array([[0.5]]), 0.5, 0.9)
    (array([[0.9]]), array([[0.5]]))
    """
    return weight * min(1.0, _factor(gamma) / positive("measured", measured))


def clipped(W: Array, bound: float = 1.0) -> Array:
    """The matrix nearest to W (in the Frobenius norm) with ``||W||_2 <= bound``: singular values cut off there.

    How the first version of the paper keeps T contractive while it trains [FPN-Asm2.1].

    Examples
    --------
    >>> import numpy as np
    >>> clipped(np.diag([3.0, 0.5]))
    array([[1. , 0. ],
           [0. , 0.5]])
    """
    xp, bound = namespace(W), positive("bound", bound)
    U, s, Vt = xp.linalg.svd(checked("W", W, 2), full_matrices=False)
    return W if largest(s) <= bound else (U * xp.where(s > bound, xp.ones_like(s) * bound, s)) @ Vt


# ------------------------------------------------------------------------------------------------
# Contraction


def residual_interval(r: Any, gamma: float) -> tuple[Any, Any]:
    """``r/(1 + gamma) <= ||z - z*|| <= r/(1 - gamma)`` where ``r = ||T(z) - z||`` [JFB-Thm2.1, NEW-cert-F1]."""
    return r / (1 + _factor(gamma)), r / (1 - gamma)


def iterations_bound(first: float, tol: float, gamma: float) -> int:
    """Algorithm 1 stops after at most ``1 + ceil(log(tol/first)/log gamma)`` applications of T, first its first
    residual [JFB-Alg1]."""
    if first <= tol:
        return 1
    return 1 + (math.ceil(math.log(tol / first) / math.log(gamma)) if _factor(gamma) else 1)


def coercivity(gamma: float) -> float:
    """``<u, (I - K) u> >= (1 - gamma) ||u||^2``; attained by K = gamma I [FPN-Eq19]."""
    return 1 - _factor(gamma)


def inverse_coercivity(gamma: float) -> float:
    """``<u, (I - K)^-1 u> >= ||u||^2/(1 + gamma)``, sharp: attained by K = -gamma I [FPN-Eq12].

    With y = (I - K)^-1 u: ``2 <u, y> = ||u||^2 + ||y||^2 - ||K y||^2 >= ||u||^2 + (1 - gamma^2) ||y||^2`` and
    ``||y|| >= ||u||/(1 + gamma)``.
    """
    return 1 / (1 + _factor(gamma))


def inverse_coercivity_printed(gamma: float) -> float:
    """``(1 - gamma)/(1 + gamma)^2``, as printed: true and loose, .028 for .526 at gamma = .9 [FPN-Eq12, JFB-Eq15]."""
    return (1 - _factor(gamma)) / (1 + gamma) ** 2


def neumann_error(gamma: float, k: int) -> float:
    """``||(I - K)^-1 - sum_{i <= k} K^i|| <= gamma^(k+1)/(1 - gamma)`` [JFB-Eq22]."""
    return float(_factor(gamma) ** (k + 1) / (1 - gamma))


# ------------------------------------------------------------------------------------------------
# Descent


def conditioning(M: Array) -> float:
    """``kappa(M'M)``, M (p, n) in the orientation of gradients; inf without full column rank [JFB-Eq17, JFB-Eq18].

    A block of S beside T's changes nothing in the theorem: only M_T matters [NEW-jfb-threshold].
    """
    M = to_numpy(checked("M", M, 2)).astype(np.float64)
    s = np.linalg.svd(M, compute_uv=False)
    full = M.shape[0] >= M.shape[1] and s[-1] > s[0] * max(M.shape) * 2.3e-16
    return float((s[0] / s[-1]) ** 2) if full else math.inf


def meets_condition(kappa: float, gamma: float) -> bool:
    """(15): ``kappa(M'M) <= 1/gamma``, sufficient and far from necessary [FPN-Eq15, JFB-Eq18]."""
    return kappa * _factor(gamma) <= 1


def descent_threshold(gamma: float, k: int = 0) -> float:
    r"""``kappa* = ((1 + sqrt(1 - q^2))/q)^2``, ``q = gamma^(k+1)``: neumann(k) descends for every K with ||K|| <= gamma
    exactly if ``kappa(M'M) < kappa*`` [NEW-jfb-threshold, NEW-neumann-descent].

    Equivalent to ``2 sqrt(kappa)/(1 + kappa) > q``, the least cosine of w and P w being on the left (Kantorovich). The
    papers' condition is ``kappa <= 1/gamma`` for k = 0 [JFB-Thm3.1]; for a single sample both.

    Examples
    --------
    >>> round(descent_threshold(0.8), 12), round(descent_threshold(0.5), 2), round(descent_threshold(0.5, k=1), 1)
    (4.0, 13.93, 62.0)
    """
    q = _factor(gamma) ** (k + 1)
    return math.inf if q == 0 else ((1 + math.sqrt(1 - q * q)) / q) ** 2


def descent_constant(gamma: float, low: float, high: float) -> float:
    r"""The largest c with ``<gradient, p> <= -c ||w||^2`` for every K with ||K|| <= gamma [NEW-descent-constant].

    ``c = (1 - gamma) low`` for ``gamma <= 2/(1 + kappa)``, else ``low high/(low + high) - gamma^2 (low + high)/4``;
    low and high the extreme eigenvalues of ``(M'M)^-1``. Printed (56) has ``2 (low - gamma high)``, false by a factor
    2 at kappa = 1 [FPN-Eq56]. With a block of S beside T's: the smaller of its own least eigenvalue and c.
    """
    low, high = positive("low", low), positive("high", high)
    if _factor(gamma) <= 2 / (1 + high / low):
        return (1 - gamma) * low
    return low * high / (low + high) - gamma**2 * (low + high) / 4


def corollary_radius(c: float, w: Array, gradient: Array, lipschitz: float) -> float:
    r"""``||z - z*|| < c ||w||^2/(L_p ||gradient||)`` keeps p(z) a descent direction, L_p its Lipschitz constant in z
    [JFB-Cor3.1].

    From ``<gradient, p(z)> <= -c ||w||^2 + ||gradient|| ||p(z) - p(z*)||``. The printed margin (61) is the whole of
    the printed (56), which allows p(z) = 0 [FPN-Eq61].
    """
    lengths = (float(np.linalg.norm(to_numpy(array))) for array in (w, gradient))
    return c * next(lengths) ** 2 / (positive("lipschitz", lipschitz) * next(lengths))


def preconditioner(M: Array, K: Array) -> np.ndarray:
    r"""P with ``p = P gradient``: ``-M (I - K') M^+``. Printed without the minus and without the transpose
    [FPN-Eq16, JFB-Eq19, FPN-Eq45]."""
    M, K = (to_numpy(array).astype(np.float64) for array in (M, K))
    found: np.ndarray = -M @ (np.eye(K.shape[0]) - K.T) @ np.linalg.pinv(M)
    return found


def parameter_jacobian(T: Any, z: Array, x: Any) -> np.ndarray:
    """M_T = dT/dtheta of one sample, (p, n): column i is the gradient of ``T_i``, all parameters end to end
    [JFB-Eq17]."""
    if z.shape[0] != 1:
        raise HypothesisError(f"z must hold one sample: the theorem is about one [NEW-jfb-batch]; got {z.shape[0]}.")
    units = np.eye(math.prod(z.shape[1:])).reshape(-1, *z.shape)
    columns = (T.vjp_params(z, x, from_numpy(unit, z)) for unit in units)
    return np.stack([np.concatenate([to_numpy(p).ravel() for p in column.values()]) for column in columns], axis=1)


def one_layer_slope(T: Any, z: Array, x: Array, g: Array, w: Array) -> Array:
    r"""``<gradient, p> = -(1 + ||z||^2 + ||x||^2) <J w, J g>`` for `OneLayer` with W, U, b free, one sample a row.

    w is what the implicit rule makes of g, so that J w is the gradient at the pre-activation. Negative, descent,
    whenever ``||W|| < 1``, and for slopes in {0, 1} (relu, hardtanh, soft threshold) whenever ``I - W > 0``: no
    contraction and no kappa needed [NEW-jfb-relu-descent].
    """
    jac = T.slope(z, x)
    return -(1 + norm(z) ** 2 + norm(x) ** 2) * namespace(z).sum(jac * w * jac * g, axis=1)


def _factor(gamma: float) -> float:
    if not 0 <= gamma < 1:
        raise HypothesisError(f"gamma must lie in [0, 1) [JFB-Asm2.1]; got {gamma!r}.")
    return gamma
