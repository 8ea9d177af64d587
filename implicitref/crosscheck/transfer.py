"""Arrays of other libraries as NumPy arrays and back, by DLPack where that works, and what to do where it does not."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["host", "is_single"]


def host(x: Any) -> np.ndarray:
    """`x` as a NumPy array of its own precision, or of float32 where NumPy has none such (bfloat16); never a view.

    Handles what DLPack refuses or hides: tensors that require gradients, pending conjugations, bfloat16, byte-swapped
    arrays, read-only JAX arrays, arrays on another device.

    Examples
    --------
    >>> host([1.0, 2.0])
    array([1., 2.])
    """
    for method in ("detach", "cpu", "resolve_conj", "resolve_neg"):
        if hasattr(x, method) and not isinstance(x, np.ndarray):
            x = getattr(x, method)()
    if "bfloat16" in str(getattr(x, "dtype", "")):
        x = x.float() if hasattr(x, "float") else x.astype("float32")
    if hasattr(x, "get") and hasattr(x, "device") and not isinstance(x, np.ndarray):
        x = x.get()  # CuPy
    return _native(_by_dlpack(x))


def _by_dlpack(x: Any) -> np.ndarray:
    try:
        return np.array(np.from_dlpack(x))
    except (AttributeError, TypeError, BufferError, RuntimeError, ValueError):  # no DLPack, or an export refused
        return np.array(x)


def _native(x: np.ndarray) -> np.ndarray:
    return x if x.dtype.isnative else x.astype(x.dtype.newbyteorder("="))


def is_single(x: np.ndarray) -> bool:
    """Whether every entry of a float64 array is a float32 number: then it was computed, or passed, in float32."""
    nonzero = x[np.isfinite(x) & (x != 0)] if x.dtype == np.float64 else x[:0].astype(np.float64)
    with np.errstate(over="ignore"):
        return nonzero.size > 3 and bool(np.all(nonzero == nonzero.astype(np.float32)))
