"""Checkpoints: everything that training continues from, with the settings it was begun with, in one file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import persistence
from ..archives import read_npz
from ..arrays import like
from ..errors import HypothesisError
from .loop import Record, State, Step
from .optimisers import AdamState

__all__ = ["Checkpoint", "load", "read", "save"]

VERSION_2 = "implicitref-checkpoint"  # the schema of the files that were written before there was `persistence`


class Checkpoint(NamedTuple):
    """What a file holds: a `State`, or a model of which all blocks are trained so far, and JSON values."""

    state: Any
    config: dict[str, Any]


def save(path: str | os.PathLike[str], state: Any, config: Mapping[str, Any]) -> None:
    """Write `state` and `config` (JSON values) to `path`, replacing it in one instant."""
    persistence.save(path, Checkpoint(state, dict(config)))


def read(path: str | os.PathLike[str], kind: type) -> Checkpoint:
    """What `save` wrote, refused unless its state is of that kind."""
    found = persistence.load(path)
    if not isinstance(found, Checkpoint) or not isinstance(found.state, kind) or not isinstance(found.config, dict):
        raise HypothesisError(f"{path} holds a {type(found).__name__}, not a checkpoint of a {kind.__name__}.")
    return found


def load(path: str | os.PathLike[str], network: Any) -> tuple[State, dict[str, Any]]:
    r"""The state and configuration in `path`, on a network of the same architecture.

    Parameters
    ----------
    path : file written by `save`
    network : MonNetwork, FixedPointNetwork or ImplicitModel
        Gives architecture, library and device; its parameters are replaced.

    Raises
    ------
    HypothesisError
        The file is truncated, damaged or altered, is no checkpoint of this package, comes from a newer version, or
        belongs to another architecture.
    OSError
    """
    path = Path(path)
    state, config = _of_version_2(path, network) or read(path, State)
    _check_state(path, state)
    _check_architecture(path, state.network, network)
    first = next(iter(network.params.values()))

    def moved(arrays: Mapping[str, Any]) -> dict[str, Any]:
        return {name: like(first, value) for name, value in arrays.items()}

    optimiser = AdamState(state.optimiser.steps, moved(state.optimiser.mean), moved(state.optimiser.square))
    trained = network.replace(**moved(state.network.params), **moved(getattr(state.network, "buffers", {})))
    return State(trained, optimiser, state.rng, state.history, state.steps), config


def _check_architecture(path: Path, saved: Any, network: Any) -> None:
    found, wanted = persistence.architecture(saved), persistence.architecture(network)
    differing = [place for place in {**found, **wanted} if found.get(place) != wanted.get(place)]
    if type(saved) is not type(network) or differing:
        shown = "; ".join(f"{place} is {found.get(place)}, not {wanted.get(place)}" for place in differing[:3])
        raise HypothesisError(f"{path} holds the model {type(saved).__name__} of another architecture: {shown}.")


def _check_state(path: Path, state: State) -> None:
    """HypothesisError naming the entries that `save` cannot have written."""
    optimiser, params = state.optimiser, set(state.network.params)
    ok = {
        "optimiser": isinstance(optimiser, AdamState) and set(optimiser.mean) == set(optimiser.square) == params,
        "optimiser.steps": type(optimiser.steps) is int and optimiser.steps >= 0,
        "rng": _is_generator(state.rng),
        "history": all(isinstance(record, Record) for record in state.history),
        "steps": all(isinstance(step, Step) for step in state.steps),
    }
    if wrong := [name for name, good in ok.items() if not good]:
        raise HypothesisError(f"{path}: there is nonsense under {', '.join(wrong)}; the file was altered.")


def _is_generator(state: Any) -> bool:
    try:
        np.random.default_rng().bit_generator.state = state
    except (TypeError, ValueError, KeyError, OverflowError):
        return False
    return True


def _of_version_2(path: Path, network: Any) -> Checkpoint | None:
    """A file of the former format, which kept the arrays and left the architecture to its reader; None for others."""
    arrays = read_npz(path, limit=path.stat().st_size)
    text = arrays.pop("header", np.array(""))
    if text.dtype.kind != "U" or not str(text).startswith(f'{{"schema": "{VERSION_2}", "version": 2,'):
        return None

    def group(name: str) -> dict[str, Any]:
        return {key.split("/", 1)[1]: value for key, value in arrays.items() if key.startswith(f"{name}/")}

    try:
        header = json.loads(str(text))
        optimiser = AdamState(header["steps"], group("mean"), group("square"))
        history = tuple(Record(**record) for record in header["history"])
        steps = tuple(Step(**step) for step in header["epoch"])
        kept = persistence.with_arrays(network, {**group("params"), **group("buffers")})
        return Checkpoint(State(kept, optimiser, header["rng"], history, steps), header["config"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise HypothesisError(f"{path} is no checkpoint of this network: {error}") from error
