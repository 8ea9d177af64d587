"""``implicitref bench``."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

from .common import RAW, count, processors

__all__ = ["add"]

EPILOG = """\
suites:
  forward    one iteration and one solve of dense, convolutional and multi-tier layers
  training   both passes with all gradients, and whole training steps
  operators  products with W, W', the resolvent; factorisation; gradients by A and B
  peers      dense layers against PyTorch as published, TorchDEQ and jaxopt

Every side of a solve is brought to one certified accuracy, and its state is certified again after the runs. Peers that
are not installed are named as absent; jaxopt's compiler sets its own threads. Measure on an otherwise idle machine.

examples:
  implicitref bench
  implicitref bench --suite peers --runs 50 --threads 2 --json peers.json --html peers.html
  implicitref bench --suite forward --level full --backend cupy --out curves

exit status: 0 done, 1 a solve of ours misses its accuracy or a file could not be written, 2 usage"""


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "bench",
        help="measure speed, beside the machine's peaks and other libraries",
        description="Measure medians of alternating runs beside the machine's peaks and other implementations.",
        epilog=EPILOG,
        formatter_class=RAW,
    )
    add = parser.add_argument
    add("--suite", choices=("forward", "training", "operators", "peers"), default="forward", help="see below")
    add("--level", choices=("quick", "full"), default="quick", help="full: the sizes of the papers, many minutes")
    add("--backend", choices=("numpy", "cupy", "torch"), default="numpy", help="library of our arrays (default numpy)")
    add("--runs", type=count, default=15, metavar="N", help="timed runs of every side (default 15)")
    add("--threads", type=count, default=processors(), metavar="N", help="of BLAS, FFT, PyTorch (default: all cores)")
    add("--seed", type=int, default=0, metavar="N", help="seed of the random layers (default 0)")
    add("--json", type=Path, metavar="F", help="write everything measured as JSON")
    add("--html", type=Path, metavar="F", help="write one self-contained page, scaling curves included")
    add("--out", type=Path, metavar="DIR", help="measure scaling curves; folder of their CSV, PNG and SVG")
    parser.set_defaults(run=_bench)


def _bench(arguments: argparse.Namespace) -> int:
    from ..claims import validation

    return int(importlib.import_module(".bench", validation().__name__).main(arguments))
