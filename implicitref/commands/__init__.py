"""The commands of ``implicitref``, one module each; each has `add`, which registers it."""

from __future__ import annotations

from . import bench, crosscheck, doctor, evaluate, explore, reproduce, train, vectors, verify

__all__ = ["COMMANDS"]

COMMANDS = (verify, train, evaluate, reproduce, crosscheck, vectors, explore, bench, doctor)
