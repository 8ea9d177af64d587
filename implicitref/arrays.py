"""The namespace of the arguments, checks at public entrances, moves to the host, per-sample norms.

The only module that imports array_api_compat. No function of the package takes a namespace, a
device or a dtype: results follow the first array argument.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import array_api_compat as compat
import numpy as np

from .errors import HypothesisError, ShapeError

LARGE = 2**18  # entries of a batch of states, beyond which a pass over it, or its memory, costs more than a few calls
Array = Any  # an array of any library that follows the array API standard


def namespace(*arrays: Array) -> Any:
    """The array namespace of the arguments; TypeError if they come from several libraries."""
    for x in arrays:
        if type(x) is not np.ndarray:
            return compat.array_namespace(*arrays)
    return _NUMPY  # the common case, in a tenth of the time


_NUMPY = compat.array_namespace(np.zeros(0))


def is_array(x: Any) -> bool:
    """Whether `x` is an array of a library that the package can compute with (0-d included, masked arrays not)."""
    return type(x) is np.ndarray or (bool(compat.is_array_api_obj(x)) and not isinstance(x, np.ma.MaskedArray))


def eps(x: Array) -> float:
    """Spacing of the floating-point numbers at 1 in the dtype of `x` (2.2e-16 or 1.2e-7)."""
    return _limits(namespace(x), x.dtype)[0]


@functools.cache
def _limits(xp: Any, dtype: Any) -> tuple[float, float]:
    # eps, and the length below which the squares of the larger entries may be subnormal (9.1e-13 for float32)
    found = xp.finfo(dtype)
    return float(found.eps), float(found.smallest_normal) ** 0.5 / float(found.eps)


def like(x: Array, value: Any) -> Array:
    """`value` (an array or a number) with the library, device and dtype of `x`."""
    if type(x) is np.ndarray and type(value) is np.ndarray and x.dtype == value.dtype:
        return value
    xp = namespace(x)
    if is_array(value):
        if not same_library(x, value):
            value = np.array(native(to_numpy(value)))  # a copy: torch wraps no read-only array
        elif value.dtype == x.dtype and compat.device(value) == compat.device(x):
            return value
    with quiet():  # what does not fit becomes inf, which `checked` and the drivers look for
        return xp.asarray(value, dtype=x.dtype, device=compat.device(x))


def complex_like(x: Array, value: Array) -> Array:
    """`value` as a complex array with the library, device and precision of `x`, real or complex."""
    xp = namespace(x)
    dtype = xp.complex64 if x.dtype in (xp.float32, xp.complex64) else xp.complex128
    if same_library(x, value) and compat.device(value) == compat.device(x):
        return xp.astype(value, dtype)
    return xp.asarray(value, dtype=dtype, device=compat.device(x))


def real_like(x: Array, value: Array) -> Array:
    """`value`, real, with the library, device and precision of `x`, real or complex."""
    return (
        like(namespace(x).real(x[:0, ...]), value)
        if namespace(x).isdtype(x.dtype, "complex floating")
        else like(x, value)
    )


def complex_of(re: Array, im: Array) -> Array:
    """re + i im."""
    if type(re) is not np.ndarray:
        return complex_like(re, re) + 1j * complex_like(im, im)
    z = np.empty(re.shape, np.result_type(re.dtype, np.complex64))  # no intermediate arrays: these are large
    z.real, z.imag = re, im
    return z


def place(x: Array) -> tuple[str, str]:
    """dtype and device of `x`, to be compared."""
    return str(x.dtype), str(compat.device(x))


def alongside(name: str, x: Array, first: Array) -> Array:
    """The argument `x` with the dtype and device of `first`; TypeError if they come from two libraries."""
    if not same_library(first, x):
        found, wanted = (type(array).__module__.split(".")[0] for array in (x, first))
        raise TypeError(f"{name} must come from the library of the first array, {wanted}; got an array of {found}.")
    moved = like(first, x)
    if moved is not x and not all_finite(moved):
        raise HypothesisError(f"{name} must fit into {first.dtype}, the dtype of the first array; it overflows.")
    return moved


def same_library(x: Array, y: Array) -> bool:
    """Whether two arrays come from one library."""
    return namespace(x) is namespace(y)


def to_numpy(x: Array) -> np.ndarray:
    """A NumPy array with the values of `x`, whatever library and device hold it."""
    if compat.is_cupy_array(x):
        return np.asarray(x.get())
    if compat.is_torch_array(x):
        return np.asarray(x.detach().cpu().resolve_conj().numpy())
    if compat.is_numpy_array(x) or not is_array(x):
        return np.asarray(x)
    return np.asarray(_to_host_device(x))


def _to_host_device(x: Array) -> Array:
    # array_api_strict simulates devices: only the one it calls CPU can be read by NumPy
    cpu = next((d for d in namespace(x).__array_namespace_info__().devices() if "CPU" in str(d).upper()), None)
    return x if cpu is None else compat.to_device(x, cpu)


def norm(x: Array) -> Array:
    """Euclidean norm of every sample: (batch, ...) to (batch,)."""
    xp = namespace(x)
    flat = x if x.ndim == 2 else _flat(x)
    if xp is _NUMPY:  # a quarter of the passes of numpy.linalg.norm
        lengths: Array = np.sqrt(np.einsum("ij,ij->i", flat, flat))  # einsum overflows without a warning
        if not flat.size or (lengths.min() > _tiny(x) and lengths.max() < math.inf) or not flat.any():
            return lengths
    # the squares may leave the range of the dtype where the norm does not: a bound of 0 would be a false certificate
    if not math.prod(flat.shape):
        return xp.linalg.vector_norm(flat, axis=1)
    scale = xp.max(xp.abs(flat), axis=1, keepdims=True)
    scale = xp.where((scale > 0) & xp.isfinite(scale), scale, xp.ones_like(scale))
    return scale[:, 0] * xp.linalg.vector_norm(flat / scale, axis=1)


def _flat(x: Array) -> Array:
    """(batch, ...) as (batch, n), the entries of a sample in any order: states stay in their own memory order."""
    shape = x.shape[0], math.prod(x.shape[1:])
    if type(x) is not np.ndarray or x.flags.c_contiguous:
        return namespace(x).reshape(x, shape)
    if shape[0] == 1:
        return x.ravel(order="K")[None, :]
    axes = np.argsort([-stride for stride in x.strides], kind="stable")
    return x.transpose(axes).reshape(shape[::-1]).T if axes[-1] == 0 else x.reshape(shape)


def total_norm(x: Array) -> float:
    """Euclidean norm of the whole array, as a Python number."""
    if type(x) is np.ndarray:
        flat = x.ravel(order="K")  # states may lie in memory with the batch last
        length = math.sqrt(np.dot(flat, flat))
    else:
        length = float(namespace(x).linalg.vector_norm(x))
    if 1e-12 < length < 1e18 or _tiny(x) < length < math.inf:  # the first is safe in every dtype, and quick
        return length
    xp = namespace(x)
    scale = largest(xp.abs(x))
    return scale * float(xp.linalg.vector_norm(x / scale)) if 0 < scale < math.inf else scale


def _tiny(x: Array) -> float:
    return _limits(namespace(x), x.dtype)[1]


def inner(x: Array, y: Array) -> Array:
    """The inner product of two whole arrays of one shape, as a 0-d array."""
    if type(x) is np.ndarray:
        order: Any = "K" if x.strides == y.strides else "C"
        return np.asarray(np.vdot(x.ravel(order=order), y.ravel(order=order)))
    return namespace(x, y).sum(x * y)


def largest(x: Array) -> float:
    """The largest entry as a Python number, NaN if there is one, 0 for an empty array."""
    if type(x) is np.ndarray and x.size:
        return float(x.max())
    return float(namespace(x).max(x)) if math.prod(x.shape) else 0.0


def all_finite(x: Array) -> bool:
    """Whether no entry is NaN or infinite."""
    xp = namespace(x)
    if type(x) is np.ndarray and x.dtype.char in "fd" and x.dtype.isnative:
        flat = x.ravel(order="K")
        with quiet():
            if math.isfinite(np.dot(flat, flat)):  # an eighth of the time; squares of finite entries may overflow
                return True
    return bool(xp.all(xp.isfinite(x)))


def eye(n: int, x: Array) -> Array:
    """The n x n identity with the library, device and dtype of `x`."""
    return namespace(x).eye(n, dtype=x.dtype, device=compat.device(x))


def zeros(shape: tuple[int, ...], x: Array) -> Array:
    """Zeros with the library, device and dtype of `x`."""
    if type(x) is np.ndarray:
        return np.zeros(shape, x.dtype)
    return namespace(x).zeros(shape, dtype=x.dtype, device=compat.device(x))


def zeros_alike(x: Array) -> Array:
    """Zeros of the shape of `x`, to be read only: of a large NumPy array one zero that stands in every place."""
    if type(x) is np.ndarray:
        return np.broadcast_to(np.zeros((), x.dtype), x.shape) if x.size > LARGE else np.zeros(x.shape, x.dtype)
    return namespace(x).zeros_like(x)


def from_numpy(values: np.ndarray, x: Array) -> Array:
    """NumPy values with the library, device and dtype of `x` (random draws are made on the host)."""
    return like(x, values)


def has_double(x: Array) -> bool:
    """Whether the library and device of `x` offer float64."""
    xp = namespace(x)
    if compat.is_numpy_array(x):
        return True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX without x64 truncates to float32 with a warning
        try:
            return bool(xp.zeros((1,), dtype=xp.float64, device=compat.device(x)).dtype == xp.float64)
        except (AttributeError, TypeError, ValueError, RuntimeError):
            return False


def in_double(value: Any) -> Any:
    """Arrays in float64 where their device has it; a dataclass with all its array fields so, made once."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _in_double_fields(value)
    if type(value) in (list, tuple):  # the parameters of several tiers
        wide = type(value)(in_double(entry) for entry in value)
        return value if all(new is old for new, old in zip(wide, value, strict=True)) else wide
    if not is_array(value) or not has_double(value):
        return value
    xp = namespace(value)
    return value if value.dtype == xp.float64 else xp.astype(value, xp.float64)


