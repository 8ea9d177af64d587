r"""Convolutional and multi-tier layers against the same layers in PyTorch: float32, batch 128, borders of zeros.

    OPENBLAS_NUM_THREADS=2 OMP_NUM_THREADS=2 python validation/bench_conv.py --threads 2
    python validation/bench_conv.py --memory

`torch_conv` has the PyTorch sides: the published method, the best form with FFTs, and the best without. Time of one
Peaceman-Rachford iteration of each, and of one forward and backward solve, gradients of the parameters included: the
published loops run to a relative change of 1e-3, the certificate says in float64 how far they got in the worst sample,
and ours must get as far, by the same rule with a tolerance found beforehand; a third side pays for the certificate
inside its time. Same weights, alpha and threads; blocks of runs alternate; medians. PyTorch's threads share every
operation; ours take a part of the batch each, as in training; a last side has the whole batch in one thread and BLAS
in all of them. Then what the machine can do, measured in the same run, and how long our operations would take at that.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.util
import json
import math
import multiprocessing
import resource
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import scipy.fft
from threadpoolctl import ThreadpoolController

import implicitref as ir
from implicitref.training.loop import RECIPES

BATCH, BORDER, TOL = 128, 1, 1e-3
BLOCK, SETTLE = 5, 2
REST = 0.15  # seconds: OpenBLAS's idle threads were seen to spin for 110 ms, those of PyTorch for 10
OURS, PUBLISHED, BEST, PRODUCTS = "implicitref", "published", "rfft2 + complex bmm", "products only"
RULE = "relative-change"  # as the published loops stop
CERTIFIED, WHOLE = "implicitref, certified", "implicitref, batch whole"
POOLS = ThreadpoolController()
SHORT_AND_LONG = (1e-1, 2.5e-4)  # tolerances that take 10 iterations a pass, and together more than 1000


class Case(NamedTuple):
    """Channels of the tiers and size of the first; the others halve."""

    channels: tuple[int, ...]
    side: int

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of every tier."""
        return [(self.side // 2**i, self.side // 2**i) for i in range(len(self.channels))]

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        """(channels, height, width) of every tier."""
        return [(n, *size) for n, size in zip(self.channels, self.sizes, strict=True)]

    @property
    def entries(self) -> int:
        """Length of one sample's state."""
        return sum(math.prod(shape) for shape in self.shapes)


CASES = {
    "conv-54-28": Case((54,), 28),
    "conv-81-32": Case((81,), 32),
    "tiers-16-32-32-28": Case((16, 32, 32), 28),
    "tiers-16-32-60-32": Case((16, 32, 60), 32),
}


class Problem(NamedTuple):
    """Kernels and scales, our operator in float64 with the same values, tiers of injection and cotangent in float32."""

    case: Case
    weights: dict[str, list[np.ndarray]]
    W: Any
    activation: Any
    injection: list[np.ndarray]
    dz: list[np.ndarray]

    def state(self, tiers: list[np.ndarray]) -> np.ndarray:
        """Tiers as our operator takes them."""
        return tiers[0] if len(tiers) == 1 else self.W.join(tiers)


def problem(case: Case, batch: int = BATCH, seed: int = 0) -> Problem:
    """Random kernels, with scales that give I - W the norm 5 or so that it has in trained networks (m = 1)."""
    rng, c = np.random.default_rng(seed), case.channels

    def kernels(outs: tuple[int, ...], ins: tuple[int, ...]) -> list[np.ndarray]:
        return [rng.normal(size=(o, i, 3, 3)).astype(np.float32) for o, i in zip(outs, ins, strict=True)]

    weights = {"A": kernels(c, c), "B": kernels(c, c), "S": kernels(c[1:], c[:-1])}
    weights |= {"g": [np.float32(0.8 * n) for n in c], "gs": [np.float32(0.4 * n) for n in c[1:]]}
    weights |= {"h": [np.float32(0.3 * math.sqrt(n)) for n in c]}
    injection, dz = ([rng.normal(size=(batch, *s)).astype(np.float32) for s in case.shapes] for _ in range(2))
    dz = [(v / batch).astype(np.float32) for v in dz]
    shapes = case.shapes if len(c) > 1 else None
    return Problem(case, weights, operator(case, weights), zero_border(shapes), injection, dz)


def operator(case: Case, weights: dict[str, list[np.ndarray]]) -> Any:
    """Ours, in float64: solves convert it to the dtype of the injection, certificates take it as it is."""
    wide = {name: [np.asarray(x, dtype=np.float64) for x in values] for name, values in weights.items()}
    if len(case.channels) == 1:
        A, B, g, h = (wide[name][0] for name in "ABgh")
        return ir.operators.MonotoneConv(A, B, 1.0, case.sizes[0], g=g, h=h)
    scales = {name: wide[name] for name in ("g", "gs", "h")}
    return ir.operators.MonotoneMultiTier(wide["A"], wide["B"], wide["S"], 1.0, case.sizes, **scales)


def zero_border(shapes: list[tuple[int, int, int]] | None) -> Any:
    """Relu inside, 0 on the border."""
    return ir.activations.zero_border(ir.activations.relu, BORDER, shapes)


def forms() -> Any:
    """The module `torch_conv`, beside this file, which is run as a script and imported as part of the package."""
    return importlib.import_module(f"{__package__}.torch_conv" if __package__ else "torch_conv")


def torch_weights(p: Problem) -> Any:
    """The same numbers as leaves that PyTorch differentiates by."""
    import torch

    leaves = {k: [torch.tensor(x, requires_grad=True) for x in values] for k, values in p.weights.items()}
    return forms().Weights(**leaves, sizes=p.case.sizes, m=1.0)


# ---- time ----


def interleaved(
    sides: dict[str, Callable[[], object]], runs: int, block: int = BLOCK, settle: int = SETTLE, rest: float = REST
) -> dict[str, list[float]]:
    """Seconds of every call, in alternating blocks. The idle threads of the other library's pool spin for a while, so
    that the first calls of a block, and all that begin within `rest` seconds of it, are not counted.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(math.ceil(runs / block)):
        for name, run in sides.items():
            began, calls, counted = time.perf_counter(), 0, 0
            while counted < block:
                begin = time.perf_counter()
                run()
                if calls >= settle and (len(sides) == 1 or begin - began >= rest):
                    times[name].append(time.perf_counter() - begin)
                    counted += 1
                calls += 1
    return times


def in_threads(function: Callable[[Any], Any], items: Any, threads: int) -> list[Any]:
    """`function` of every item, one item and one thread of BLAS in each thread."""
    if threads == 1:
        return [*map(function, items)]
    with POOLS.limit(limits=1, user_api="blas"):
        return [*ir.arrays.mapped(function, items, threads)]


def shares(batch: int, threads: int) -> list[slice]:
    """The batch in as many parts."""
    size = -(-batch // threads)
    return [slice(i, i + size) for i in range(0, batch, size)]


def iterations(p: Problem, alpha: float, threads: int = 2) -> dict[str, Callable[[], object]]:
    """One Peaceman-Rachford iteration of every side, each going on from its own state."""
    import torch

    w, injection = torch_weights(p), tuple(map(torch.tensor, p.injection))
    zero = tuple(torch.zeros_like(x) for x in injection)
    names = ("Published", "Reflected", "RealProducts")
    published, best, products = (getattr(forms(), name)(w, alpha, BORDER) for name in names)
    with torch.inference_mode():
        constant = best.constant(injection, alpha)
        entered = products.enter(constant)
    x, W, walk = p.state(p.injection), narrow(p), ir.splitting.iterations.MAPS["peaceman-rachford"]
    parts = [ir.mon.forward_inclusion(W, x[rows], p.activation) for rows in [slice(None), *shares(len(x), threads)]]
    starts, (whole, *steps) = [np.zeros_like(part.b) for part in parts], [walk(part, alpha) for part in parts]

    def ours(us: list[np.ndarray]) -> list[np.ndarray]:
        return in_threads(lambda i: steps[i](us[i]), range(len(us)), threads)

    def follow(advance: Callable[[Any], Any], state: Any) -> Callable[[], object]:
        def run() -> None:
            nonlocal state
            with torch.inference_mode():
                state = advance(state)

        return run

    return {
        PUBLISHED: follow(lambda zu: published.step(*zu, injection), (zero, zero)),
        BEST: follow(lambda u: best.step(u, constant), zero),
        PRODUCTS: follow(lambda u: products.step(u, entered), products.enter(zero)),
        WHOLE: follow(whole, starts[0]),
        OURS: follow(ours, starts[1:]),
    }


def narrow(p: Problem) -> Any:
    """Our operator in float32."""
    params = {k: ir.arrays.each(lambda x: np.asarray(x, dtype=np.float32), v) for k, v in p.W.params.items()}
    return p.W.replace(**params)


class Certifier(NamedTuple):
    """Certified distance of the worst sample, in float64, of both sides from the u that they ended with."""

    p: Problem
    alpha: float

    def forward(self, u: np.ndarray) -> float:
        """Of the equilibrium R_B(u)."""
        wide = self.p.state(self.p.injection).astype(np.float64)
        return self._worst(ir.mon.forward_inclusion(self.p.W, wide, self.p.activation), u)

    def backward(self, z: np.ndarray, u: np.ndarray) -> float:
        """Of the zero of Theorem 3's inclusion at that z."""
        injection, dz = (self.p.state(x).astype(np.float64) for x in (self.p.injection, self.p.dz))
        jac = self.p.activation.derivative(self.p.W.matvec(z.astype(np.float64)) + injection)
        return self._worst(ir.mon.backward_inclusion(self.p.W, jac, dz), u)

    def _worst(self, inclusion: Any, u: np.ndarray) -> float:
        return float(ir.splitting.certificates.distance(inclusion, self.alpha, u.astype(np.float64))[1].max())


def solves(p: Problem, alpha: float, runs: int, tol: float = TOL, threads: int = 2) -> dict[str, Any]:
    """Forward and backward to the accuracy that the published loops reach: times, counts, distances, gradients."""
    import torch

    layer, certify = forms().Published(torch_weights(p), alpha, BORDER), Certifier(p, alpha)
    injection, dz = (tuple(map(torch.tensor, x)) for x in (p.injection, p.dz))
    W, x, v = narrow(p), p.state(p.injection), p.state(p.dz)

    def theirs() -> Any:
        return layer.forward_backward(injection, dz, tol)

    def flat(tiers: Any) -> np.ndarray:
        return p.state([t.numpy() for t in tiers])

    reached = theirs()
    z = flat(reached.z)
    distances = certify.forward(flat(reached.u[0])), certify.backward(z, flat(reached.u[1]))

    def ours(tols: tuple[float, float], stop: str = RULE, parts: int = threads) -> Solved:
        return solved(W, x, p.activation, v, alpha, tols, stop, shares(len(x), parts))

    def far(found: Solved) -> tuple[float, float]:
        z, *us = (
            np.concatenate(a) for a in zip(*((f.z, f.u, b.u) for f, b in zip(*found[:2], strict=True)), strict=True)
        )
        return certify.forward(us[0]), certify.backward(z, us[1])

    tols = matched(lambda tols: far(ours(tols)), distances, tol)
    sides = {
        OURS: lambda: ours(tols),
        CERTIFIED: lambda: ours(distances, "certificate"),
        WHOLE: lambda: ours(tols, parts=1),
    }
    found = {name: run() for name, run in sides.items()}
    times = interleaved({PUBLISHED: theirs, **sides}, runs, block=1)
    published = statistics.median(times[PUBLISHED])
    return {
        "median_ms": medians(times),
        "minimum_ms": {name: 1e3 * min(values) for name, values in times.items()},
        "ratio": statistics.median(times[OURS]) / published,
        "certified_ratio": statistics.median(times[CERTIFIED]) / published,
        "whole_ratio": statistics.median(times[WHOLE]) / published,
        "iterations": {PUBLISHED: reached.iterations, **{k: f.iterations for k, f in found.items()}},
        "certified_distance": {PUBLISHED: distances, **{name: far(f) for name, f in found.items()}},
        "gradient_difference": gradient_differences(layer.w, reached.grads, found[OURS].grads),
    }


class Solved(NamedTuple):
    """Solutions of the parts of a batch, and the sums of their gradients."""

    forward: list[Any]
    backward: list[Any]
    grads: dict[str, Any]

    @property
    def iterations(self) -> tuple[int, ...]:
        """Forward and backward, the most of any part."""
        return tuple(max(s.iterations for s in solutions) for solutions in (self.forward, self.backward) if solutions)


def solved(
    W: Any, x: Any, activation: Any, dz: Any, alpha: float, tols: tuple[float, ...], stop: str, parts: list[slice],
    handed_on: bool = False,
) -> Solved:  # fmt: skip
    """Forward, and with a second tolerance backward and the gradients: every part of the batch in its own thread.

    The pre-activation of the backward pass is W z + injection, as in the published method, or handed on by the forward
    solve, as in training.
    """

    def part(rows: slice) -> Solved:
        forward = ir.mon.equilibrium(W, x[rows, ...], activation, alpha=alpha, tol=tols[0], stop=stop)
        if len(tols) == 1:
            return Solved([forward], [], {})
        pre, options = activation.root(forward.u, alpha) if handed_on else None, {"alpha": alpha, "tol": tols[1]}
        grads, backward = ir.mon.equilibrium_vjp(
            W, x[rows, ...], activation, forward.z, dz[rows, ...], pre=pre, stop=stop, **options
        )
        return Solved([forward], [backward], grads)

    return functools.reduce(together, in_threads(part, parts, len(parts)))


def together(a: Solved, b: Solved) -> Solved:
    """The parts of both."""
    kernels = {k: summed(g, b.grads[k]) for k, g in a.grads.items() if k != "injection"}
    return Solved(a.forward + b.forward, a.backward + b.backward, kernels)


def summed(a: Any, b: Any) -> Any:
    """The sum of two gradients, arrays or lists of them."""
    return [x + y for x, y in zip(a, b, strict=True)] if isinstance(a, list | tuple) else a + b


def matched(
    reach: Callable[[tuple[float, float]], tuple[float, float]], wanted: tuple[float, float], tol: float
) -> tuple[float, float]:
    """Tolerances of the two passes, tol halved until each certified distance is at most the one wanted, or four times.

    Where the two sides' forward states lie on different sides of a kink, they pose different backward problems, and no
    tolerance makes their distances at one state comparable: the table shows what was reached.
    """
    tols = (tol, tol)
    for _ in range(4):
        missed = [got > most for got, most in zip(reach(tols), wanted, strict=True)]
        tols = tuple(t / 2 if miss else t for t, miss in zip(tols, missed, strict=True))  # type: ignore[assignment]
    return tols


def gradient_differences(w: Any, theirs: tuple[Any, ...], ours: dict[str, Any]) -> dict[str, float]:
    """Relative, over all tensors of one name."""
    remaining, result = list(theirs), {}
    for name in ("A", "B", "S", "g", "gs", "h"):
        count = len(getattr(w, name))
        if count:
            mine = ours[name] if isinstance(ours[name], list | tuple) else [ours[name]]
            other = np.concatenate([g.numpy().ravel() for g in remaining[:count]])
            result[name] = float(np.linalg.norm(np.concatenate([np.ravel(g) for g in mine]) - other))
            result[name] /= float(np.linalg.norm(other))
        del remaining[:count]
    return result


def medians(times: dict[str, list[float]]) -> dict[str, float]:
    """In milliseconds."""
    return {name: 1e3 * statistics.median(values) for name, values in times.items()}


# ---- what the machine can do, and what an iteration asks of it ----


def best_of(run: Callable[[], object], times: int = 7) -> float:
    """Seconds of the quickest call."""
    run()
    return min(interleaved({"": run}, times)[""])


def peaks(case: Case, threads: int, batch: int = BATCH) -> dict[str, float]:
    """GF/s of a large float32 product, GB/s of a copy (read and written), GF/s of real FFTs of the first tier; the
    better of NumPy or SciPy and PyTorch.
    """
    import torch

    a, b = np.random.default_rng(0).normal(size=(2, 1536, 1536)).astype(np.float32)
    source, target = np.ones((2, 2**25), np.float32)
    images = np.ones((batch, *case.shapes[0]), np.float32)
    t_a, t_b, t_source, t_target, t_images = map(torch.from_numpy, (a, b, source, target, images))
    with torch.inference_mode():
        product = min(best_of(lambda: a @ b), best_of(lambda: t_a @ t_b))
        copy = min(best_of(lambda: np.copyto(target, source)), best_of(lambda: t_target.copy_(t_source)))
        fft = min(best_of(lambda: scipy.fft.rfft2(images, workers=threads)), best_of(lambda: torch.fft.rfft2(t_images)))
    height, width = case.sizes[0]
    return {
        "product_gflops": 2e-9 * a.shape[0] ** 3 / product,
        "copy_gbytes": 2e-9 * source.nbytes / copy,
        "fft_gflops": 2.5e-9 * images.size * math.log2(height * width) / fft,
    }


def counts(case: Case, batch: int = BATCH) -> dict[str, float]:
    """Operations and bytes of one iteration of ours, in 1e9.

    Every convolution transforms its channels there and back as matrix products and multiplies them with one block a
    frequency of the half spectrum. The FFT's count, 2.5 N log2 N for a real transform, stands beside: what the
    transforms would be if they were not products. Bytes: every product reads its input once and writes its output
    once, the blocks, complex numbers as 2 x 2, are read once; |u| and + c are five passes over the state.
    """
    transform = fft = blocks = 0.0
    moved = 5 * 4 * batch * case.entries
    for (h, w), ins, outs in _convolutions(case):
        half, both = h // 2 + 1, batch * (ins + outs)
        transform += both * (2 * (2 * half) * h * w + 2 * half * (2 * w) ** 2)
        fft += 2.5 * both * h * w * math.log2(h * w)
        blocks += 8 * batch * half * w * ins * outs
        moved += both * (4 * h * w + 4 * 8 * half * w) + 16 * half * w * ins * outs
    sums = {"transform_gflop": transform, "blocks_gflop": blocks, "fft_gflop": fft, "moved_gbyte": moved}
    return {name: 1e-9 * x for name, x in sums.items()}


def _convolutions(case: Case) -> Iterator[tuple[tuple[int, int], int, int]]:
    """Size, channels in and out: of every tier, on the coarse grid of r^2 phases with what it passes on, r = 2 above a
    strided convolution; and of what it receives.
    """
    for i, (n, h, w) in enumerate(case.shapes):
        r, passed = (2, case.channels[i + 1]) if i + 1 < len(case.channels) else (1, 0)
        yield (h // r, w // r), r * r * n, r * r * n + passed
        if i:
            yield (h, w), n, n


def bound(case: Case, milliseconds: float, machine: dict[str, float], batch: int = BATCH) -> dict[str, Any]:
    """The time that each resource alone would need, the scarcest, and the fraction of its peak that we reach."""
    need = counts(case, batch)
    alone = {
        "products": 1e3 * (need["transform_gflop"] + need["blocks_gflop"]) / machine["product_gflops"],
        "memory": 1e3 * need["moved_gbyte"] / machine["copy_gbytes"],
    }
    scarcest = max(alone, key=alone.__getitem__)
    return {
        **need,
        "alone_ms": alone | {"the same transforms by FFT": 1e3 * need["fft_gflop"] / machine["fft_gflops"]},
        "bound": scarcest,
        "fraction": alone[scarcest] / milliseconds,
        "fraction_of_both": sum(alone.values()) / milliseconds,
    }


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """BLAS, FFT and, where it is installed, PyTorch with the same number of threads."""
    if importlib.util.find_spec("torch"):
        importlib.import_module("torch").set_num_threads(threads)
    with POOLS.limit(limits=threads, user_api="blas"), scipy.fft.set_workers(threads):
        yield


def compare(case: Case, threads: int, runs: int, batch: int = BATCH) -> dict[str, Any]:
    """Everything that the table shows of one case."""
    p = problem(case, batch)
    alpha = ir.splitting.rates.best_alpha(p.W, "peaceman-rachford")
    with limited(threads):
        machine = peaks(case, threads, batch)
        times = interleaved(iterations(p, alpha, threads), runs)
        whole = solves(p, alpha, max(runs // 5, 1), threads=threads)
    middle = medians(times)
    return {
        "channels": case.channels,
        "sizes": case.sizes,
        "batch": batch,
        "threads": threads,
        "runs": runs,
        "alpha": alpha,
        "lipschitz": p.W.lipschitz(),
        "iteration": {
            "median_ms": middle,
            "minimum_ms": {name: 1e3 * min(values) for name, values in times.items()},
            "ratio": {name: middle[OURS] / middle[name] for name in (PUBLISHED, BEST, PRODUCTS, WHOLE)},
        },
        "solve": whole,
        "machine": machine,
        "bound": bound(case, middle[OURS], machine, batch),
    }


# ---- memory ----


def memory(case: Case, tol: float, batch: int = BATCH, workers: int = 2) -> dict[str, float]:
    """Peak of what NumPy allocated and of the process during one training step, as the training of networks makes it
    on two cores, in MB. Steps so short (alpha = 1e-3) that `tol` is met after 10 iterations or 1000.

    What the factored blocks take is measured by a step of one sample, which computes them all.
    """
    rng = np.random.default_rng(0)
    side = case.side - (2 * BORDER if len(case.channels) == 1 else 0)  # tiers halve the image, then pad
    build = ir.networks.mon_conv if len(case.channels) == 1 else ir.networks.mon_multitier
    channels: Any = case.channels[0] if len(case.channels) == 1 else case.channels
    network = build(rng, (1, side, side), channels)
    parts = RECIPES["mon-conv" if len(case.channels) == 1 else "mon-multitier"].parts
    x, labels = rng.normal(size=(batch, 1, side, side)).astype(np.float32), rng.integers(10, size=batch)
    options: dict[str, Any] = {"alpha": 1e-3, "tol": tol, "max_iter": 5000, "stop": "relative-change"}
    tracemalloc.start()
    network.accumulate(x[:1], labels[:1], 1, **options)
    factors = tracemalloc.get_traced_memory()[0]
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    tracemalloc.reset_peak()
    found = network.accumulate(x, labels, parts, workers=workers, **options)
    peak = tracemalloc.get_traced_memory()[1] - factors
    state = 4 * batch * math.prod(network.W.state_shape)
    return {
        "iterations": found.forward_iterations + found.backward_iterations,
        "parts": parts,
        "state": state / 1e6,
        "factors": factors / 1e6,
        "peak": peak / 1e6,
        "states": peak / state,
        "resident_growth": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - resident,
    }


def measured_alone(case: Case, tol: float) -> dict[str, float]:
    """`memory` in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(memory, case, tol).result()


# ---- tables ----


def speed_lines(name: str, found: dict[str, Any]) -> Iterator[str]:
    """One case as text."""
    yield f"{name}: channels {found['channels']}, alpha {found['alpha']:.3f}, ||I - W|| {found['lipschitz']:.2f}"
    yield f"  one iteration, median (minimum) of {found['runs']}"
    step = found["iteration"]
    for side, value in step["median_ms"].items():
        ratio = f"ours/this {step['ratio'][side]:.2f}" if side != OURS else ""
        yield f"    {side:25} {value:8.1f} ({step['minimum_ms'][side]:.1f}) ms   {ratio}"
    whole = found["solve"]
    yield (
        f"  forward and backward to one certified accuracy: ours/published {whole['ratio']:.2f}, "
        f"{whole['certified_ratio']:.2f} with the certificate inside the time, "
        f"{whole['whole_ratio']:.2f} with the batch whole"
    )
    for side, value in whole["median_ms"].items():
        count, distance = ("+".join(f"{x:{f}}" for x in whole[k][side]) for k, f in _COLUMNS)
        took = f"{value:8.0f} ({whole['minimum_ms'][side]:.0f}) ms"
        yield f"    {side:25} {took}   {count} iterations, certified {distance}"
    worst = max(whole["gradient_difference"].items(), key=lambda pair: pair[1])
    yield f"    gradients differ by at most {worst[1]:.1e} relative ({worst[0]})"
    machine, limit = found["machine"], found["bound"]
    yield (
        f"  machine: products {machine['product_gflops']:.0f} GF/s, copy {machine['copy_gbytes']:.1f} GB/s, "
        f"FFT {machine['fft_gflops']:.1f} GF/s"
    )
    yield (
        f"  ours asks for {limit['transform_gflop']:.2f} (transforms) + {limit['blocks_gflop']:.2f} (blocks) GF and "
        f"{limit['moved_gbyte']:.2f} GB: " + ", ".join(f"{k} {v:.1f} ms" for k, v in limit["alone_ms"].items())
    )
    fractions = f"{limit['fraction']:.0%} of its peak; both one after the other {limit['fraction_of_both']:.0%}"
    yield f"  bound: {limit['bound']}, {fractions}"


_COLUMNS = (("iterations", "d"), ("certified_distance", ".1e"))


def memory_lines(name: str, rows: list[dict[str, float]]) -> Iterator[str]:
    """One case as text."""
    yield f"{name}: state {rows[0]['state']:.0f} MB, factored blocks {rows[0]['factors']:.0f} MB"
    for row in rows:
        yield (
            f"  {row['iterations']:4.0f} iterations, {row['parts']:.0f} parts: peak {row['peak']:.0f} MB besides the "
            f"blocks, {row['states']:.2f} states; the process grew by {row['resident_growth']:.0f} MB"
        )


def main() -> None:
    """Print the comparison, case by case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--memory", action="store_true", help="measure memory after few and 1000 iterations instead")
    parser.add_argument("--json", help="also write everything there")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    for name in options.cases:
        if options.memory:
            results[name] = [measured_alone(CASES[name], tol) for tol in SHORT_AND_LONG]
        else:
            results[name] = compare(CASES[name], options.threads, options.runs)
        print(*(memory_lines if options.memory else speed_lines)(name, results[name]), "", sep="\n", flush=True)
        if options.json:
            with open(options.json, "w", encoding="utf-8") as file:
                json.dump(results, file, indent=2)


if __name__ == "__main__":
    main()
