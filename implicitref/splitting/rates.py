r"""Contraction factors of the splittings, exact and for the class, and the best step size.

Here G = I - W, S its symmetric part, m = lambda_min(S), L = ||G||_2. "Exact" is the factor of the affine half of
the step for this G; it is attained by a ReLU network whose equilibrium is interior. "Class" is the worst
factor over all G with the same m and L, or with the same m and cocoercivity beta: the same formula with
``sqrt(m/beta) <= L`` for L. Spectra are computed on the host with SciPy.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg

from ..arrays import Array, from_numpy, positive, quiet, to_numpy
from ..errors import HypothesisError

__all__ = [
    "best_alpha",
    "cocoercivity",
    "constants",
    "douglas_rachford",
    "factor",
    "forward_backward",
    "forward_backward_class",
    "forward_backward_limit",
    "peaceman_rachford",
    "peaceman_rachford_class",
]

EXACT_UP_TO = 256  # matrices beyond n = 256, or as much work in blocks, cost more to search than they save iterations


def gap(W: Any) -> np.ndarray:
    """G = I - W in NumPy: a matrix (n, n) in float64, or the complex blocks (count, n, n) that it is unitarily
    equivalent to; every function below takes both.
    """
    blocks = to_numpy(W.spectral_blocks())
    blocks = blocks.astype(np.complex128 if np.iscomplexobj(blocks) else np.float64)
    return np.asarray(np.eye(blocks.shape[-1]) - (blocks[0] if len(blocks) == 1 else blocks))


def constants(G: np.ndarray) -> tuple[float, float]:
    """m = lambda_min((G + G')/2) and L = ||G||_2."""
    return _smallest((G + _adjoint(G)) / 2), _norm(G)


def cocoercivity(W: Any, steps: int = 12) -> float:
    r"""beta = min <x, G x>/||G x||^2 of G = I - W, from above, by a few products with W and W' [NEW-best-alpha].

    It is half of `forward_backward_limit`, and at least m/L^2. With ``||G x||^2 <= <x, G x>/beta`` in place of
    ``L^2 ||x||^2`` the bounds of the class hold with ``sqrt(m/beta) <= L`` for L, so that the best step of
    Peaceman-Rachford is ``sqrt(beta/m)``: 1/sqrt(m L) for symmetric G, 1/L where the symmetric part is m I.

    Parameters
    ----------
    W : operator
    steps : int
        Of Davidson's method on the pencil G'G - lambda S, whose largest eigenvalue is 1/beta. A dozen leave one to
        ten per cent, which a step can bear and a certificate could not.
    """
    x, largest = _direction(W), math.nan
    V, GV = np.empty((len(x), 0), x.dtype), np.empty((len(x), 0), x.dtype)
    for _ in range(min(steps, len(x))):
        V, GV = np.column_stack((V, x)), np.column_stack((GV, x - _product(W, "matvec", x)))
        S = (V.T @ GV + GV.T @ V) / 2
        values, vectors = scipy.linalg.eigh(GV.T @ GV, S)  # Rayleigh and Ritz: the best of the vectors at hand
        largest, best = float(values[-1]), vectors[:, -1]
        y, Gy = V @ best, GV @ best
        half = Gy - largest / 2 * y
        x = half - _product(W, "rmatvec", half) - largest / 2 * Gy  # G'G y - lambda S y
        x = x - V @ (V.T @ x)  # it is orthogonal to V but for rounding
        length = np.linalg.norm(x)
        if not length > 0:  # an eigenvector
            break
        x /= length
    return 1 / largest


def _direction(W: Any) -> np.ndarray:
    x = np.random.default_rng(0).normal(size=math.prod(W.state_shape)).astype(to_numpy(_first(W)).dtype)
    return np.asarray(x / np.linalg.norm(x))


def _product(W: Any, name: str, x: np.ndarray) -> np.ndarray:
    state = from_numpy(np.reshape(x, (1, *W.state_shape)), _first(W))
    return np.reshape(to_numpy(getattr(W, name)(state)), x.shape)


def _first(W: Any) -> Array:
    parameter = next(iter(W.params.values()))
    return parameter[0] if isinstance(parameter, list) else parameter


def _adjoint(G: np.ndarray) -> np.ndarray:
    return np.asarray(np.conj(np.swapaxes(G, -1, -2)))


def _norm(G: np.ndarray) -> float:
    return float(np.linalg.norm(G, 2, axis=(-2, -1)).max())


def _smallest(H: np.ndarray) -> float:
    return float(np.linalg.eigvalsh(H).min())


def forward_backward(G: np.ndarray, alpha: float) -> float:
    """``||I - alpha G||_2``: convex in alpha, < 1 exactly below `forward_backward_limit` [NEW-rate-fb]."""
    return _norm(np.eye(G.shape[-1]) - alpha * G)


def forward_backward_class(m: float, L: float, alpha: float) -> float:
    """``sqrt(1 - 2 alpha m + alpha^2 L^2)``, smallest at alpha = m/L^2 [NEW-rate-fb]."""
    return math.sqrt(max(0.0, 1 - 2 * alpha * m + (alpha * L) ** 2))


def forward_backward_limit(G: np.ndarray) -> float:
    """``2 beta = lambda_min(G^-1 + G^-T) >= 2m/L^2``: forward-backward converges for every B iff alpha is below it
    [MON-Sec3.4-alpha]."""
    inverse = np.linalg.inv(G)
    return _smallest(inverse + _adjoint(inverse))


def peaceman_rachford(G: np.ndarray, alpha: float) -> float:
    r"""``rho = ||(I - alpha G)(I + alpha G)^-1||_2 = sqrt((h - 2)/(h + 2))``, the factor in u [NEW-rate-pr].

    ``h(alpha) = lambda_max(S^-1 (I/alpha + alpha G'G))`` is convex, so rho has one minimum.
    """
    identity = np.eye(G.shape[-1])
    return _norm(np.linalg.solve(identity + alpha * G, identity - alpha * G))  # the two commute


def peaceman_rachford_h(G: np.ndarray, alpha: float) -> float:
    """h(alpha) = lambda_max(S^-1 (I/alpha + alpha G'G)) >= 2 [NEW-rate-pr]."""
    P, Q = _pencil(G)
    return _largest_eigenvalue(P / alpha + alpha * Q)


def _largest_eigenvalue(H: np.ndarray) -> float:
    if H.ndim > 2:
        return float(np.linalg.eigvalsh(H).max())
    last = [H.shape[0] - 1] * 2  # one eigenvalue of a single matrix in half the time
    return float(scipy.linalg.eigvalsh(H, subset_by_index=last, check_finite=False)[0])


def _pencil(G: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # S = R R*: the eigenvalues of S^-1 X are those of R^-1 X R^-*
    R_inv = np.linalg.inv(np.linalg.cholesky((G + _adjoint(G)) / 2))
    H = G @ _adjoint(R_inv)
    return R_inv @ _adjoint(R_inv), _adjoint(H) @ H


def peaceman_rachford_class(m: float, L: float, alpha: float) -> float:
    """``sqrt(1 - 4 alpha m/(1 + 2 alpha m + alpha^2 L^2))``, smallest at alpha = 1/L [NEW-rate-pr]."""
    return math.sqrt(max(0.0, 1 - 4 * alpha * m / (1 + 2 * alpha * m + (alpha * L) ** 2)))


def douglas_rachford(rho: float) -> float:
    """``(1 + rho)/2``: the average of the identity and a rho-contraction."""
    return (1 + rho) / 2


def best_forward_backward(G: np.ndarray) -> float:
    """Argmin over alpha of the exact factor ||I - alpha G||_2, convex on (0, 2 beta)."""
    from scipy.optimize import minimize_scalar  # a third of the cost of importing the package

    limit = forward_backward_limit(G)
    found = minimize_scalar(
        lambda alpha: forward_backward(G, alpha), bounds=(0.0, limit), method="bounded", options={"xatol": 1e-5 * limit}
    )
    return float(found.x)


def best_peaceman_rachford(G: np.ndarray) -> float:
    """Argmin over alpha of h, by golden section with Brent's parabolic steps on log(alpha L), around the class optimum
    [NEW-best-alpha].
    """
    from scipy.optimize import brent

    (P, Q), L = _pencil(G), _norm(G)

    def h(log_alpha: float) -> float:
        alpha = math.exp(log_alpha) / L
        return _largest_eigenvalue(P / alpha + alpha * Q)

    return math.exp(brent(h, brack=(-0.5, 0.5), tol=1e-5)) / L


_FOUND: weakref.WeakKeyDictionary[Any, dict[str, float]] = weakref.WeakKeyDictionary()


def best_alpha(W: Any, method: str) -> float:
    r"""The step with the smallest provable contraction factor for this operator [NEW-best-alpha].

    The exact factor is minimised up to n = 256; beyond, the minimiser of a class bound is taken, m/L^2 for
    forward-backward and sqrt(beta/m) with `cocoercivity` beta for Peaceman-Rachford and Douglas-Rachford. 1 for
    Picard. Found once for each operator.

    Parameters
    ----------
    W : operator
    method : "forward-backward", "peaceman-rachford", "douglas-rachford" or "picard"
    """
    if not isinstance(method, str) or method not in _FACTORS:
        raise HypothesisError(f"method must be one of {', '.join(_FACTORS)}; got {method!r}.")
    known = _FOUND.setdefault(W, {})
    if method not in known:
        exact = affordable(W)
        known[method] = (
            search(gap(W), W.m, method) if exact else class_best(effective_lipschitz(W, W.m, method), W.m, method)
        )
    return known[method]


def effective_lipschitz(W: Any, m: float, method: str) -> float:
    """What stands for L in the bounds of the class: `sqrt(m/beta)`, beta the `cocoercivity`.

    Of forward-backward and Picard L itself: their steps must stay below a limit, and this beta is from above.
    """
    if method in ("forward-backward", "picard"):
        return float(W.lipschitz())
    try:
        with quiet():
            return math.sqrt(m / cocoercivity(W))
    except (ArithmeticError, ValueError):  # no eigenvalue in the range: entries near its ends
        return float(W.lipschitz())


def affordable(W: Any) -> bool:
    """Whether the exact factors of this operator cost no more than those of a matrix with n = 256."""
    count, n = W.spectral_shape
    return bool(count * n**3 <= EXACT_UP_TO**3)


def search(G: np.ndarray, m: float, method: str) -> float:
    """The step that minimises the exact factor for G, or the factor of the class where rounding hides the exact one."""
    if method == "picard":
        return 1.0
    try:
        with quiet():  # what overflows is not positive
            minimiser = best_forward_backward if method == "forward-backward" else best_peaceman_rachford
            return positive("alpha", minimiser(G))
    except (np.linalg.LinAlgError, ValueError):
        return class_best(constants(G)[1], m, method)  # m is below the rounding of I - W


def class_best(L: float, m: float, method: str) -> float:
    """The step that minimises the factor of the class."""
    return 1.0 if method == "picard" else m / L**2 if method == "forward-backward" else 1 / L


def factor(G: np.ndarray, method: str, alpha: float) -> float:
    """The exact contraction factor of a method, by its name."""
    return _FACTORS[method](G, alpha)


def class_factor(m: float, L: float, method: str, alpha: float) -> float:
    """The factor of the class of all G with this m and L, by the name of the method."""
    if method in ("picard", "forward-backward"):
        return forward_backward_class(m, L, 1.0 if method == "picard" else alpha)
    rho = peaceman_rachford_class(m, L, alpha)
    return douglas_rachford(rho) if method == "douglas-rachford" else rho


_FACTORS: dict[str, Callable[[np.ndarray, float], float]] = {
    "peaceman-rachford": peaceman_rachford,
    "forward-backward": forward_backward,
    "douglas-rachford": lambda G, alpha: douglas_rachford(peaceman_rachford(G, alpha)),
    "picard": lambda G, alpha: forward_backward(G, 1.0),
}
