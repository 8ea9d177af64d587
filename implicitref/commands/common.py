"""What the commands share: exit statuses, types of arguments, complaints."""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

from ..archives import write_atomically

__all__ = [
    "FAILED", "INPUT_ERRORS", "INTERRUPTED", "OK", "RAW", "SHELLS", "UNFINISHED", "USAGE", "Completion",
    "complain", "count", "counts", "nonnegative", "number", "on_device", "positive", "processors", "seeded",
    "write_json",
]  # fmt: skip

OK, FAILED, USAGE, UNFINISHED, INTERRUPTED = 0, 1, 2, 3, 130
RAW = argparse.RawDescriptionHelpFormatter
SHELLS = ("bash", "zsh", "tcsh")
INPUT_ERRORS = (ValueError, OSError, TypeError, MemoryError)


def count(text: str) -> int:
    """An integer >= 1, as argparse wants it."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer >= 1; got {text}")
    return int(text)


def counts(text: str) -> tuple[int, ...]:
    """Integers >= 1 between commas."""
    return tuple(count(part) for part in text.split(","))


def positive(text: str) -> float:
    """A finite number > 0."""
    if not 0 < number(text) < math.inf:
        raise argparse.ArgumentTypeError(f"must be a finite number > 0; got {text}")
    return float(text)


def nonnegative(text: str) -> float:
    """A finite number >= 0."""
    if not 0 <= number(text) < math.inf:
        raise argparse.ArgumentTypeError(f"must be a finite number >= 0; got {text}")
    return float(text)


def number(text: str) -> float:
    """NaN where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def seeded(seed: int) -> int:
    """The seed, if it is one."""
    if seed < 0:
        raise ValueError(f"--seed must be >= 0; got {seed}.")
    return seed


def complain(message: object, status: int) -> int:
    """Say it on the error stream; the status, to be returned."""
    print(f"implicitref: {message}", file=sys.stderr)
    return status


def processors() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def write_json(path: Path, document: dict[str, Any]) -> int:
    """Write it in one instant; the status, FAILED with a complaint where the disk refuses."""
    try:
        write_atomically(path, lambda file: file.write(json.dumps(document, indent=1).encode()))
    except OSError as error:
        return complain(error, FAILED)
    return OK


class Completion(argparse.Action):
    """Print the script and leave, as --help does."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: str | None = None) -> None:
        """Called by argparse."""
        try:
            shtab = importlib.import_module("shtab")
        except ImportError:
            parser.error("--print-completion needs shtab: pip install 'implicitref[completion]'")
        print(shtab.complete(parser, shell=values))
        parser.exit()


def on_device(device: str, network: Any) -> Any:
    """The network with its parameters on the device."""
    if device == "cpu":
        return network
    try:
        cupy = importlib.import_module("cupy")
        present = cupy.cuda.is_available()
    except ImportError as error:
        raise ValueError(f"--device gpu needs CuPy (pip install cupy-cuda12x): {error}.") from error
    if not present:
        raise ValueError("--device gpu: CuPy finds no GPU here.")
    return network.following(cupy.zeros(1, next(iter(network.params.values())).dtype))
