"""``file.py:name`` or ``module:name`` to the target that it means."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from .targets import Target

__all__ = ["located"]


def located(where: str) -> Target:
    """The target at ``file.py:name`` or ``module:name``, called first if it is a function.

    Raises
    ------
    ValueError, TypeError
    """
    place, colon, name = where.rpartition(":")
    if not colon or not name.isidentifier():
        raise ValueError(f"the target must be FILE.py:NAME or MODULE:NAME; got {where!r}.")
    try:
        found: Any = getattr(_module(place), name)
        found = found if isinstance(found, Target) or not callable(found) else found()
    except Exception as error:  # of the code that the target is made by: whatever it is, it is no verdict
        raise ValueError(f"{where} fails with {type(error).__name__}: {error}") from error
    if not isinstance(found, Target):
        raise TypeError(
            f"{where} must be a Target of implicitref.crosscheck, or return one; got {type(found).__name__}."
        )
    return found


def _module(place: str) -> ModuleType:
    if not place.endswith(".py"):
        return importlib.import_module(place)
    path = Path(place).resolve()
    if not path.is_file():
        raise ValueError(f"{place} is no file.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{place} cannot be imported.")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))  # so that it finds its neighbours
    sys.modules.setdefault(path.stem, module)  # where dataclasses look up their annotations
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module
