r"""The gradient of ``<u, W z>`` by kernels as a sum of its pieces, so that a piece can be left out or doubled.

With H = sum_batch u z' the dense gradients are ``-(A H) - (A H')`` and ``(H) - (H')``; kernels are the same with
C(p, q), the gradient of ``<p, K q>`` by the kernel of K, for the products.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..operators import MonotoneConv, MonotoneDense
from ..operators.fourier import FourierMap, blocks, cross_spectrum, kernel_gradient

__all__ = ["PlainWeight", "assembled", "flat", "magnitudes", "nested", "pieces"]

Pieces = dict[str, list[np.ndarray]]
ROOTED = {"A": ("g", True), "S": ("gs", True), "B": ("h", False)}  # kernel: its scale, and whether the root acts


@dataclasses.dataclass(frozen=True, eq=False)
class PlainWeight:
    """A matrix with no structure, as an operator: the W of a fixed-point layer, the A of an implicit model."""

    matrix: np.ndarray
    name: str

    @property
    def state_shape(self) -> tuple[int, ...]:
        """(n,)."""
        return (self.matrix.shape[0],)

    @property
    def params(self) -> dict[str, np.ndarray]:
        """The matrix by its name."""
        return {self.name: self.matrix}

    def matvec(self, z: np.ndarray) -> np.ndarray:
        """W z for every row."""
        return np.asarray(z @ self.matrix.T)

    def rmatvec(self, y: np.ndarray) -> np.ndarray:
        """W' y for every row."""
        return np.asarray(y @ self.matrix)

    def vjp(self, z: np.ndarray, dy: np.ndarray) -> dict[str, np.ndarray]:
        """Gradient of <dy, W z> by the matrix."""
        return {self.name: dy.T @ z}


