"""The step size during training: the papers' trials, beside the provable best."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..arrays import Array, one_of
from ..errors import ConvergenceError
from ..mon import equilibrium
from ..splitting import rates

__all__ = ["NAMES", "best", "tuned"]

SMALLEST, TRIED = 2.0**-20, 32  # the least step that is tried; samples that the trials see


def best(network: Any, x: Array, *, tol: float, stop: str) -> float:
    """The step with the smallest provable contraction factor of Peaceman-Rachford; needs no trial [NEW-best-alpha]."""
    return rates.best_alpha(network.W, "peaceman-rachford")


def tuned(network: Any, x: Array, *, tol: float, stop: str) -> float:
    r"""The papers' tuning: from alpha = 1, halve while the forward iterations on x do not increase [MON-AppD.2-alpha].

    Every trial is a solve, and the answer depends on the batch; `best` needs neither. Here the trials see the first
    few samples.

    Parameters
    ----------
    network : MonNetwork
    x : array (batch, d)
    tol, stop
        As in `mon.equilibrium`.

    Examples
    --------
    >>> import numpy as np
    >>> from implicitref.networks import mon_fc
    >>> tuned(mon_fc(np.random.default_rng(0), 4), np.ones((2, 4), np.float32), tol=1e-2, stop="relative-change")
    0.5
    """
    injection = network.inject(x[:TRIED, ...])

    def iterations(alpha: float) -> float:
        try:
            return equilibrium(network.W, injection, network.activation, alpha=alpha, tol=tol, stop=stop).iterations
        except ConvergenceError:
            return float("inf")

    alpha, found = 1.0, iterations(1.0)
    while alpha > SMALLEST and (halved := iterations(alpha / 2)) <= found:
        alpha, found = alpha / 2, halved
    return alpha


NAMES: dict[str, Callable[..., float]] = {"best": best, "tuned": tuned}


def by_name(name: str) -> Callable[..., float]:
    """`best` or `tuned`."""
    found: Callable[..., float] = one_of("alpha", name, NAMES)
    return found
