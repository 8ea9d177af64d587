"""Sequential training kept on disk: the model after every finished block, written atomically, read without pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..activations import Activation, relu
from ..arrays import to_numpy
from ..errors import HypothesisError
from ..sequential import BlockTriangularModel, Record
from .archives import check_settings, read_header, read_npz, write_atomically

__all__ = ["SCHEMA", "VERSION", "kept", "load", "resumed", "save"]

SCHEMA, VERSION = "implicitref-blocks", 1


def kept(
    models: Iterable[BlockTriangularModel], path: str | os.PathLike[str], config: Mapping[str, Any]
) -> Iterator[BlockTriangularModel]:
    """What `models` yields, each on disk under `path` before it is handed on: whoever dies loses one block at most."""
    for model in models:
        save(path, model, config)
        yield model


def save(path: str | os.PathLike[str], model: BlockTriangularModel, config: Mapping[str, Any]) -> None:
    """Write `model` with its history, and `config` (JSON values), to `path`, replacing it in one instant."""
    from .. import __version__

    header = {
        "schema": SCHEMA,
        "version": VERSION,
        "package": __version__,
        "sizes": list(model.sizes),
        "activation": repr(model.activation),
        "config": dict(config),
        "history": [record._asdict() for record in model.history],
    }
    arrays = {name: to_numpy(value) for name, value in model.params.items()} | {"header": np.array(json.dumps(header))}
    savez: Any = np.savez  # its newer type hints read **arrays as its option allow_pickle
    write_atomically(path, lambda file: savez(file, **arrays))


def load(path: str | os.PathLike[str], activation: Activation = relu) -> tuple[BlockTriangularModel, dict[str, Any]]:
    r"""The model and the configuration in `path`.

    Given to `sequential.greedy` as `start`, with the same data and random_state, it leads to the model of the
    uninterrupted training, bit for bit.

    Parameters
    ----------
    path : file written by `save`
    activation : Activation
        That of the training; a file names it and does not hold it.

    Raises
    ------
    HypothesisError
        The file is truncated or damaged, is no such checkpoint, comes from another version or another activation.
    OSError
    """
    path = Path(path)
    arrays = read_npz(path)
    header = read_header(path, arrays.pop("header", None), SCHEMA, VERSION)
    wrong = _nonsense(header, arrays)
    if wrong:
        raise HypothesisError(f"{path}: there is nonsense under {', '.join(wrong)}; the file was altered.")
    if header["activation"] != repr(activation):
        raise HypothesisError(f"{path} holds a model with activation {header['activation']}, not {activation!r}.")
    history = tuple(Record(**record) for record in header["history"])
    model = BlockTriangularModel(**arrays, sizes=header["sizes"], activation=activation, history=history)
    return model, header["config"]


def resumed(path: str | os.PathLike[str], config: Mapping[str, Any]) -> BlockTriangularModel:
    """The model in `path`, if it was trained with `config`; HypothesisError names what differs."""
    if not Path(path).exists():
        raise HypothesisError(f"{path} does not exist: no block was finished, so there is nothing to resume.")
    model, saved = load(path)
    check_settings(path, saved, config)
    return model


def _nonsense(header: dict[str, Any], arrays: Mapping[str, Any]) -> list[str]:
    """The names of entries that `save` cannot have written."""
    sizes, history, fields = header.get("sizes"), header.get("history"), set(Record._fields)
    ok = {
        "arrays": set(arrays) == {"A", "B", "C"},
        "sizes": isinstance(sizes, list),
        "activation": isinstance(header.get("activation"), str),
        "config": isinstance(header.get("config"), dict),
        "history": isinstance(history, list) and all(isinstance(e, dict) and set(e) == fields for e in history),
    }
    return [name for name, good in ok.items() if not good]
