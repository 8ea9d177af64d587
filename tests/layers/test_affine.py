"""The affine layer U x + b and its gradients (MON eq. 1 and appendix D.1)."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
from oracles import assert_close

import implicitref as ir


@pytest.mark.claim("MON-AppD.1-readout")
def test_affine_is_its_formula(backend):
    rng = np.random.default_rng(0)
    x, U, b = rng.normal(size=(3, 4)), rng.normal(size=(2, 4)), rng.normal(size=2)
    y = ir.layers.affine(backend(x), backend(U), backend(b))
    desired = np.array([[sum(U[i, k] * row[k] for k in range(4)) + b[i] for i in range(2)] for row in x])
    assert_close(backend.numpy(y), desired, scale=10, tol=8 * backend.eps)


def test_affine_vjp_against_differences(backend):
    rng = np.random.default_rng(1)
    at = [rng.normal(size=(3, 4)), rng.normal(size=(2, 4)), rng.normal(size=2)]
    dy = rng.normal(size=(3, 2))
    grads = ir.layers.affine_vjp(backend(at[0]), backend(at[1]), backend(dy))
    for position, gradient in enumerate(grads):
        direction = rng.normal(size=at[position].shape)

        def loss(p, position=position):
            return float((dy * ir.layers.affine(*[p if k == position else v for k, v in enumerate(at)])).sum())

        difference = oracles.central_difference(loss, at[position], direction, 1e-3)
        assert_close(
            (backend.numpy(gradient).astype(float) * direction).sum(),
            difference,
            scale=30,
            tol=max(1e-12, 8 * backend.eps),
        )


@pytest.mark.parametrize(
    ("x", "U", "b"), [((3,), (2, 3), (2,)), ((1, 3), (2, 4), (2,)), ((1, 3), (2, 3), (3,)), ((1, 3), (2, 3), (1, 2))]
)
def test_affine_refuses_shapes_that_do_not_fit(x, U, b):
    with pytest.raises(ir.ShapeError, match=r"x, U, b must have shapes \(batch, d\), \(n, d\), \(n,\)"):
        ir.layers.affine(np.ones(x), np.ones(U), np.ones(b))
