"""W and its relatives as linear maps on batches: matvec, rmatvec, resolvent, vjp."""

from .dense import MonotoneDense
from .linear import DenseMap, Transpose

__all__ = ["DenseMap", "MonotoneDense", "Transpose"]