def leaves(value: Any) -> list[Array]:
    """The arrays of a parameter: itself, or the list that it is."""
    return list(value) if isinstance(value, list | tuple) else [value]


def each(function: Callable[[Array], Any], value: Any) -> Any:
    """`function` of a parameter: of itself, or of every array of the list that it is."""
    return [function(entry) for entry in value] if isinstance(value, list | tuple) else function(value)


_COMPUTING = threading.RLock()


def memoised(method: Callable[..., Any]) -> Callable[..., Any]:
    """Cache a method of an immutable object, by its arguments, on the object itself.

    Safe because operators copy their parameters: nothing that the value depends on can change.
    """

    @functools.wraps(method)
    def lookup(self: Any, *arguments: Any) -> Any:
        cache = self.__dict__.setdefault("_memo", {})
        key = (method.__name__, *arguments)
        if key not in cache:
            with _COMPUTING:  # threads that share an operator factor it once
                if key not in cache:
                    cache[key] = method(self, *arguments)
        return cache[key]

    return lookup


@memoised
def _in_double_fields(value: Any) -> Any:
    fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
    wide = {name: in_double(field) for name, field in fields.items()}
    changed = any(wide[name] is not fields[name] for name in fields)
    return dataclasses.replace(value, **wide) if changed else value


