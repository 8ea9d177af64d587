r"""Models, operators and solutions in files: an npz archive whose JSON header says what its arrays make up.

The header is a tree: a record is ``{"kind": "operators.MonotoneDense", "fields": {...}}``, an array is
``{"array": name}``.
Only the kinds of `KINDS` can be named, so that a file can make nothing else run; nothing is ever unpickled. Beside each
array stand its shape, its dtype and its SHA-256, beside the header its own: they find damage, not a forger, who can
compute them too.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import json
import math
import os
import re
import zipfile
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import activations
from .activations import Activation
from .archives import read_npz, write_npz
from .arrays import is_array, to_numpy
from .errors import HypothesisError

__all__ = ["KINDS", "SCHEMA", "VERSION", "architecture", "load", "read_arrays", "save", "with_arrays"]

SCHEMA, VERSION = "implicitref", 1
DTYPES = "biufcU"  # kinds of dtype that an archive may hold: no objects, no records, no dates
_TABLE = {
    "activations": "ZeroBorder",
    "operators": "MonotoneConv MonotoneDense MonotoneMultiTier",
    "operators.linear": "Transpose",
    "layers": "Activate Affine AveragePool BatchNorm Conv2d Dropout Flatten GlobalAveragePool MaxPool Pad Scale "
    "Sequential Shortcut Sum",
    "splitting": "Inclusion Solution State",
    "mon": "AdjointProx",
    "fixed_point": "Solution",
    "fixed_point.maps": "ForwardBackward LinearMap OneLayer PeacemanRachford",
    "well_posed": "Slopes Solution",
    "sequential": "Block BlockTriangularModel Record",
    "sequential.theorems": "SelfLoopModel",
    "networks": "FixedPointNetwork Images ImplicitModel MonNetwork Rows",
    "optimisers": "AdamState",
    "training": "Record State Step",
    "training.checkpoints": "Checkpoint",
}
KINDS = frozenset(f"{module}.{name}" for module, names in _TABLE.items() for name in names.split())


def save(path: str | os.PathLike[str], thing: Any) -> None:
    r"""Write a model, an operator, a solution, or a dict, list or tuple of them and of arrays, to `path`.

    The file is an uncompressed npz archive that `numpy.load` opens too. It replaces what was there in one instant:
    whoever opens `path`, whenever the process dies, finds the old contents or the new. Arrays of every library are
    written; they come back as NumPy's.

    Parameters
    ----------
    path : str or path
    thing : operator, network, layer, Solution, BlockTriangularModel, ImplicitModel, training.State, dict of arrays, ...

    Raises
    ------
    TypeError
        Something in it is of a kind that no file can hold, such as an activation of your own; the message says where.
    OSError

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from implicitref.operators import MonotoneDense
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "operator.npz"
    ...     save(path, MonotoneDense(np.eye(2), np.zeros((2, 2)), m=0.5))
    ...     load(path).to_dense()
    array([[-0.5,  0. ],
           [ 0. , -0.5]])
    """
    from . import __version__

    arrays: dict[str, np.ndarray] = {}
    content = _encoded(thing, (), arrays)
    described = {
        name: {"shape": list(a.shape), "dtype": a.dtype.str, "sha256": _digest(a)} for name, a in arrays.items()
    }
    header = {
        "schema": SCHEMA, "version": VERSION, "package": __version__, "content": content, "arrays": described,
    }  # fmt: skip
    header["sha256"] = _digest_of_text(header)
    write_npz(path, {"header": np.array(json.dumps(header)), **arrays})


def load(path: str | os.PathLike[str]) -> Any:
    r"""What `save` wrote to `path`, with NumPy arrays, checked as anything newly made is.

    No more memory is taken than the file has bytes, and once that for what is made of it.

    Raises
    ------
    HypothesisError
        The file is truncated, damaged or altered, was not written by `save`, or by a newer version; the message says
        which.
    OSError
    """
    path = Path(path)
    arrays = read_npz(path, limit=path.stat().st_size)  # nothing is compressed
    header = read_header(path, arrays.pop("header", None))
    _check_arrays(path, header["arrays"], arrays)
    try:
        return _decoded(header["content"], arrays)
    except Exception as error:  # whatever a header that fits its SHA-256 and was made up asks for
        raise HypothesisError(f"{path} makes up nothing that this package knows: {error}") from error


def read_header(path: Path, text: np.ndarray | None) -> dict[str, Any]:
    """The header in the array `text`: of this schema, of a version that can be read, and undamaged."""
    try:
        header = json.loads(str(text)) if text is not None and text.ndim == 0 and text.dtype.kind == "U" else None
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or header.get("schema") != SCHEMA:
        raise HypothesisError(f"{path} was not written by implicitref: it has no header with schema {SCHEMA!r}.")
    if header.get("version") != VERSION:
        raise HypothesisError(
            f"{path} has version {header.get('version')!r} of the format, written by implicitref "
            f"{header.get('package')}; this package reads version {VERSION}. Install the version that wrote it."
        )
    if header.pop("sha256", None) != _digest_of_text(header) or not {"content", "arrays"} <= set(header):
        raise HypothesisError(f"{path}: the header was altered after it was written; its SHA-256 does not match.")
    return header


def _check_arrays(path: Path, described: Any, arrays: Mapping[str, np.ndarray]) -> None:
    if not isinstance(described, dict) or set(described) != set(arrays):
        raise HypothesisError(f"{path} does not hold the arrays that its header lists; the file was altered.")
    for name, a in arrays.items():
        found = {"shape": list(a.shape), "dtype": a.dtype.str, "sha256": _digest(a)}
        if a.dtype.kind not in DTYPES or described[name] != found:
            raise HypothesisError(f"{path}: {name} is not the array that was written; its SHA-256 does not match.")


def _digest(a: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(a).view(np.uint8).data if a.nbytes else b"").hexdigest()


def _digest_of_text(header: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()


# ------------------------------------------------------------------------------------------------
# There and back


def _encoded(value: Any, place: tuple[str, ...], arrays: dict[str, np.ndarray]) -> Any:
    """`value` as JSON, its arrays put into `arrays` by the names of their places."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, np.bool_ | np.integer):
        return value.item()
    if isinstance(value, float):  # np.float64 too
        return float(value) if math.isfinite(value) else {"float": str(float(value))}
    if isinstance(value, Activation):
        return {"activation": _named(value, place)}
    if is_array(value):
        return {"array": _kept(to_numpy(value), place, arrays)}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {"dict": {key: _encoded(entry, (*place, key), arrays) for key, entry in value.items()}}
    kind = _kind_of(value.__class__)
    if kind is not None:
        fields = _fields(type(value))
        return {
            "kind": kind,
            "fields": {name: _encoded(getattr(value, name), (*place, name), arrays) for name in fields},
        }
    if type(value) in (list, tuple):
        entries = [_encoded(entry, (*place, str(i)), arrays) for i, entry in enumerate(value)]
        return entries if type(value) is list else {"tuple": entries}
    where = f" at {'.'.join(place)}" if place else ""
    raise TypeError(f"a {type(value).__name__}{where} cannot be saved: no file of implicitref has a form for it.")


