"""``implicitref crosscheck``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..archives import unwritable, write_atomically
from .common import FAILED, INPUT_ERRORS, OK, RAW, UNFINISHED, USAGE, complain, seeded

__all__ = ["add"]


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "crosscheck",
        help="check somebody else's implicit layer",
        description="Check a layer of another framework: forward pass, every block of the gradient, and what is wrong.",
        epilog="example:\n  implicitref crosscheck layer.py:target --json report.json --html report.html\n\n"
        "target is a Target of implicitref.crosscheck, or a function that returns one.\n\n"
        "exit status: 0 pass, 1 fail, 2 usage, 3 inconclusive",
        formatter_class=RAW,
    )
    parser.add_argument("target", metavar="FILE.py:NAME", help="where the target is; or MODULE:NAME")
    parser.add_argument("--json", metavar="F", type=Path, help="write the report as JSON")
    parser.add_argument("--html", metavar="F", type=Path, help="write the report as one self-contained page")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the inputs drawn (default 0)")
    parser.set_defaults(run=_crosscheck)


def _crosscheck(arguments: argparse.Namespace) -> int:
    from ..crosscheck import check
    from ..crosscheck.locate import located

    files = {arguments.json: "to_json", arguments.html: "to_html"}
    try:
        complaints = [unwritable(path) for path in files if path is not None]
        if any(complaints):
            raise ValueError("; ".join(filter(None, complaints)))
        report = check(located(arguments.target), random_state=seeded(arguments.seed))
    except (*INPUT_ERRORS, ImportError, AttributeError) as error:
        return complain(error, USAGE)
    print(report)
    for path, form in files.items():
        if path is not None:
            text = getattr(report, form)()
            write_atomically(path, lambda file, text=text: file.write(text.encode()))  # type: ignore[misc]
    return {"pass": OK, "fail": FAILED}.get(report.verdict, UNFINISHED)
