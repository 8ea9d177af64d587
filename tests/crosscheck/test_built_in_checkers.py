"""What the checkers of PyTorch and JAX accept and the cross-checker does not, and layers of TorchDEQ."""

from __future__ import annotations

import numpy as np
import pytest

import implicitref as ir
from implicitref.crosscheck import check, from_jax, from_torch

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


def test_forward_mode_check_grads_takes_a_derivative_ninety_percent_wrong():
    # its tolerance grows with the number of outputs: 2e-3 of float32 times 512 allows anything
    jax = pytest.importorskip("jax")
    test_util = pytest.importorskip("jax.test_util")
    n, batch = 64, 8
    W = contraction(n, 0.5).astype(np.float32)

    @jax.custom_jvp
    def solve(W, x):
        return jax.numpy.linalg.solve(jax.numpy.eye(n, dtype=x.dtype) - W, x.T).T

    @solve.defjvp
    def tenth(primals, tangents):
        (W, x), (dW, dx) = primals, tangents
        z = solve(W, x)
        return z, 0.1 * jax.numpy.linalg.solve(jax.numpy.eye(n, dtype=x.dtype) - W, (z @ dW.T + dx).T).T

    x, dz = np.random.default_rng(1).normal(size=(2, batch, n)).astype(np.float32)
    test_util.check_grads(lambda x: solve(W, x), (x,), order=1, modes=["fwd"])
    layer = from_jax(lambda p, x: solve(p["W"], x), {"W": W}, kind="fixed-point", activation=IDENTITY)
    report = check(layer, x=x, dz=dz)
    assert report.verdict == "fail"
    assert [block.factor for block in report.blocks] == pytest.approx([0.1, 0.1], rel=1e-4)


# ------------------------------------------------------------------------------------------------
# TorchDEQ 0.1.0


def torchdeq_layer(torch, W, **options):
    """z = tanh(W z + x) solved by TorchDEQ."""
    torchdeq = pytest.importorskip("torchdeq")

    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.W = torch.nn.Parameter(torch.tensor(W))
            self.deq = torchdeq.get_deq(ift=True, **options)

        def forward(self, x):
            states, _ = self.deq(lambda z: torch.tanh(z @ self.W.T + x), torch.zeros_like(x))
            return states[-1]

    return Layer()


TIGHT = {"f_tol": 1e-12, "f_max_iter": 500, "b_tol": 1e-13, "b_max_iter": 500, "b_stop_mode": "rel"}
DEQ = {"kind": "fixed-point", "activation": ir.activations.tanh}


def test_torchdeq_solved_tightly_passes_and_its_second_derivative_is_silently_wrong(torch):
    layer = torchdeq_layer(torch, contraction(6, 0.7), **TIGHT)
    assert check(from_torch(layer, **DEQ)).verdict == "pass"
    report = check(from_torch(layer, second=True, **DEQ))
    assert report.verdict == "fail"
    assert report.diagnosis[0].name == "second-derivative"
    probe = next(probe for probe in report.probes if "second" in probe.name)
    assert 0.05 < probe.difference < 2


def test_torchdeq_gradient_of_a_small_loss(torch):
    # b_tol = 1e-6 is absolute: of a mean over 18 numbers times 1e-6 the adjoint is stopped at once
    layer = torchdeq_layer(torch, contraction(6, 0.7), f_tol=1e-12, f_max_iter=500)
    x, dz = (torch.tensor(a) for a in np.random.default_rng(1).normal(size=(2, 3, 6)))
    x.requires_grad_(True)
    (right,) = torch.autograd.grad(layer(x), x, dz / 18)
    (small,) = torch.autograd.grad(layer(x), x, 1e-6 * dz / 18)
    assert 0.1 < float((1e6 * small - right).norm() / right.norm()) < 0.6
    report = check(from_torch(layer, tol=1e-4, **DEQ), x=x.detach().numpy(), dz=dz.numpy() / 18)
    assert report.verdict == "fail"
    assert report.diagnosis[0].name == "absolute-tolerance"


def test_torchdeq_at_its_default_tolerances_is_not_accused(torch):
    report = check(from_torch(torchdeq_layer(torch, contraction(6, 0.7)), **DEQ))
    assert report.verdict == "inconclusive"
    assert report.diagnosis[0].name in ("forward-stopped", "forward-not-solved")
    assert {block.verdict for block in report.blocks} == {"right"}