def _kept(a: np.ndarray, place: tuple[str, ...], arrays: dict[str, np.ndarray]) -> str:
    if a.dtype.kind not in DTYPES:
        raise TypeError(f"an array of {a.dtype} at {'.'.join(place) or 'the top'} cannot be saved; convert it.")
    # no name says a way through folders, whatever a layer is called
    name = re.sub(r"[^\w.-]", "_", ".".join(filter(None, place))).strip(".") or "array"
    while name in arrays or name == "header":
        name += "_"
    arrays[name] = a.astype(a.dtype.newbyteorder("="), copy=False)
    return name


def _decoded(tree: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(tree, list):
        return [_decoded(entry, arrays) for entry in tree]
    if not isinstance(tree, dict):
        return tree
    forms: dict[frozenset[str], Callable[[], Any]] = {
        frozenset({"array"}): lambda: arrays[tree["array"]],
        frozenset({"float"}): lambda: float(tree["float"]),
        frozenset({"activation"}): lambda: activations.get(*tree["activation"]),
        frozenset({"tuple"}): lambda: tuple(_decoded(entry, arrays) for entry in tree["tuple"]),
        frozenset({"dict"}): lambda: {key: _decoded(entry, arrays) for key, entry in tree["dict"].items()},
        frozenset({"kind", "fields"}): lambda: _made(tree["kind"], tree["fields"], arrays),
    }
    if frozenset(tree) not in forms:
        raise HypothesisError(f"its header holds an entry with {', '.join(tree) or 'nothing'}.")
    return forms[frozenset(tree)]()


def _made(kind: Any, fields: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if kind not in KINDS:
        raise HypothesisError(f"it names the kind {kind!r}, which this version does not know.")
    made_by = _class(kind)
    if set(fields) != set(_fields(made_by)):
        raise HypothesisError(f"a {kind} has the fields {', '.join(_fields(made_by))}; it gives {', '.join(fields)}.")
    return made_by(**{name: _decoded(value, arrays) for name, value in fields.items()})


def _named(activation: Activation, place: tuple[str, ...]) -> list[Any]:
    """The arguments of `activations.get` that give this activation; the name alone has too few digits."""
    name, parameters = activation.name.split("(")[0], getattr(activation.sigma, "keywords", {})
    again = activations.get(name, *parameters.values()) if name in activations.NAMES else None
    if again is None or _law(again) != _law(activation):
        raise TypeError(
            f"the activation {activation!r} at {'.'.join(place) or 'the top'} cannot be saved: only those of "
            "implicitref.activations have a name that a file can hold."
        )
    return [name, *parameters.values()]


def _law(activation: Activation) -> tuple[Any, ...]:
    parts = activation.sigma, activation.slope, activation.f
    return tuple((getattr(part, "func", part), getattr(part, "keywords", {})) for part in parts)


@functools.cache
def _class(kind: str) -> Any:
    module, name = kind.rsplit(".", 1)
    return getattr(importlib.import_module(f".{module}", __package__), name)  # when a file needs it, and not before


@functools.cache
def _kind_of(cls: Hashable) -> str | None:
    named = (kind for kind in KINDS if kind.rsplit(".", 1)[1] == getattr(cls, "__name__", ""))
    return next((kind for kind in named if _class(kind) is cls), None)


def _fields(cls: Any) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(cls) if f.init) if dataclasses.is_dataclass(cls) else cls._fields


def architecture(thing: Any) -> dict[str, Any]:
    """All of `thing` but the entries of its arrays, by place: of two models with equal ones parameters can be swapped.

    Examples
    --------
    >>> architecture((1.5, np.zeros(3)))
    {'0': 1.5, '1': ('float64', (3,))}
    """
    arrays: dict[str, np.ndarray] = {}
    tree = _encoded(thing, (), arrays)

    def flat(tree: Any, place: str) -> Iterable[tuple[str, Any]]:
        if isinstance(tree, dict) and set(tree) == {"array"}:
            yield place, (str(arrays[tree["array"]].dtype), arrays[tree["array"]].shape)
        elif isinstance(tree, dict) and set(tree) == {"activation"}:
            yield place, ":".join(map(str, tree["activation"]))
        elif isinstance(tree, dict | list):
            entries = tree.items() if isinstance(tree, dict) else ((str(i), entry) for i, entry in enumerate(tree))
            for name, entry in entries:
                hidden = name in ("fields", "tuple", "dict")
                yield from flat(entry, place if hidden else f"{place}.{name}".strip("."))
        else:
            yield place, tree

    return dict(flat(tree, ""))


# ------------------------------------------------------------------------------------------------
# Parameters of others


def read_arrays(path: str | os.PathLike[str], limit: float = 2**32) -> dict[str, np.ndarray]:
    r"""The arrays of an npz file or, where torch is installed, of a state dict saved by PyTorch (.pt, .pth), by name.

    Parameters
    ----------
    path : str or path
    limit : float
        Bytes that the arrays may take together.

    Raises
    ------
    HypothesisError
        The file is truncated, damaged, larger, holds Python objects, or is a state dict and torch is missing.
    OSError

    Examples
    --------
    The parameters of a module with other names than the network of this package, and weights transposed:

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "theirs.npz"
    ...     np.savez(path, **{"mon.lin.weight": np.eye(2)})
    ...     read_arrays(path)["mon.lin.weight"].shape
    (2, 2)
    """
    path = Path(path)
    if path.suffix in (".pt", ".pth"):
        return _state_dict(path, limit)
    return {name: value for name, value in read_npz(path, limit=limit).items() if name != "header"}


def _state_dict(path: Path, limit: float) -> dict[str, np.ndarray]:
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise HypothesisError(f"{path} is read by torch, which is not installed: save its arrays as npz.") from error
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                declared = sum(info.file_size for info in archive.infolist())
            if declared > min(limit, path.stat().st_size):  # PyTorch compresses nothing
                raise HypothesisError(f"it declares {declared} bytes, more than it can hold or may take")
            file.seek(0)
            content = torch.load(file, map_location="cpu", weights_only=True)
            tensors = [value for value in content.values() if isinstance(value, torch.Tensor)]
            taken = sum(value.numel() * max(4, value.element_size()) for value in tensors)
            if taken > limit:  # strides of 0 make many entries of few bytes
                raise HypothesisError(f"its tensors take {taken} bytes, more than the {limit} that they may")
            return {str(name): _of_torch(torch, value) for name, value in content.items()}
        except Exception as error:  # whatever damaged bytes, or objects that are no tensors, provoke
            raise HypothesisError(
                f"{path} is no state dict: {str(error).splitlines()[0] if str(error) else type(error).__name__}. "
                "Save module.state_dict() by torch.save."
            ) from error


def _of_torch(torch: Any, value: Any) -> np.ndarray:
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"it holds a {type(value).__name__} among the tensors")
    narrow = value.dtype in (torch.float16, torch.bfloat16)  # NumPy has one, this package none of them
    return to_numpy(value.float() if narrow else value)


