"""MON Table D1: the parameter counts of the seven networks, by formula and by counting the arrays."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..networks import MonNetwork, mon_conv, mon_fc, mon_multitier
from .verdict import PRINTED, Verdict, compare

GREY, COLOUR = (1, 28, 28), (3, 32, 32)
SINGLE = ((56, GREY, 84_460), (81, COLOUR, 172_218), (200, COLOUR, 853_612))
TIERS = (((16, 32, 32), GREY, 81_394), ((16, 32, 60), COLOUR, 170_194), ((64, 128, 128), COLOUR, 1_014_546))
PRINTED_CHANNELS = 54


def predict_dense(n: int, d: int) -> int:
    """A, B, U, b and the readout."""
    return 2 * n**2 + n * d + n + 10 * n + 10


def predict_single(n: int, image: tuple[int, int, int]) -> int:
    """A, B, U, b, the readout of 4 x 4 averages on the image and its border of one pixel, g, h."""
    c, s, _ = image
    return 18 * n**2 + 9 * c * n + n + 10 * n * ((s + 2) // 4) ** 2 + 10 + 2


def predict_tiers(n: Sequence[int], image: tuple[int, int, int]) -> int:
    """A_ii, B_ii, A_{i+1,i}, U, b, the readout of the last tier and its border, a scale for each kernel of W."""
    (c, s, _), L = image, len(n)
    kernels = sum(18 * a * a for a in n) + sum(9 * a * b for a, b in itertools.pairwise(n))
    side = s // 2 ** (L - 1) + 2
    return kernels + 9 * c * n[0] + n[0] + (3 * L - 1) + 10 * n[-1] * side**2 + 10


def measure(network: MonNetwork) -> int:
    """Entries of all trained arrays."""
    return sum(np.size(array) for value in network.params.values() for array in _arrays(value))


def _arrays(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def networks() -> list[tuple[str, int, int, int]]:
    """Name, arrays counted, formula, printed: the seven networks, and the one of 54 channels that is printed."""
    rng = np.random.default_rng(0)  # which entries they have does not matter
    found = [("dense, n = 87, on 28 x 28", mon_fc(rng, 784), predict_dense(87, 784), 84_313)]
    for n, image, count in ((PRINTED_CHANNELS, GREY, 84_460), *SINGLE):
        found.append(
            (f"single convolution {n} on {_size(image)}", mon_conv(rng, image, n), predict_single(n, image), count)
        )
    for tiers, image, count in TIERS:
        network = mon_multitier(rng, image, tiers)
        found.append((f"tiers {tiers} on {_size(image)}", network, predict_tiers(tiers, image), count))
    return [(name, measure(network), formula, printed) for name, network, formula, printed in found]


def _size(image: tuple[int, int, int]) -> str:
    return f"{image[1]} x {image[2]}"


def counts(seed: int, size: float) -> list[Verdict]:
    """All seven counts; the single convolution on MNIST has 56 channels where 54 are printed."""
    claim, rng = "MON-TabD1", np.random.default_rng(seed)
    matching = [n for n in range(1, 300) if predict_single(n, GREY) == 84_460]
    return [
        compare(claim, "54 channels on 28 x 28", predict_single(PRINTED_CHANNELS, GREY), "==", 84_460, form=PRINTED),
        compare(
            claim,
            "54 channels on 28 x 28, arrays counted",
            measure(mon_conv(rng, GREY, PRINTED_CHANNELS)),
            "==",
            84_460,
            form=PRINTED,
        ),
        compare(claim, "channels that give 84,460: how many numbers", len(matching), "==", 1),
        compare(claim, "...and which", matching[0], "==", 56),
        compare(claim, "dense, n = 87: arrays counted", measure(mon_fc(rng, 784)), "==", 84_313),
        compare(claim, "dense, n = 87: formula", predict_dense(87, 784), "==", 84_313),
        *_both(claim, "single convolution", SINGLE, mon_conv, predict_single, rng),
        *_both(claim, "tiers", TIERS, mon_multitier, predict_tiers, rng),
    ]


def _both(claim: str, kind: str, rows: Any, build: Any, predict: Any, rng: np.random.Generator) -> list[Verdict]:
    found = []
    for channels, image, count in rows:
        text = f"{kind} {channels} on {_size(image)}"
        found.append(compare(claim, f"{text}: arrays counted", measure(build(rng, image, channels)), "==", count))
        found.append(compare(claim, f"{text}: formula", predict(channels, image), "==", count))
    return found


__all__ = ["counts", "networks"]
