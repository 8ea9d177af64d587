"""``implicitref verify``."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

from .common import RAW

__all__ = ["add"]


def add(commands: Any) -> None:
    """Register the command."""
    verify = commands.add_parser(
        "verify",
        help="check every registered claim on this machine",
        description="Check every registered claim: what was measured beside what the theorem predicts.",
        epilog="example:\n  implicitref verify --json report.json --html report.html\n\n"
        "exit status: 0 all as registered, 1 something disagrees, 2 usage, 3 inconclusive",
        formatter_class=RAW,
    )
    verify.add_argument("--json", metavar="F", help="write the report as JSON")
    verify.add_argument("--html", metavar="F", help="write the report as one self-contained page")
    verify.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the random problems (default 0)")
    verify.add_argument("--claim", metavar="ID", help="check one claim only, such as MON-Alg2")
    verify.set_defaults(run=_verify)


def _verify(arguments: argparse.Namespace) -> int:
    from ..claims import validation

    return int(importlib.import_module(".run", validation().__name__).main(arguments))
