"""W and its relatives as linear maps on batches: matvec, rmatvec, resolvent, vjp."""

from .conv import MonotoneConv, zero_padded
from .dense import MonotoneDense
from .fourier import FourierMap
from .linear import DenseMap, Transpose
from .multitier import MonotoneMultiTier
from .strided import StridedMap, alias_inverse, strided_convolution

__all__ = [
    "DenseMap",
    "FourierMap",
    "MonotoneConv",
    "MonotoneDense",
    "MonotoneMultiTier",
    "StridedMap",
    "Transpose",
    "alias_inverse",
    "strided_convolution",
    "zero_padded",
]
