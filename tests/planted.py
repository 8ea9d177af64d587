"""Bugs planted in the text of a function, and the check that the validation of a claim notices a bug."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any

from implicitref import claims


@functools.cache
def edited(module: str, function: str, old: str, new: str) -> tuple[Any, CodeType]:
    """The function, and its code with `old` replaced; both in the spelling of `ast.unparse`, without the docstring.

    The code is put into the function object, so every module that imported the function runs it.
    """
    found = importlib.import_module(f"implicitref.{module}")
    tree = ast.parse(Path(found.__file__).read_text(encoding="utf-8"))
    parent, node = tree, tree
    for name in function.split("."):
        (child,) = (part for part in node.body if getattr(part, "name", "") == name)
        parent, node = node, child
    if ast.get_docstring(node, clean=False) is not None:
        node.body = node.body[1:]
    text = ast.unparse(node)
    assert text.count(old) == 1, f"{module}.{function} holds {old!r} {text.count(old)} times: plant the bug elsewhere"
    parent.body[parent.body.index(node)] = ast.parse(text.replace(old, new)).body[0]
    codes = [code for code in _codes(compile(tree, found.__file__, "exec")) if code.co_qualname == function]
    where = functools.reduce(getattr, function.split("."), found)
    return inspect.unwrap(where.fget if isinstance(where, property) else where), codes[0]


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def check_noticed(run: Any, plant: Callable[[Any], None], claim: str, monkeypatch: Any) -> None:
    """The claim is as registered, and with the bug disagrees in a verdict, without a crash."""
    entry = claims.load()[claim]
    assert run.check(entry, 0, 0.1).state == "as registered"
    plant(monkeypatch)
    outcome = run.check(entry, 0, 0.1)
    assert outcome.message == "", "it has to be a verdict that fails, not a crash"
    assert outcome.state == "disagrees"
    assert any(not v.as_registered for v in outcome.verdicts)
