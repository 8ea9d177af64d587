"""``implicitref vectors``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..archives import unwritable
from .common import FAILED, INPUT_ERRORS, OK, RAW, USAGE, complain, write_json

__all__ = ["add"]


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "vectors",
        help="conformance vectors for implementations and checkers in any language",
        description="Problems with answers that are right, acceptable or wrong in a named way: a JSON manifest, its "
        "JSON schema, and one npz archive a case.",
        epilog="examples:\n  implicitref vectors write vectors\n  implicitref vectors verify vectors\n\n"
        "exit status: 0 all is well, 1 a case does not hold, 2 usage, or no such vectors",
        formatter_class=RAW,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="write|verify")
    for name, run, says in (
        ("write", _write, "write every case into a new or empty folder"),
        ("verify", _verify, "compare checksums, compute every answer again and compare"),
    ):
        action = actions.add_parser(name, help=says, description=f"{says[0].upper()}{says[1:]}.")
        action.add_argument("folder", metavar="DIR", type=Path)
        if name == "verify":
            action.add_argument("--json", metavar="F", type=Path, help="write the cases that do not hold as JSON")
        action.set_defaults(run=run)


def _write(arguments: argparse.Namespace) -> int:
    from ..crosscheck import vectors

    try:
        count = vectors.write(arguments.folder)
    except INPUT_ERRORS as error:
        return complain(error, USAGE)
    print(f"{count} cases in {arguments.folder}")
    return OK


def _verify(arguments: argparse.Namespace) -> int:
    from ..crosscheck import vectors

    try:
        if complaint := unwritable(arguments.json) if arguments.json else "":
            raise ValueError(complaint)
        outcomes = list(vectors.verify(arguments.folder))
    except INPUT_ERRORS as error:
        return complain(error, USAGE)
    wrong = [(name, complaint) for name, complaint in outcomes if complaint]
    for name, complaint in wrong:
        print(f"{name}: {complaint}")
    print(f"{len(outcomes) - len(wrong)} of {len(outcomes)} cases hold")
    if arguments.json:
        document = {"schema": "implicitref-vectors-report", "version": 1, "cases": len(outcomes), "wrong": dict(wrong)}
        if write_json(arguments.json, document) != OK:
            return FAILED
    return FAILED if wrong else OK
