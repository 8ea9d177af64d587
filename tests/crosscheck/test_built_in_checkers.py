"""What torch.autograd.gradcheck accepts in fast mode and the cross-checker does not."""

from __future__ import annotations

import numpy as np
import pytest

import implicitref as ir
from implicitref.crosscheck import check, from_torch

IDENTITY = ir.activations.leaky_relu(1.0)


@pytest.fixture
def torch():
    found = pytest.importorskip("torch")
    found.set_num_threads(1)
    return found


def linear_layer(torch, W, adjoint):
    """z = W z + x with a backward pass by hand: adjoint(W, dz) is the cotangent."""

    class Solve(torch.autograd.Function):
        @staticmethod
        def forward(ctx, W, x):
            z = torch.linalg.solve(torch.eye(len(W), dtype=W.dtype) - W, x.T).T
            ctx.save_for_backward(W, z)
            return z

        @staticmethod
        def backward(ctx, dz):
            W, z = ctx.saved_tensors
            w = adjoint(W, dz)
            return w.T @ z, w

    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.W = torch.nn.Parameter(torch.tensor(W))

        def forward(self, x):
            return Solve.apply(self.W, x)

    return Layer()


def neumann(k):
    def adjoint(W, dz):
        w = dz
        for _ in range(k):
            w = dz + w @ W
        return w

    return adjoint


def exact(torch, change=lambda W: W):
    return lambda W, dz: torch.linalg.solve(torch.eye(len(W), dtype=W.dtype) - change(W).T, dz.T).T


def contraction(n, gamma, seed=0):
    W = np.random.default_rng(seed).normal(size=(n, n))
    return gamma * W / np.linalg.norm(W, 2)


def accepted(torch, layer, n):
    x = torch.tensor(np.random.default_rng(1).normal(size=(2, n)), requires_grad=True)
    return torch.autograd.gradcheck(layer, (x,), fast_mode=True)


def test_fast_gradcheck_takes_five_terms_of_neumann_for_the_gradient(torch):
    layer = linear_layer(torch, contraction(6, 0.6), neumann(5))
    torch.manual_seed(0)
    assert accepted(torch, layer, 6)
    report = check(from_torch(layer, kind="fixed-point", activation=IDENTITY))
    assert report.verdict == "inconclusive"
    assert report.diagnosis[0].name == "neumann"
    assert report.diagnosis[0].detail == "k = 5"
    assert 1e-5 < max(block.error for block in report.blocks) < 1e-3


def test_fast_gradcheck_takes_a_jacobian_with_one_entry_ten_times_too_large(torch):
    n = 1000
    W = contraction(n, 0.5)

    def tenfold(W):
        wrong = W.clone()
        wrong[3, 7] *= 10
        return wrong

    layer = linear_layer(torch, W, exact(torch, tenfold))
    torch.manual_seed(0)
    assert accepted(torch, layer, n)
    x, dz = np.random.default_rng(2).normal(size=(2, 1, n))
    report = check(from_torch(layer, kind="fixed-point", activation=IDENTITY), x=x, dz=dz)
    assert report.verdict != "pass"
    assert {block.name for block in report.blocks if block.verdict == "wrong"} == {"W", "x"}


def test_symmetric_matrices_hide_a_transposed_adjoint(torch):
    W = contraction(5, 0.6)
    adjoint = exact(torch, lambda W: W.T)
    hidden = check(from_torch(linear_layer(torch, (W + W.T) / 2, adjoint), kind="fixed-point", activation=IDENTITY))
    assert hidden.verdict == "pass"  # of that layer the gradient is right
    seen = check(from_torch(linear_layer(torch, W, adjoint), kind="fixed-point", activation=IDENTITY))
    assert seen.verdict == "fail"
    assert seen.diagnosis[0].name == "adjoint-not-transposed"
