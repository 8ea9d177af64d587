"""Sequential training kept on disk: the model after every finished block, written in one instant."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..archives import check_settings
from ..errors import HypothesisError
from ..sequential import BlockTriangularModel
from .checkpoints import read, save

__all__ = ["kept", "load", "resumed", "save"]


def kept(
    models: Iterable[BlockTriangularModel], path: str | os.PathLike[str], config: Mapping[str, Any]
) -> Iterator[BlockTriangularModel]:
    """What `models` yields, each on disk under `path` before it is handed on: whoever dies loses one block at most."""
    for model in models:
        save(path, model, config)
        yield model


def load(path: str | os.PathLike[str]) -> tuple[BlockTriangularModel, dict[str, Any]]:
    r"""The model with its history, and the configuration, in `path`.

    Given to `sequential.greedy` as `start`, with the same data and random_state, it leads to the model of the
    uninterrupted training, bit for bit.

    Raises
    ------
    HypothesisError
        The file is truncated, damaged or altered, is no such checkpoint, or comes from a newer version.
    OSError
    """
    model, config = read(path, BlockTriangularModel)
    return model, config


def resumed(path: str | os.PathLike[str], config: Mapping[str, Any]) -> BlockTriangularModel:
    """The model in `path`, if it was trained with `config`; HypothesisError names what differs."""
    if not Path(path).exists():
        raise HypothesisError(f"{path} does not exist: no block was finished, so there is nothing to resume.")
    model, saved = load(path)
    check_settings(path, saved, config)
    return model
