"""Where arrays live, what the machine can do there, and how long a task would take at that."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.fft

from ...arrays import Array, namespace
from .. import bench_conv

__all__ = ["PEAKS", "Need", "Place", "peaks", "place", "roofline"]

PEAKS = {
    "product": "GF/s of a large real float32 product",
    "complex": "GF/s of a large complex64 product, 8 operations a multiplication with addition",
    "fft": "GF/s of real FFTs of images 28 x 28, 2.5 N log2 N operations each",
    "copy": "GB/s of a copy of large arrays, read and written",
    "cache": "GB/s of a copy of arrays of 256 KiB, read and written",
}
IN_CACHE = 2**20  # bytes of a batch of states up to which `cache` and not `copy` is what memory gives


class Place(NamedTuple):
    """An array library and its device: NumPy arrays go there by `move`, and `wait` returns when its work is done."""

    backend: str
    device: str
    move: Callable[[np.ndarray], Array]
    wait: Callable[[], None]
    torch_device: str = "cpu"  # where the peers in PyTorch are to compute
    threads: int = 1


def place(backend: str) -> Place:
    """The place of a backend that is there: numpy, cupy (the current GPU) or torch (a GPU where it finds one)."""
    if backend == "cupy":
        cupy = importlib.import_module("cupy")
        name = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)["name"].decode()
        return Place("cupy", name, cupy.asarray, lambda: cupy.cuda.get_current_stream().synchronize(), "cuda")
    if backend == "torch":
        torch = importlib.import_module("torch")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        wait, name = (torch.cuda.synchronize, torch.cuda.get_device_name()) if device == "cuda" else (_nothing, "CPU")
        return Place("torch", name, lambda x: torch.asarray(np.array(x), device=device), wait, device)
    return Place("numpy", "CPU", np.asarray, _nothing)


def _nothing() -> None:
    """The CPU is done when a call returns."""


# ---- what the machine can do ----


def peaks(where: Place, threads: int, size: int = 1536, entries: int = 2**25, batch: int = 4096) -> dict[str, float]:
    """The entries of `PEAKS`; on the CPU the better of NumPy or SciPy and PyTorch."""
    moves, best = [where.move], dict.fromkeys(PEAKS, 0.0)
    if where.backend == "numpy" and importlib.util.find_spec("torch"):
        moves.append(importlib.import_module("torch").from_numpy)
    for move in moves:
        for name, amount, run in _probes(move, threads, size, entries, batch):
            best[name] = max(best[name], 1e-9 * amount / bench_conv.best_of(_finished(run, where.wait), 5))
    return best


def _finished(run: Callable[[], object], wait: Callable[[], None]) -> Callable[[], None]:
    def whole() -> None:
        run()
        wait()

    return whole


def _probes(
    move: Callable[[np.ndarray], Array], threads: int, size: int, entries: int, batch: int
) -> Iterator[tuple[str, float, Callable[[], object]]]:
    """Name of the peak, operations or bytes, what to time."""
    rng, half, repeats = np.random.default_rng(0), size // 2, 64
    a = move(rng.normal(size=(size, size)).astype(np.float32))
    yield "product", 2 * size**3, lambda: a @ a
    c = move(rng.normal(size=(half, half)).astype(np.complex64))
    yield "complex", 8 * half**3, lambda: c @ c
    images = move(np.ones((batch, 28, 28), np.float32))
    yield "fft", 2.5 * batch * 784 * math.log2(784), lambda: _transformed(images, threads)
    source, target = (move(np.ones(entries, np.float32)) for _ in range(2))
    yield "copy", 8 * entries, lambda: _copied(source, target, 1)
    short, other = (move(np.ones(min(entries, 2**16), np.float32)) for _ in range(2))
    yield "cache", 8 * len(short) * repeats, lambda: _copied(short, other, repeats)


def _transformed(images: Array, threads: int) -> Array:
    if type(images) is np.ndarray:
        return scipy.fft.rfft2(images, workers=threads)
    return namespace(images).fft.rfftn(images, axes=(1, 2))


def _copied(source: Array, target: Array, repeats: int) -> None:
    for _ in range(repeats):
        target[...] = source


# ---- what a task asks of it ----


class Need(NamedTuple):
    """Operations in real products, in products of complex blocks, in the rest; bytes read and written."""

    products: float = 0.0
    blocks: float = 0.0
    rest: float = 0.0
    moved: float = 0.0

    def times(self, count: float) -> Need:
        """Of so many such steps."""
        return Need(*(count * x for x in self))

    def plus(self, other: Need) -> Need:
        """Of both."""
        return Need(*(x + y for x, y in zip(self, other, strict=True)))

    @property
    def operations(self) -> float:
        """All floating-point operations."""
        return self.products + self.blocks + self.rest


def roofline(need: Need, machine: dict[str, float], state_bytes: float, milliseconds: float) -> dict[str, Any]:
    """What bounds the time, arithmetic or memory, and the fraction of that bound which was reached."""
    memory = machine["cache" if state_bytes <= IN_CACHE else "copy"]
    alone = {
        "products": 1e-6 * (need.products / machine["product"] + need.blocks / machine["complex"]),
        "memory": 1e-6 * need.moved / memory,
    }
    bound = max(alone, key=alone.__getitem__)
    return {"bound": bound, "fraction": alone[bound] / milliseconds}
