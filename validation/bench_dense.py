r"""Dense layer against the same layer in PyTorch: forward and backward, float32, batch 128, n = 87.

    python validation/bench_dense.py --threads 2 [--weights mon_fc_trained.npz --images mnist.npz]

The PyTorch layer is the published method written here: cached inverse V = (I + alpha (I - W))^-1, Algorithms 2 and 4 as
loops of separate tensor operations with the relative-change rule over the whole batch, one differentiable application
of sigma(W z + Ux + b) after the loop, autograd from there to A, B and the injection. Ours: `mon.equilibrium` and
`mon.equilibrium_vjp`, the rule for every sample. Both have the same alpha, the provable best one, and stop at a
relative change of 1e-5. Alternating blocks of runs, medians; both states are then certified by the same function.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import implicitref as ir

TOL = 1e-5
BLOCK = 20
REST = 0.15  # seconds, as in bench_conv


def problem(
    weights: str | None = None, images: str | None = None, batch: int = 128, n: int = 87, m: float = 1.0, seed: int = 0
) -> tuple[Any, np.ndarray]:
    """The operator and the injections: trained weights on test images where given, else PyTorch's initialisation."""
    if weights and images:
        with np.load(weights, allow_pickle=False) as d, np.load(images, allow_pickle=False) as data:
            x = (data["x_test"][:batch].reshape(batch, -1) / 255 - d["mnist_mean"]) / d["mnist_std"]
            W = ir.operators.MonotoneDense(d["A"], d["B"], float(d["m"]))
            return W, (x @ d["U"].T + d["b"]).astype(np.float32)
    rng = np.random.default_rng(seed)
    A, B = (rng.uniform(-1, 1, (n, n)).astype(np.float32) / np.sqrt(n, dtype=np.float32) for _ in range(2))
    return ir.operators.MonotoneDense(A, B, m), rng.normal(size=(batch, n)).astype(np.float32)


def torch_layer(W: Any, alpha: float) -> Any:
    """The layer of the paper in PyTorch: injection (batch, n) -> z*, with its own backward splitting.

    `tols` are the tolerances of the two passes, `iterations` what they last took, `factor()` inverts anew.
    """
    import torch

    class Solve(torch.autograd.Function):
        """Identity forward; backward turns dz into u* = (I - JW)^-T dz by Algorithm 4."""

        @staticmethod
        def forward(ctx: Any, z: Any, jac: Any, weight: Any, layer: Any) -> Any:
            ctx.save_for_backward(jac, weight)
            ctx.layer = layer
            return z

        @staticmethod
        def backward(ctx: Any, v: Any) -> Any:  # type: ignore[override]
            jac, weight = ctx.saved_tensors
            V, tol, count = ctx.layer.V, ctx.layer.tols[1], 0
            off = jac == 0
            D = (1 - jac) / torch.where(off, torch.ones_like(jac), jac)
            z, u, err = torch.zeros_like(v), torch.zeros_like(v), 1.0
            while err > tol:
                u_half = 2 * z - u
                z_half = u_half @ V
                u = 2 * z_half - u_half
                z_next = (u + alpha * v) / (1 + alpha * D)
                z_next[off] = 0
                err = ((z_next - z).norm() / z_next.norm()).item()
                z, count = z_next, count + 1
            ctx.layer.iterations = (ctx.layer.iterations[0], count)
            return v + z @ weight, None, None, None

    class Layer(torch.nn.Module):
        """z* = relu(W z* + injection), W = (1 - m) I - A'A + B - B'."""

        def __init__(self) -> None:
            super().__init__()
            self.A = torch.nn.Parameter(torch.tensor(np.array(W.A)))
            self.B = torch.nn.Parameter(torch.tensor(np.array(W.B)))
            self.V = torch.tensor(np.array(W.resolvent(alpha).matrix))
            self.tols, self.iterations = (TOL, TOL), (0, 0)

        def weight(self) -> Any:
            identity = torch.eye(self.A.shape[0], device=self.A.device)
            return (1 - W.m) * identity - self.A.T @ self.A + self.B - self.B.T

        @torch.no_grad()
        def factor(self) -> None:
            identity = torch.eye(self.A.shape[0], device=self.A.device)
            self.V = torch.linalg.inv((1 + alpha) * identity - alpha * self.weight())

        def forward(self, injection: Any) -> Any:
            with torch.no_grad():
                z, u, err = torch.zeros_like(injection), torch.zeros_like(injection), 1.0
                V_T, count = self.V.T, 0
                while err > self.tols[0]:
                    u_half = 2 * z - u
                    z_half = (u_half + alpha * injection) @ V_T
                    u = 2 * z_half - u_half
                    z_next = torch.relu(u)
                    err = ((z_next - z).norm() / z_next.norm()).item()
                    z, count = z_next, count + 1
            self.iterations = (count, 0)
            weight = self.weight()
            pre = z @ weight.T + injection
            jac = (pre.detach() > 0).to(pre.dtype)
            return Solve.apply(torch.relu(pre), jac, weight.detach(), self)

    return Layer()


