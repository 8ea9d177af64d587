"""Mutants tried without a fresh interpreter: the tests are imported once, and each mutant is a fork with other code.

    python validation/mutant_server.py operators/conv tests/operators/test_conv.py ...

A line on standard input names a file with the text of the module, changed; the answer is a line of JSON: pytest's exit
status (null: out of time, "elsewhere": the change is not in the body of a function) and what it printed. The process
that forks never runs a test, so that no mutant sees what another has left behind. `mutants` starts one a module.
"""

from __future__ import annotations

import ast
import gc
import importlib
import io
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from inspect import CO_OPTIMIZED
from types import CodeType, FunctionType
from typing import Any

ELSEWHERE = "elsewhere"


def bodies(code: CodeType) -> Iterator[CodeType]:
    """The code of every function that a module defines when it is imported, in the order of the text."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            if constant.co_flags & CO_OPTIMIZED:
                yield constant
            else:  # the body of a class
                yield from bodies(constant)


def living(module: str) -> dict[str, list[FunctionType]]:
    """The functions of an imported module by qualified name, in the order of the text."""
    found: dict[str, list[FunctionType]] = {}
    for thing in gc.get_objects():
        if isinstance(thing, FunctionType) and thing.__module__ == module:
            found.setdefault(thing.__code__.co_qualname, []).append(thing)
    return {name: sorted(same, key=lambda f: f.__code__.co_firstlineno) for name, same in found.items()}


def patch(module: str, old: str, new: str) -> bool:
    """Give every function the body that it has in the new text; False where something else differs, or none does."""
    before, after = (list(bodies(compile(text, "<mutant>", "exec"))) for text in (old, new))
    functions, changed = living(module), False
    for i, (was, becomes) in enumerate(zip(before, after, strict=True)):
        if was == becomes:
            continue
        place = sum(code.co_qualname == was.co_qualname for code in before[:i])
        alive = functions.get(was.co_qualname, [])
        if len(alive) != sum(code.co_qualname == was.co_qualname for code in before):
            return False
        alive[place].__code__, changed = becomes, True
    return changed


def fork(module: str, old: str, new: str, runs: list[list[str]], limit: float) -> tuple[Any, str]:
    """Patch and test in a child: pytest's status and output, None out of time."""
    with tempfile.TemporaryFile("w+") as out:
        pid = os.fork()
        if pid == 0:
            os.setsid()
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
            os._exit(_child(module, old, new, runs))
        end = time.monotonic() + limit
        while (done := os.waitpid(pid, os.WNOHANG))[0] == 0:
            if time.monotonic() > end:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return None, ""
            time.sleep(0.02)
        out.seek(0)
        code = os.waitstatus_to_exitcode(done[1])
        return (ELSEWHERE if code == NOT_PATCHED else code), out.read()


NOT_PATCHED = 77


def _child(module: str, old: str, new: str, runs: list[list[str]]) -> int:
    import pytest

    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    try:
        if not patch(module, old, new):
            return NOT_PATCHED
        for arguments in runs:
            code = int(pytest.main(arguments))
            if code:
                return code
        return 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def serve(name: str, limit: float, runs: list[list[str]]) -> None:
    """Import the tests, then answer."""
    import pytest

    module = f"implicitref.{name.replace('/', '.')}"
    answers, sys.stdout = sys.stdout, io.StringIO()
    with redirect_stdout(io.StringIO()) as said, redirect_stderr(said):
        code = pytest.main(["--collect-only", "-q", *(a for arguments in runs for a in arguments if a != "-x")])
    if code:
        raise SystemExit(f"the tests of {name} cannot be collected:\n{said.getvalue()[-2000:]}")
    path = importlib.import_module(module).__file__ or ""
    with open(path, encoding="utf-8") as file:
        old = ast.unparse(ast.parse(file.read()))
    for line in sys.stdin:
        with open(line.strip(), encoding="utf-8") as file:
            found = fork(module, old, file.read(), runs, limit)
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], float(sys.argv[2]), json.loads(sys.argv[3]))
