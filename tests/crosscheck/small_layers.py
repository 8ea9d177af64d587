"""Small layers in NumPy, right and misbehaving, for the tests of the cross-checker."""

from __future__ import annotations

import numpy as np

import implicitref as ir
from implicitref import crosscheck

W = np.array([[0.1, 0.6, 0.0], [-0.3, 0.2, 0.1], [0.2, 0.0, -0.4]])
U = np.array([[1.0, 0.5], [-0.5, 1.0], [0.3, -0.8]])
b = np.array([0.2, -0.1, 0.4])
PARAMS = {"W": W, "U": U, "b": b}


def state(x, dtype=np.float64, steps=200):
    """z = tanh(W z + U x + b) by its own iteration."""
    z = np.zeros((len(x), 3))
    for _ in range(steps):
        z = np.tanh(z @ W.T + x @ U.T + b)
    return z.astype(dtype)


def gradient(x, dz, z=None):
    """The implicit gradient by dense algebra."""
    z = state(x) if z is None else z
    jac = 1 - np.tanh(z @ W.T + x @ U.T + b) ** 2
    dpre = np.stack([np.linalg.solve(np.eye(3) - j[:, None] * W.T, j * v) for j, v in zip(jac, dz, strict=True)])
    return {"W": dpre.T @ z, "U": dpre.T @ x, "b": dpre.sum(axis=0), "x": dpre @ U}


def target(forward=state, backward=gradient, params=PARAMS, **keywords):
    """The layer, or a variant, as a target."""
    return crosscheck.from_callable(
        forward, backward, params, kind="fixed-point", activation=ir.activations.tanh, **keywords
    )