def _block(run: Callable[[], object]) -> list[float]:
    # the idle threads of the other library's pool spin for a while: the first runs of a block are not counted
    began = time.perf_counter()
    while time.perf_counter() - began < REST:
        run()
    times = []
    for _ in range(BLOCK):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return times


def compare(weights: str | None = None, images: str | None = None, threads: int = 2, runs: int = 200) -> dict[str, Any]:
    """Medians of alternating blocks of runs, their ratio, and the certified distance that each side reached."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(threads)
    W, injection = problem(weights, images)
    alpha = ir.splitting.rates.best_alpha(W, "peaceman-rachford")
    dz = (np.random.default_rng(1).normal(size=injection.shape) / injection.shape[0]).astype(np.float32)
    options: dict[str, Any] = {"alpha": alpha, "tol": TOL, "stop": "relative-change"}
    layer, t_dz = torch_layer(W, alpha), torch.tensor(dz)

    def ours() -> tuple[np.ndarray, dict[str, np.ndarray]]:
        solution = ir.mon.equilibrium(W, injection, ir.activations.relu, **options)
        pre = ir.activations.relu.root(solution.u, alpha)
        grads, _ = ir.mon.equilibrium_vjp(W, injection, ir.activations.relu, solution.z, dz, pre=pre, **options)
        return solution.z, grads

    def theirs() -> tuple[np.ndarray, dict[str, np.ndarray]]:
        x = torch.tensor(injection, requires_grad=True)
        layer.zero_grad()
        z = layer(x)
        z.backward(t_dz)
        grads = {"injection": x.grad, "A": layer.A.grad, "B": layer.B.grad}
        return z.detach().numpy(), {name: g.numpy() for name, g in grads.items()}

    with threadpool_limits(threads, "blas"):
        (z, grads), (z_torch, grads_torch) = ours(), theirs()
        blocks = [(_block(ours), _block(theirs)) for _ in range(runs // BLOCK)]
    mine, others = zip(*blocks, strict=True)
    times = {"implicitref": [*itertools.chain(*mine)], "torch": [*itertools.chain(*others)]}
    medians = {name: statistics.median(values) for name, values in times.items()}
    inclusion = ir.mon.forward_inclusion(W, injection, ir.activations.relu)

    return {
        "threads": threads,
        "alpha": alpha,
        "runs": runs,
        "median_ms": {name: 1e3 * value for name, value in medians.items()},
        "minimum_ms": {name: 1e3 * min(values) for name, values in times.items()},
        "ratio": medians["implicitref"] / medians["torch"],
        # of neighbouring blocks, a tenth of a second apart: a slow phase of the machine is in both or in neither
        "ratio_of_neighbours": statistics.median(statistics.median(a) / statistics.median(b) for a, b in blocks),
        "certified_distance": {"implicitref": certified(inclusion, z), "torch": certified(inclusion, z_torch)},
        "gradient_difference": {
            name: float(np.linalg.norm(grads[name] - g) / np.linalg.norm(g)) for name, g in grads_torch.items()
        },
    }


def certified(inclusion: Any, state: np.ndarray) -> float:
    """Certified distance of the worst sample, from the state alone: u = W z + b has R_B(u) close to z."""
    y, bound = ir.splitting.certificates.distance(inclusion, 1.0, inclusion.W.matvec(state) + inclusion.b)
    return float((bound + ir.arrays.norm(state - y)).max())


def main() -> None:
    """Print the comparison as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", help="npz with A, B, U, b, m, mnist_mean, mnist_std")
    parser.add_argument("--images", help="npz with x_test")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=200)
    options = parser.parse_args()
    print(json.dumps(compare(options.weights, options.images, options.threads, options.runs), indent=2))


if __name__ == "__main__":
    main()