def flat(grads: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Blocks by name, those of a list as ``A.0``, ``A.1``, ..."""
    found: dict[str, np.ndarray] = {}
    for name, value in grads.items():
        listed = isinstance(value, list | tuple)
        entries = {f"{name}.{i}": entry for i, entry in enumerate(value)} if listed else {name: value}
        found |= {key: np.asarray(entry) for key, entry in entries.items()}
    return found


def nested(params: Mapping[str, Any]) -> dict[str, Any]:
    """``A.0``, ``A.1`` back to a list A; other names stay."""
    found: dict[str, Any] = {}
    for name in sorted(params, key=lambda name: (name.partition(".")[0], int(name.partition(".")[2] or 0))):
        head, dot, _ = name.partition(".")
        if dot:
            found.setdefault(head, []).append(params[name])
        else:
            found[head] = params[name]
    return found


def pieces(W: Any, z: np.ndarray, u: np.ndarray) -> Pieces:
    """The pieces of the gradient of ``<u, W z>`` by the kernels that act, whose sums are the gradient."""
    if isinstance(W, PlainWeight):
        return {W.name: [u.T @ z]}
    if isinstance(W, MonotoneDense):
        A, H = _effective(W.A, W.g, rooted=True), u.T @ z
        return {"A": [-A @ H, -A @ H.T], "B": [H, -H.T]}
    if isinstance(W, MonotoneConv):
        K, C = FourierMap(blocks(_effective(W.A, W.g, rooted=True), W.size), W.size), _by_kernel(W.size)
        return {
            "A": [-C(K.matvec(u), z, W.A), -C(K.matvec(z), u, W.A)],
            "B": [C(u, z, W.B), -C(z, u, W.B)],
        }
    return _by_tiers(W, W.by_tiers(), W.split(z), W.split(u))


def _by_tiers(W: Any, maps: Any, z: list[np.ndarray], u: list[np.ndarray]) -> Pieces:
    found: Pieces = {}
    for i, (A, B) in enumerate(zip(W.A, W.B, strict=True)):
        C = _by_kernel(W.sizes[i])
        Au, Az = maps.A[i].matvec(u[i]), maps.A[i].matvec(z[i])
        passed = [-2 * C(maps.S[i - 1].matvec(z[i - 1]), u[i], A)] if i else []
        found[f"A.{i}"] = [-C(Au, z[i], A), -C(Az, u[i], A), *passed]
        found[f"B.{i}"] = [C(u[i], z[i], B), -C(z[i], u[i], B)]
    for i, S in enumerate(maps.S):
        C_r = functools.partial(S.gradient, support=tuple(W.S[i].shape[2:]))
        terms = (S.matvec(u[i]), z[i]), (2 * maps.A[i + 1].matvec(u[i + 1]), z[i]), (S.matvec(z[i]), u[i])
        found[f"S.{i}"] = [-C_r(p, q) for p, q in terms]
    return found


def assembled(
    W: Any, found: Pieces, coefficients: Mapping[str, tuple[float, ...]], chain: str
) -> dict[str, np.ndarray]:
    r"""Gradients by the parameters from the pieces, ``sum_j c_j piece_j``, all c = 1 unless given by letter.

    Parameters
    ----------
    W : operator
    found : dict of the pieces of every parameter
    coefficients : mapping of letters to their c
    chain : {"full", "constant-norm", "raw", "no-root"}
        How the scales of appendix D.2 are treated: as they should be; norms held constant; not at all; without the
        derivative of the root.
    """
    params = flat(W.params)
    grads: dict[str, np.ndarray] = {}
    for name, terms in found.items():
        letter, dot, tier = name.partition(".")
        c = coefficients.get(letter, ())
        c = c + (1.0,) * (len(terms) - len(c))
        dK = np.sum([weight * term for weight, term in zip(c, terms, strict=False)], axis=0)
        scale, rooted = ROOTED.get(letter, ("", False))
        grads |= _chained(
            name, dK, params[name], f"{scale}{dot}{tier}", params.get(f"{scale}{dot}{tier}"), rooted, chain
        )
    return {name: grads[name] for name in params}


def magnitudes(W: Any, z: np.ndarray, u: np.ndarray) -> dict[str, float]:
    """The length that every block of the gradient would have if nothing cancelled: what rounding is relative to."""
    params, found = flat(W.params), {}
    for name, terms in pieces(W, z, u).items():
        letter, dot, tier = name.partition(".")
        length = float(sum(np.linalg.norm(term) for term in terms))
        scale, rooted = ROOTED.get(letter, ("", False))
        value = params.get(f"{scale}{dot}{tier}")
        c = 1.0 if value is None else abs(float(value)) ** (0.5 if rooted else 1.0)
        found[name] = length if value is None else length * c / float(np.linalg.norm(params[name]))
        if value is not None:
            found[f"{scale}{dot}{tier}"] = length / (2 * c) if rooted and c else length
    return found


def _chained(
    name: str, dK: np.ndarray, K: np.ndarray, scale: str, value: np.ndarray | None, rooted: bool, chain: str
) -> dict[str, np.ndarray]:
    # K acts as c K/s with s = ||K||: <dK, d(c K/s)> = <(c/s) (dK - <dK, K> K/s^2), .> + <dK, K>/s dc, c = sqrt(g) or h
    if value is None:
        return {name: dK}
    s, along = np.linalg.norm(K), np.sum(dK * K)
    c = value**0.5 if rooted else value
    by_kernel = {"raw": dK, "constant-norm": (c / s) * dK}.get(chain, (c / s) * (dK - along / s**2 * K))
    return {name: by_kernel, scale: along / s / (2 * c if rooted and chain != "no-root" else 1)}


def _effective(K: np.ndarray, scale: Any, rooted: bool) -> np.ndarray:
    if scale is None:
        return K
    return np.asarray((scale**0.5 if rooted else scale) * K / np.linalg.norm(K))


def _by_kernel(size: Any) -> Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    return lambda p, q, kernel: np.asarray(kernel_gradient(cross_spectrum(p, q), size, tuple(kernel.shape[2:])))
