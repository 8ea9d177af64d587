r"""Convolution with a 3 x 3 kernel by the bilinear form of Toom, Cook and Winograd: a third of the products.

Polynomials of degree k - 1 and m - 1 are multiplied by their values at n = m + k - 1 points, one of which is infinity
(there the value is the leading coefficient): with V_d the values of 1, t, ..., t^(d-1) and ``.`` entry by entry,
``V_n (w * a) = V_k w . V_m a``. The transpose of this map in a is the correlation of n entries with k taps (Winograd,
Arithmetic Complexity of Computations, 1980, chapter IV):

    y = V_m' [V_k w . V_n^-T x],    y_r = sum_i w_i x_(r + i),  r < m.

Here k = m = 3: five products for three outputs in place of nine, and in two dimensions 25 for nine in place of 81.
Tiles of three outputs cover an axis. With D the matrix that takes the axis of x, padding included, to the values of all
its tiles, S the one that takes values to the axis of y, and U_oc = V_k w_oc V_k' for every tile,

    y_o = S [sum_c U_oc . D x_c D'] S'.

The adjoint in x is the same map with S' in place of D, D' of S and U_co of U_oc; that in w leads back through U.
Rounding in float32 is some five times that of the sums as they are written in `conv`, which float64 keeps.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..arrays import Array
from .windows import Pair

__all__ = ["Form", "adjoints", "correlation", "form"]

KERNEL = TILE = 3
POINTS = 0.0, 1.0, -1.0, -0.5  # and infinity
COUNT = len(POINTS) + 1
VALUES = 2**18  # of a part of the batch, few enough for the cache

Matrices = tuple[np.ndarray, np.ndarray]  # for rows and for columns


class Form(NamedTuple):
    """D and S, (5 tiles, size) and (out, 5 tiles), the tiles of a point beside each other; and their transposes."""

    D: Matrices
    S: Matrices
    Dt: Matrices
    St: Matrices

    def multiplications(self, channels: int, filters: int) -> int:
        """Of an image: D x D' for every channel, S M S' for every filter, and the products in between."""
        (h, w), (out_h, out_w) = ([matrix.shape[i] for matrix in pair] for i, pair in ((1, self.D), (0, self.S)))
        rows, cols = (len(matrix) for matrix in self.D)
        products = rows * cols * channels * filters
        return int(products + channels * rows * w * (h + cols) + filters * out_h * cols * (rows + out_w))


@functools.lru_cache(maxsize=256)
def form(size: Pair, out: Pair, padding: Pair, circular: bool) -> Form:
    """The matrices for images of a size, with zero or circular padding, in float32."""
    rows, cols = (_axis(*axis, circular) for axis in zip(size, out, padding, strict=True))
    pairs = (rows[0], cols[0]), (rows[1], cols[1])
    return Form(*pairs, *((a.T, b.T) for a, b in pairs))


def _axis(size: int, out: int, padding: int, circular: bool) -> Matrices:
    tiles = -(-out // TILE)
    seen = TILE * np.arange(tiles)[:, None] + np.arange(COUNT) - padding  # (tiles, 5): the entries that a tile reads
    reads = (seen % size if circular else seen)[:, :, None] == np.arange(size)
    writes = np.eye(TILE * tiles)[:out].reshape(out, tiles, TILE)
    D = np.einsum("pj,tja->pta", np.linalg.inv(_values(COUNT)).T, reads.astype(float))
    S = np.einsum("pj,rtj->rpt", _values(TILE), writes)
    return D.reshape(-1, size).astype(np.float32), S.reshape(out, -1).astype(np.float32)


def _values(degree: int) -> np.ndarray:
    # V_d, (5, d)
    return np.vstack([np.vander(POINTS, degree, increasing=True), np.eye(1, degree, degree - 1)])


BOTH = np.kron(_values(KERNEL), _values(KERNEL)).astype(np.float32)  # w -> V_k w V_k', (25, 9)


def correlation(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, form: Form) -> np.ndarray:
    """y of images (batch, c, h, w), in memory with the channels last, then the batch."""
    x, U = _channels_last(x), _spread(weight)
    y = _empty(form.S, x, U.shape[-1])
    for part in _parts(form, x, y):
        M = _by_points(_along(form.D, x[:, :, part]), x) @ U
        if bias is not None:  # S takes the value 1 at t = 1, in both directions, to a tile of ones
            M[1, :, 1] += bias
        _along(form.S, _by_tiles(M, form), y[:, :, part])
    return y.transpose(2, 3, 0, 1)


def adjoints(
    dy: np.ndarray, form: Form, *, weight: np.ndarray | None = None, x: np.ndarray | None = None
) -> tuple[Array, Array, Array]:
    """dx if the weight is given, in memory like y; dw (out, c, 3, 3) and db (out,) if x is; None for the others."""
    # with V = D x D', dM = S' dy S: <dy, S [U . V] S'> = <dM . U, D x D'> = <dM . V, U>, added up over tiles and batch
    dy, dx, dw, db = _channels_last(dy), None, None, None
    if weight is not None:
        U = _spread(weight).swapaxes(-1, -2)
        dx = _empty(form.Dt, dy, U.shape[-1])
    if x is not None:
        x = _channels_last(x)
        dU = np.zeros((COUNT, COUNT, dy.shape[3], x.shape[3]), dy.dtype)
    for part in _parts(form, dy, dy if dx is None else dx):
        dM = _by_points(_along(form.St, dy[:, :, part]), dy)
        if dx is not None:
            _along(form.Dt, _by_tiles(dM @ U, form), dx[:, :, part])
        if x is not None:
            dU += (dM.swapaxes(-1, -2) @ _by_points(_along(form.D, x[:, :, part]), x)).sum(axis=1)
    if x is not None:
        dw, db = _of_weight(dU), _flat(dy).sum(axis=(0, 1)).reshape(-1, dy.shape[3]).sum(axis=0)
    return None if dx is None else dx.transpose(2, 3, 0, 1), dw, db


def _of_weight(dU: np.ndarray) -> np.ndarray:
    # U = V_k w V_k': its transpose takes dU to dw
    dw: np.ndarray = BOTH.T @ dU.reshape(COUNT**2, -1)
    return dw.reshape(KERNEL, KERNEL, *dU.shape[2:]).transpose(2, 3, 0, 1)


def _spread(weight: np.ndarray) -> np.ndarray:
    # U: (5, 1, 5, c, out), the same for every tile
    flat = weight.transpose(2, 3, 1, 0).reshape(KERNEL**2, -1)
    U: np.ndarray = BOTH @ flat
    return U.reshape(COUNT, 1, COUNT, weight.shape[1], weight.shape[0])


def _along(matrices: Matrices, u: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    # A u B' for every image and channel: (h, w, batch, c) to (h', w', batch c)
    rows: np.ndarray = matrices[0] @ _flat(u).transpose(1, 0, 2)
    return np.matmul(matrices[1], rows.transpose(1, 0, 2), out=None if out is None else _flat(out))


def _flat(u: np.ndarray) -> np.ndarray:
    # batch and channels as one axis: a view of what lies in memory with the channels last
    return u.reshape(*u.shape[:2], u.shape[2] * u.shape[3])


def _by_points(V: np.ndarray, x: np.ndarray) -> np.ndarray:
    # a matrix (tiles batch, c) for every point of the rows, tile of the rows and point of the columns
    return V.reshape(COUNT, len(V) // COUNT, COUNT, -1, x.shape[3])


def _by_tiles(M: np.ndarray, form: Form) -> np.ndarray:
    return M.reshape(len(form.D[0]), len(form.D[1]), -1, M.shape[-1])


def _channels_last(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.transpose(2, 3, 0, 1))


def _empty(matrices: Matrices, x: np.ndarray, channels: int) -> np.ndarray:
    return np.empty((len(matrices[0]), len(matrices[1]), x.shape[2], channels), x.dtype)


def _parts(form: Form, x: np.ndarray, y: np.ndarray) -> Iterator[slice]:
    batch, values = x.shape[2], len(form.D[0]) * len(form.D[1]) * max(x.shape[3], y.shape[3])
    step = max(1, VALUES // values)
    return (slice(i, i + step) for i in range(0, batch, step))