def mapped(function: Callable[[Any], Any], items: Sequence[Any], workers: int) -> Iterator[Any]:
    """`function` of every item, in order, in that many threads: NumPy lets go of the interpreter while it computes."""
    if workers < 2 or len(items) < 2:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(min(workers, len(items))) as pool:
        yield from pool.map(function, items)


def quiet() -> AbstractContextManager[None]:
    """No NumPy warning on overflow or NaN: the driver looks for them itself and says so in words."""
    return np.errstate(over="ignore", invalid="ignore", under="ignore", divide="ignore")


def checked(name: str, x: Any, ndim: int | None = None) -> Array:
    r"""The array argument `name`, refused unless it is real floating, finite and has `ndim` axes.

    Raises
    ------
    TypeError
        `x` is not an array.
    ShapeError
        Wrong number of axes; where the batch axis is missing the message says ``x[None]``.
    HypothesisError
        The dtype is not float32 or float64, or an entry is NaN or infinite.
    """
    if not is_array(x):
        raise TypeError(
            f"{name} must be an array (NumPy, CuPy, torch, JAX, ...); got {type(x).__name__}. Use numpy.asarray."
        )
    x = native(x)
    if x.dtype not in real_dtypes(x):
        raise HypothesisError(f"{name} must be float32 or float64; got dtype {x.dtype}. Convert it with astype.")
    if ndim is not None and x.ndim != ndim:
        hint = f" Add the batch axis: {name}[None]." if x.ndim == ndim - 1 else ""
        raise ShapeError(f"{name} must have {ndim} axes; got shape {tuple(x.shape)}.{hint}")
    if not all_finite(x):
        raise HypothesisError(f"{name} must be finite; it holds {_count_bad(x)} NaN or infinite entries.")
    return x


