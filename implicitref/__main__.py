"""The command line: `implicitref.commands` has one module a command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from . import __version__
from .commands import COMMANDS
from .commands.common import FAILED, INTERRUPTED, RAW, SHELLS, Completion, complain

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0 well, 1 failed, 2 usage or bad input, 3 unfinished or inconclusive,
    130 interrupted."""
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as done:  # argparse has printed help or its complaint
        return int(done.code or 0)
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        return complain("interrupted", INTERRUPTED)
    except OSError as error:  # whoever read the output has gone, or its disk is full
        with suppress(OSError), open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())  # what is still in the buffer goes there
        return complain(f"the output could not be written: {error}", FAILED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="implicitref",
        description="The executable reference for implicit-depth networks.",
        epilog="example:\n  implicitref train mon-fc --data digits",
        formatter_class=RAW,
    )
    parser.add_argument(
        "--print-completion", choices=SHELLS, action=Completion, help="print what completes commands in that shell"
    )
    parser.add_argument("--version", action="version", version=f"implicitref {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
