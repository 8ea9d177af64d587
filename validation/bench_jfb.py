r"""One JFB training step of the MNIST network against PyTorch: batch 128, float32, Adam, the same iterations.

    python validation/bench_jfb.py --threads 2
    python validation/bench_jfb.py --memory

Ours as `implicitref train` makes it: with several threads, a process each and a part of the batch (`training.team`).
Both sides: Q in training mode, `iterations` applications of T without a graph, one more with it, S, mean cross-entropy,
its gradient, a step of Adam. PyTorch's side is `torch.nn` with the same initial arrays and autograd. Alternating blocks
of runs, medians; the gradients of the first step are compared. --memory: the peak of a step's allocations, in states of
the batch, with 10 and with 1000 iterations of a map that does not converge before.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import implicitref as ir
from implicitref.training import optimisers
from implicitref.training.team import Team, keep_memory

BLOCK, SETTLE, RATE = 5, 2, 1e-4


def problem(batch: int = 128) -> tuple[Any, np.ndarray, np.ndarray]:
    """The initial network of 54,352 parameters, images of noise, labels."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, 1, 28, 28)).astype(np.float32)
    return ir.networks.jfb_mnist(rng), x, rng.integers(10, size=batch)


def torch_step(network: Any, x: np.ndarray, labels: np.ndarray, iterations: int) -> tuple[Callable[[], Any], Any]:
    """A function that makes one training step in PyTorch and returns the loss, and its parameters by name."""
    import torch
    from torch.nn import functional

    arrays = {k: torch.tensor(np.array(v)) for k, v in {**network.params, **network.buffers}.items()}
    params = {name: arrays[name].requires_grad_() for name in network.params}
    optimiser = torch.optim.Adam(params.values(), lr=RATE)
    data, target = torch.tensor(x), torch.tensor(labels)

    def conv(u: Any, name: str, padding: int = 1) -> Any:
        return functional.conv2d(u, arrays[f"{name}.weight"], arrays[f"{name}.bias"], padding=padding)

    def norm(u: Any, name: str) -> Any:
        moments = arrays[f"{name}.running_mean"], arrays[f"{name}.running_var"]
        affine = arrays.get(f"{name}.weight"), arrays.get(f"{name}.bias")
        return functional.batch_norm(u, *moments, *affine, training=True)

    def leaky(u: Any, slope: float = 0.1) -> Any:
        return functional.leaky_relu(u, slope)

    def apply(z: Any, v: Any) -> Any:
        w = z + v
        for i in range(2):
            inner = leaky(conv(w, f"latent_convs.{i}.0"))
            w = norm(w + leaky(conv(inner, f"latent_convs.{i}.3"), 0.01), f"lat_batch_norm.{i}")
        return 0.5 * w

    def step() -> float:
        optimiser.zero_grad()
        first = functional.max_pool2d(leaky(norm(conv(data, "conv_d1"), "bn_1")), 3)
        v = leaky(norm(conv(first, "conv_d2"), "bn_2"))
        with torch.no_grad():
            z = torch.zeros_like(v)
            for _ in range(iterations):
                z, previous = apply(z, v), z
                (z - previous).norm().item()  # the stopping rule looks at every residual
        logits = leaky(conv(apply(z, v), "conv_y", 0)).flatten(1) @ arrays["fc_y.weight"].T
        loss = functional.cross_entropy(logits, target)
        loss.backward()
        optimiser.step()
        return float(loss.detach())

    return step, params


def our_step(
    network: Any, x: np.ndarray, labels: np.ndarray, iterations: int, team: Team | None = None
) -> Callable[[], Any]:
    """A function that makes one training step, by the team if there is one, and returns what `training_pass` does."""
    state = {"network": network, "optimiser": optimisers.adam_init(network.params)}

    def step() -> Any:
        net = state["network"]
        # the solve starts with T(0), and z is its last but one iterate: one application more than iterates
        how: dict[str, Any] = {"tol": 1e-30, "max_iter": iterations + 1}
        pass_ = net.training_pass if team is None else functools.partial(team.training_pass, net)
        found = pass_(x, labels, "jfb", **how)
        params, state["optimiser"] = optimisers.adam_step(net.params, found.grads, state["optimiser"], RATE)
        state["network"] = net.replace(**params, **found.statistics)
        return found

    return step


@contextlib.contextmanager
def team_of(network: Any, threads: int) -> Iterator[Team | None]:
    """As many processes as threads, and this one set up as the training command does it."""
    keep_memory()
    with contextlib.nullcontext() if threads < 2 else Team(network, threads) as team:
        yield team


def _block(run: Callable[[], object]) -> list[float]:
    times = []
    for _ in range(BLOCK + SETTLE):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return times[SETTLE:]


def compare(threads: int = 2, runs: int = 30, iterations: int = 5) -> dict[str, Any]:
    """Medians and minima of alternating blocks of runs, their ratio, and how far the first gradients differ."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(threads)
    network, x, labels = problem()
    theirs, params = torch_step(network, x, labels, iterations)
    with team_of(network, threads) as team:
        ours = our_step(network, x, labels, iterations, team)
        found, loss = ours(), theirs()
        difference = max(
            float(np.abs(p.grad.numpy() - found.grads[name]).max() / (np.abs(found.grads[name]).max() + 1e-4))
            for name, p in params.items()
        )
        times: dict[str, list[float]] = {"implicitref": [], "torch": []}
        for _ in range(runs // BLOCK):
            for name, run, limit in (("implicitref", ours, 1), ("torch", theirs, threads)):
                with threadpool_limits(limit, "blas"):
                    times[name] += _block(run)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "threads": threads,
        "iterations": iterations,
        "median_ms": {name: 1e3 * value for name, value in medians.items()},
        "minimum_ms": {name: 1e3 * min(values) for name, values in times.items()},
        "ratio": medians["implicitref"] / medians["torch"],
        "loss_difference": abs(loss - found.loss),
        "gradient_difference": difference,
    }


def peak(network: Any, x: np.ndarray, labels: np.ndarray, rule: Any, max_iter: int) -> dict[str, float]:
    """Peak of what a training step allocates, in bytes and in states of the batch, and how many iterations it took."""
    tracemalloc.start()
    found = network.training_pass(x, labels, rule, tol=1e-30, max_iter=max_iter)
    size = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {"iterations": found.solution.iterations, "peak": size, "states": size / found.solution.z.nbytes}


def slow(network: Any) -> Any:
    """The network with nearly T(z) = gamma (z + v): 1000 iterations do not reach its fixed point for gamma = .999."""
    return network.replace(**{name: p / 100 for name, p in network.params.items() if name.startswith("latent")})


def main() -> None:
    """Print the comparison as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    if options.memory:
        _, x, labels = problem()
        network = slow(ir.networks.jfb_mnist(np.random.default_rng(0), gamma=0.999, batch_norm=False))
        print(json.dumps([peak(network, x, labels, "jfb", max_iter) for max_iter in (10, 1000)], indent=2))
        return
    print(json.dumps(compare(options.threads, options.runs, options.iterations), indent=2))


if __name__ == "__main__":
    main()