def real_dtypes(x: Array) -> tuple[Any, ...]:
    """float32 and, where the library of `x` has it, float64: the dtypes that the package computes in."""
    return _real_dtypes(namespace(x))


@functools.cache
def _real_dtypes(xp: Any) -> tuple[Any, ...]:
    return tuple(getattr(xp, name) for name in ("float32", "float64") if hasattr(xp, name))


def native(x: Array) -> Array:
    """`x` as the plain array that compiled code expects, with the same values.

    Byte-swapped memory maps are ordinary input for NumPy and poison for everything compiled; a torch parameter would
    record a graph that nobody asked for.
    """
    if type(x) is np.ndarray and x.dtype.isnative:
        return x
    if compat.is_numpy_array(x):
        return np.asarray(x, dtype=x.dtype.newbyteorder("="))
    return x.detach() if compat.is_torch_array(x) and x.requires_grad else x


def _count_bad(x: Array) -> int:
    xp = namespace(x)
    return int(xp.count_nonzero(~xp.isfinite(x)))


def positive(name: str, value: Any, why: str = "") -> float:
    """The scalar argument `name` as a float, refused unless it is a finite number > 0."""
    number = as_number(value)
    if number is None:
        raise HypothesisError(f"{name} must be a number > 0{why}; got {value!r}.")
    if not (math.isfinite(number) and number > 0):
        raise HypothesisError(f"{name} must be a finite number > 0{why}; got {value!r}.")
    return number


def nonnegative(name: str, value: Any) -> float:
    """The scalar argument `name` as a float, refused unless it is a finite number >= 0."""
    number = as_number(value)
    if number is None or not 0 <= number < math.inf:
        raise HypothesisError(f"{name} must be a finite number >= 0; got {value!r}.")
    return number


def count(name: str, value: Any, least: int = 1, why: str = "") -> int:
    """The argument `name` as an int, refused unless it is an integer >= `least` (of any library; True is none)."""
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except (TypeError, ValueError):  # an array of floats, or of many integers, has __index__ too
        number = least - 1
    if number < least:
        raise HypothesisError(f"{name} must be an integer >= {least}{why}; got {value!r}.")
    return number


def one_of(name: str, value: Any, table: Mapping[str, Any]) -> Any:
    """The entry of `table` that the argument `name` names, refused unless it is one of its keys."""
    if not isinstance(value, str) or value not in table:
        raise HypothesisError(f"{name} must be one of {', '.join(table)}; got {value!r}.")
    return table[value]


def as_number(value: Any) -> float | None:
    """`value`, a real scalar of any library, as a float; None where it is something else (a string, a list)."""
    if type(value) is float:
        return value
    if isinstance(value, str | bytes) or (is_array(value) and value.ndim):
        return None
    try:
        return float(native(value))
    except OverflowError:  # an integer of Python beyond every float
        return math.inf if value > 0 else -math.inf
    except (TypeError, ValueError):
        return None


@functools.cache
def _inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(axes.index(i) for i in range(len(axes)))


def owned(x: Array, memory: tuple[int, ...] | None = None) -> Array:
    """A copy of `x` that nobody else can write to; on NumPy it is marked read-only, and what is already such is kept.

    `memory` lists the axes from the slowest to the fastest; by default the order of `x` stays. The order of states is
    part of what makes a solve fast.
    """
    if type(x) is not np.ndarray:
        return namespace(x).asarray(x, copy=True)
    ordered = x if memory is None else x.transpose(memory)
    if _read_only(x) and (memory is None or ordered.flags.c_contiguous):
        return x
    copy = ordered.copy(order="K" if memory is None else "C")
    copy.flags.writeable = False
    return copy if memory is None else copy.transpose(_inverse(memory))


def _read_only(x: Any) -> bool:
    # a read-only view of memory that is not, or is not NumPy's, can change under its holder
    return type(x) is np.ndarray and not x.flags.writeable and (x.base is None or _read_only(x.base))
