"""Random problems whose equilibrium is known because it was chosen first.

G = I - W is drawn by its spectrum: an orthogonal basis times drawn eigenvalues for the symmetric part, the smallest of
them m, and drawn rotation frequencies for the skew part. Then a pre-activation p is drawn, ``z* = sigma(p)``, and
``b = p - W z*``: z* is the equilibrium exactly, whatever solver is being checked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from .. import activations
from ..activations import Activation
from ..operators import MonotoneDense
from . import oracles

ACTIVATIONS = (
    activations.relu,
    activations.leaky_relu(0.1),
    activations.tanh,
    activations.sigmoid,
    activations.softplus,
    activations.elu(0.7),
    activations.arctan,
    activations.hardtanh,
    activations.soft_threshold(0.5),
)
MODULI = (0.05, 0.1, 0.3, 0.5, 1.0, 2.0)


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """One equilibrium problem with its solution: arrays of the batch, one sample a row."""

    seed: int
    activation: Activation
    matrix: np.ndarray
    m: float
    W: MonotoneDense
    b: np.ndarray
    pre: np.ndarray
    z: np.ndarray

    @property
    def G(self) -> np.ndarray:
        """I - W."""
        return np.eye(len(self.matrix)) - self.matrix

    @property
    def lipschitz(self) -> float:
        """||I - W||_2."""
        return float(np.linalg.norm(self.G, 2))

    @property
    def finest(self) -> float:
        """A certified distance that float64 reaches on these problems: rounding over m, with room."""
        return 5e-13 / self.m

    def auxiliary(self, alpha: float) -> np.ndarray:
        """The u* that Peaceman-Rachford converges to: ``u* - z*`` is alpha times the element p - z* of B(z*)."""
        return self.z + alpha * (self.pre - self.z)

    def __str__(self) -> str:
        return f"{self.activation!r}, n = {len(self.matrix)}, m = {self.m:g}, seed {self.seed}"


def count(trials: int, size: float) -> int:
    """The number of trials at a reduced size, at least 3."""
    return max(3, round(trials * size))


def orthogonal(rng: np.random.Generator, n: int) -> np.ndarray:
    """A random orthogonal matrix."""
    return np.linalg.qr(rng.normal(size=(n, n)))[0]


def gap(rng: np.random.Generator, n: int, m: float, spread: float = 4.0) -> np.ndarray:
    """G with ``lambda_min((G + G')/2) = m`` exactly, eigenvalues up to about m + spread, rotations up to spread."""
    Q, P = orthogonal(rng, n), orthogonal(rng, n)
    values = m + spread * rng.uniform(size=n) ** 2
    values[0] = m
    K = np.zeros((n, n))
    for i in range(0, n - 1, 2):
        K[i, i + 1] = spread * rng.uniform()
    return (Q * values) @ Q.T + P @ (K - K.T) @ P.T


def singular_gap(rng: np.random.Generator, n: int, m: float, spread: float = 4.0) -> np.ndarray:
    """The same with eigenvalue 1, so that W = I - G is singular; needs m <= 1."""
    G = np.eye(n)
    if n > 1:
        G[1:, 1:] = gap(rng, n - 1, m, spread)
    Q = orthogonal(rng, n)
    return Q @ G @ Q.T


def preactivations(rng: np.random.Generator, name: str, shape: tuple[int, int], kinks: bool) -> np.ndarray:
    """Normal entries; at a kink now and then, or else at least 0.02 away from every kink."""
    p = 2 * rng.normal(size=shape)
    for kink in oracles.KINKS.get(name, ()):
        chosen, value = (rng.uniform(size=shape) < 0.1, kink) if kinks else (abs(p - kink) < 0.02, kink + 0.1)
        p = np.where(chosen, value, p)
    return p


def draw(
    seed: int,
    activation: Activation,
    m: float,
    *,
    n: int,
    batch: int = 4,
    singular: bool = False,
    kinks: bool = False,
    spread: float = 4.0,
) -> Problem:
    """The problem that belongs to this seed."""
    rng = np.random.default_rng(seed)
    G = (singular_gap if singular and m <= 1 else gap)(rng, n, m, spread)
    m = float(np.linalg.eigvalsh((G + G.T) / 2)[0]) * (1 - 1e-14)
    W = np.eye(n) - G
    pre = preactivations(rng, repr(activation), (batch, n), kinks)
    z = oracles.sigma(repr(activation), pre)
    return Problem(seed, activation, W, m, MonotoneDense.from_weight(W, m), pre - z @ W.T, pre, z)


def ensemble(
    seed: int, trials: int, *, batch: int = 4, kinks: bool = True, smallest: float = 0.0, spread: float = 4.0
) -> Iterator[Problem]:
    """Problems seed, seed + 1, ...: every activation, every m >= smallest, n = 1 to 6, every third W singular."""
    moduli = [m for m in MODULI if m >= smallest]
    for k in range(trials):
        m, activation = moduli[(k // len(ACTIVATIONS)) % len(moduli)], ACTIVATIONS[k % len(ACTIVATIONS)]
        n = 1 + k % 6 if k % 5 else 6
        yield draw(seed + k, activation, m, n=n, batch=batch, singular=k % 3 == 1, kinks=kinks, spread=spread)


def rotation(m: float, s: float) -> np.ndarray:
    """G = [[m, -s], [s, m]], for which the class bounds are attained."""
    return np.array([[m, -s], [s, m]])


def interior(G: np.ndarray, m: float, z: float = 1.0) -> tuple[MonotoneDense, np.ndarray, np.ndarray]:
    """W, injection and the equilibrium z* = (z, ..., z) > 0 of a relu network with this G = I - W."""
    z_star = np.full((1, len(G)), z)
    return MonotoneDense.from_weight(np.eye(len(G)) - G, m), z_star @ G.T, z_star
