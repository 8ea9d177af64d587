"""``implicitref verify``."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

from .common import RAW, count

__all__ = ["add", "check", "environment"]

EPILOG = """\
levels: the number of random trials of every check
  quick     the default; about a minute
  full      10 times the trials; about 10 minutes
  thorough  60 times the trials; about an hour

An interrupted run keeps what is finished in a journal beside its report; --resume goes on with it.

examples:
  implicitref verify --json report.json --html report.html
  implicitref verify --paper mon --backend torch --jobs 2

exit status: 0 all as registered, 1 something disagrees, 2 usage, 3 inconclusive"""


def add(commands: Any) -> None:
    """Register the command."""
    verify = commands.add_parser(
        "verify",
        help="check every registered claim on this machine",
        description="Check every registered claim: what was measured beside what the theorem predicts.",
        epilog=EPILOG,
        formatter_class=RAW,
    )
    which = verify.add_argument_group("what to check")
    which.add_argument("--paper", choices=("mon", "sequential", "fpn", "jfb", "ours"), help="entries about one paper")
    which.add_argument("--claim", metavar="ID", help="one entry, such as MON-Alg2")
    which.add_argument("--level", choices=("quick", "full", "thorough"), default="quick", help="see below")
    which.add_argument(
        "--backend", choices=("numpy", "cupy", "torch", "jax"), default="numpy",
        help="library of the arrays; checks that know only NumPy say so",
    )  # fmt: skip
    which.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the random problems (default 0)")
    where = verify.add_argument_group("where").add_mutually_exclusive_group()
    where.add_argument("--jobs", type=count, default=1, metavar="N", help="processes; the verdicts stay the same")
    where.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask cluster, such as tcp://127.0.0.1:8786")
    report = verify.add_argument_group("report")
    report.add_argument("--json", metavar="F", help="write the report as JSON")
    report.add_argument("--html", metavar="F", help="write the report as one self-contained page")
    report.add_argument("--resume", action="store_true", help="go on with an interrupted run of the same settings")
    verify.set_defaults(run=_verify)


def _verify(arguments: argparse.Namespace) -> int:
    return int(_validation("run").main(arguments))


def _validation(name: str) -> Any:
    from ..claims import validation

    return importlib.import_module(f".{name}", validation().__name__)


def check(identifier: str, seed: int, size: float, backend: str) -> Any:
    """Check one entry in this process: the task of a worker, which may know the validations by this path alone."""
    tasks = _validation("tasks")
    return tasks.check(*tasks.selected(identifier), seed, size, backend)


def environment() -> dict[str, str]:
    """The versions that this process computes with."""
    return dict(_validation("record").environment())
