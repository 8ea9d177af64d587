r"""Contraction factors of the splittings, exact and for the class, and the best step size.

Here G = I - W, S its symmetric part, m = lambda_min(S), L = ||G||_2. "Exact" is the factor of the affine half of
the step for this G; it is attained by a ReLU network whose equilibrium is interior. "Class" is the worst
factor over all G with the same m and L. Spectra are computed on the host with SciPy.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg

from ..arrays import positive, to_numpy
from ..errors import HypothesisError

__all__ = [
    "best_alpha",
    "constants",
    "douglas_rachford",
    "factor",
    "forward_backward",
    "forward_backward_class",
    "forward_backward_limit",
    "peaceman_rachford",
    "peaceman_rachford_class",
]

EXACT_UP_TO = 256  # beyond this size the n^3 searches cost more than the iterations that they save


def gap(W: Any) -> np.ndarray:
    """G = I - W as a NumPy matrix in float64."""
    dense = to_numpy(W.to_dense()).astype(np.float64)
    return np.eye(dense.shape[0]) - dense


def constants(G: np.ndarray) -> tuple[float, float]:
    """m = lambda_min((G + G')/2) and L = ||G||_2."""
    return float(scipy.linalg.eigvalsh((G + G.T) / 2)[0]), float(np.linalg.norm(G, 2))


def forward_backward(G: np.ndarray, alpha: float) -> float:
    """``||I - alpha G||_2``: convex in alpha, < 1 exactly below `forward_backward_limit` [NEW-rate-fb]."""
    return float(np.linalg.norm(np.eye(G.shape[0]) - alpha * G, 2))


def forward_backward_class(m: float, L: float, alpha: float) -> float:
    """``sqrt(1 - 2 alpha m + alpha^2 L^2)``, smallest at alpha = m/L^2 [NEW-rate-fb]."""
    return math.sqrt(max(0.0, 1 - 2 * alpha * m + (alpha * L) ** 2))


def forward_backward_limit(G: np.ndarray) -> float:
    """``2 beta = lambda_min(G^-1 + G^-T) >= 2m/L^2``: forward-backward converges for every B iff alpha is below it
    [MON-Sec3.4-alpha]."""
    inverse = np.linalg.inv(G)
    return float(scipy.linalg.eigvalsh(inverse + inverse.T)[0])


def peaceman_rachford(G: np.ndarray, alpha: float) -> float:
    r"""``rho = ||(I - alpha G)(I + alpha G)^-1||_2 = sqrt((h - 2)/(h + 2))``, the factor in u [NEW-rate-pr].

    ``h(alpha) = lambda_max(S^-1 (I/alpha + alpha G'G))`` is convex, so rho has one minimum.
    """
    identity = np.eye(G.shape[0])
    return float(np.linalg.norm(np.linalg.solve((identity + alpha * G).T, (identity - alpha * G).T), 2))


def peaceman_rachford_h(G: np.ndarray, alpha: float) -> float:
    """h(alpha) = lambda_max(S^-1 (I/alpha + alpha G'G)) >= 2 [NEW-rate-pr]."""
    P, Q = _pencil(G)
    return float(scipy.linalg.eigvalsh(P / alpha + alpha * Q, subset_by_index=[G.shape[0] - 1] * 2)[0])


def _pencil(G: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # S = R R': the eigenvalues of S^-1 X are those of R^-1 X R^-T
    R = scipy.linalg.cholesky((G + G.T) / 2, lower=True)
    R_inv = scipy.linalg.solve_triangular(R, np.eye(G.shape[0]), lower=True)
    H = G @ R_inv.T
    return R_inv @ R_inv.T, H.T @ H


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
        lambda alpha: forward_backward(G, alpha), bounds=(0.0, limit), method="bounded", options={"xatol": 1e-4 * limit}
    )
    return float(found.x)


def best_peaceman_rachford(G: np.ndarray) -> float:
    """Argmin over alpha of h, by golden section on log alpha around the class optimum 1/L [NEW-best-alpha]."""
    from scipy.optimize import golden

    P, Q = _pencil(G)
    last = [G.shape[0] - 1] * 2

    def h(log_alpha: float) -> float:
        alpha = math.exp(log_alpha)
        return float(scipy.linalg.eigvalsh(P / alpha + alpha * Q, subset_by_index=last, check_finite=False)[0])

    start = -math.log(np.linalg.norm(G, 2))
    found = golden(h, brack=(start, start + 0.5), tol=1e-3)
    return float(math.exp(found))


_FOUND: weakref.WeakKeyDictionary[Any, dict[str, float]] = weakref.WeakKeyDictionary()


def best_alpha(W: Any, method: str) -> float:
    r"""The step with the smallest provable contraction factor for this operator [NEW-best-alpha].

    The exact factor is minimised up to n = 256; beyond, the minimiser of the class bound is taken, m/L^2 for
    forward-backward and 1/L for Peaceman-Rachford and Douglas-Rachford. 1 for Picard. Found once for each operator.

    Parameters
    ----------
    W : operator
    method : "forward-backward", "peaceman-rachford", "douglas-rachford" or "picard"
    """
    if not isinstance(method, str) or method not in _FACTORS:
        raise HypothesisError(f"method must be one of {', '.join(_FACTORS)}; got {method!r}.")
    known = _FOUND.setdefault(W, {})
    if method not in known:
        known[method] = (
            search(gap(W), W.m, method) if W.size <= EXACT_UP_TO else _class_best(W.lipschitz(), W.m, method)
        )
    return known[method]


def search(G: np.ndarray, m: float, method: str) -> float:
    """The step that minimises the exact factor for G, or the factor of the class where rounding hides the exact one."""
    if method == "picard":
        return 1.0
    try:
        return positive("alpha", (best_forward_backward if method == "forward-backward" else best_peaceman_rachford)(G))
    except (np.linalg.LinAlgError, ValueError):
        return _class_best(constants(G)[1], m, method)  # m is below the rounding of I - W


def _class_best(L: float, m: float, method: str) -> float:
    return 1.0 if method == "picard" else m / L**2 if method == "forward-backward" else 1 / L


def factor(G: np.ndarray, method: str, alpha: float) -> float:
    """The exact contraction factor of a method, by its name."""
    return _FACTORS[method](G, alpha)


_FACTORS: dict[str, Callable[[np.ndarray, float], float]] = {
    "peaceman-rachford": peaceman_rachford,
    "forward-backward": forward_backward,
    "douglas-rachford": lambda G, alpha: douglas_rachford(peaceman_rachford(G, alpha)),
    "picard": lambda G, alpha: forward_backward(G, 1.0),
}