def with_arrays(model: Any, arrays: Mapping[str, Any], names: Mapping[str, str] | None = None) -> Any:
    r"""`model` with the parameters (and running moments) in `arrays`, of the shapes that it has.

    Parameters
    ----------
    model : network or operator with `params` and `replace`
    arrays : mapping from name to array, as of `read_arrays`
    names : mapping, optional
        From the names of this package to those in `arrays`, where they differ: those of ``model.params`` and
        ``model.buffers``. Entries of `arrays` that nothing asks for are left out.

    Raises
    ------
    TypeError, ShapeError
    HypothesisError
        An array is missing, or `names` speaks of a parameter that the model does not have.

    Examples
    --------
    >>> from implicitref.networks import mon_fc
    >>> network = mon_fc(np.random.default_rng(0), 4, hidden=3, classes=2)
    >>> theirs = {"lin.weight": np.ones((3, 4)), **{k: v for k, v in network.params.items() if k != "U"}}
    >>> float(with_arrays(network, theirs, {"U": "lin.weight"}).U.sum())
    12.0
    """
    wanted, names = {**model.params, **getattr(model, "buffers", {})}, dict(names or {})
    if unknown := sorted(set(names) - set(wanted)):
        raise HypothesisError(f"names must be among {', '.join(wanted)}; got {', '.join(unknown)}.")
    source = {name: names.get(name, name) for name in wanted}
    if missing := [theirs for theirs in source.values() if theirs not in arrays]:
        raise HypothesisError(f"arrays must hold {', '.join(missing)}; it holds {', '.join(arrays)}. Give `names`.")
    return model.replace(**{name: arrays[theirs] for name, theirs in source.items()})
