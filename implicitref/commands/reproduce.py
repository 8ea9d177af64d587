"""``implicitref reproduce``."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

from .common import RAW

__all__ = ["add"]

REPRODUCE_EXAMPLES = (
    "examples:\n  implicitref reproduce --list\n"
    "  implicitref reproduce mon-figure-3 --out figures\n"
    "  implicitref reproduce mon-figure-2 --data mnist.npz --out figures\n"
    "  implicitref reproduce sequential-table-1 --json table-1.json\n"
    "  implicitref reproduce sequential-table-3 --data mnist.npz --checkpoint blocks.npz\n"
    "  implicitref reproduce sequential-table-3 --data mnist.npz --checkpoint blocks.npz --resume\n\n"
    "exit status: 0 it shows what it is to show, 1 it does not or failed, 2 usage"
)


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "reproduce",
        help="make a table or figure of the papers anew",
        description="Make a table or figure of the papers anew, beside what is printed: a table, and CSV, PNG and SVG.",
        epilog=REPRODUCE_EXAMPLES,
        formatter_class=RAW,
    )
    add = parser.add_argument
    add("experiment", metavar="NAME", nargs="?", help="such as mon-figure-3")
    add("--list", action="store_true", help="say what there is, and how long it takes")
    add("--seed", type=int, default=0, metavar="N", help="default 0")
    add("--data", help="mon-figure-*: digits (default); sequential-table-3: mnist (default); both also take "
        "fashion-mnist, an npz file or a folder of IDX files")  # fmt: skip
    add("--checkpoint", type=Path, metavar="F", help="sequential-table-3: save the sequential model after every block")
    add("--resume", action="store_true", help="go on from --checkpoint")
    add("--out", type=Path, default=Path(), metavar="DIR", help="folder of NAME.csv, .png and .svg (default .)")
    add("--json", type=Path, metavar="F", help="write everything measured as JSON")
    parser.set_defaults(run=_reproduce)


def _reproduce(arguments: argparse.Namespace) -> int:
    from ..claims import validation

    return int(importlib.import_module(".reproduce", validation().__name__).main(arguments))
