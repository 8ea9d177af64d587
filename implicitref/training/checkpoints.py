"""Checkpoints: an npz file of arrays with a JSON header, written atomically, read without pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import like, to_numpy
from ..errors import HypothesisError
from ..networks import FixedPointNetwork, MonNetwork
from .archives import read_header, read_npz, write_atomically
from .loop import Record, State, Step
from .optimisers import AdamState

__all__ = ["SCHEMA", "VERSION", "load", "save"]

SCHEMA, VERSION = "implicitref-checkpoint", 2
GROUPS = ("params", "mean", "square", "buffers")
Network = MonNetwork | FixedPointNetwork
HEADER_LIMIT = 2**26  # bytes: ten thousand epochs of history take a quarter of it


def save(path: str | os.PathLike[str], state: State, config: Mapping[str, Any]) -> None:
    """Write `state` and `config` (JSON values) to `path`, replacing it in one instant."""
    from .. import __version__

    groups = (state.network.params, state.optimiser.mean, state.optimiser.square, _buffers(state.network))
    named = zip(GROUPS, groups, strict=True)
    arrays = {f"{group}/{name}": to_numpy(value) for group, values in named for name, value in values.items()}
    header = {
        "schema": SCHEMA,
        "version": VERSION,
        "package": __version__,
        "model": _model(state.network),
        "config": dict(config),
        "steps": state.optimiser.steps,
        "rng": dict(state.rng),
        "history": [record._asdict() for record in state.history],
        "epoch": [step._asdict() for step in state.steps],
    }
    arrays["header"] = np.array(json.dumps(header))
    savez: Any = np.savez  # its newer type hints read **arrays as its option allow_pickle
    write_atomically(path, lambda file: savez(file, **arrays))


def load(path: str | os.PathLike[str], network: Network) -> tuple[State, dict[str, Any]]:
    r"""The state and configuration in `path`, on a network of the same architecture.

    Parameters
    ----------
    path : file written by `save`
    network : MonNetwork or FixedPointNetwork
        Gives the architecture; its parameters are replaced.

    Raises
    ------
    HypothesisError
        The file is truncated or damaged, is no checkpoint of this package, comes from a newer version, holds pickled
        objects, or belongs to another architecture.
    OSError
    """
    size = len(GROUPS) * sum(to_numpy(p).nbytes for p in network.params.values())
    arrays = read_npz(path, limit=HEADER_LIMIT + 16 * size)  # leaves room to say which sizes differ
    header = _header(Path(path), arrays.pop("header", None))
    if header["model"] != _model(network):
        raise HypothesisError(f"{path} holds the model {header['model']}, not {_model(network)}.")
    wanted = {group: _buffers(network) if group == "buffers" else network.params for group in GROUPS}
    groups = {group: _group(Path(path), arrays, group, wanted[group]) for group in GROUPS}
    optimiser = AdamState(header["steps"], groups["mean"], groups["square"])
    history = tuple(Record(**record) for record in header["history"])
    steps = tuple(Step(**step) for step in header["epoch"])
    network = network.replace(**groups["params"], **groups["buffers"])
    return State(network, optimiser, header["rng"], history, steps), header["config"]


def _buffers(network: Network) -> Mapping[str, Any]:
    return network.buffers if isinstance(network, FixedPointNetwork) else {}


def _model(network: Network) -> dict[str, Any]:
    if isinstance(network, FixedPointNetwork):
        return {"operator": "FixedPointNetwork", "input": list(network.image), "layers": repr(network.layers)}
    return {
        "operator": type(network.W).__name__,
        "input": list(network.input_shape),
        "activation": repr(network.activation),
        "m": network.W.m,
    }


def _header(path: Path, text: np.ndarray | None) -> dict[str, Any]:
    header = read_header(path, text, SCHEMA, VERSION)
    missing = [name for name in ("model", "config", "steps", "rng", "history", "epoch") if name not in header]
    if missing:
        raise HypothesisError(f"{path}: the header lacks {', '.join(missing)}.")
    wrong = _nonsense(header)
    if wrong:
        raise HypothesisError(f"{path}: the header holds nonsense under {', '.join(wrong)}; the file was altered.")
    return header


def _nonsense(header: dict[str, Any]) -> list[str]:
    """The names of entries that `save` cannot have written."""

    def rows(name: str, kind: Any) -> bool:
        fields = set(kind._fields)
        return isinstance(header[name], list) and all(isinstance(e, dict) and set(e) == fields for e in header[name])

    ok = {
        "config": isinstance(header["config"], dict),
        "steps": type(header["steps"]) is int and header["steps"] >= 0,
        "rng": _is_generator(header["rng"]),
        "history": rows("history", Record),
        "epoch": rows("epoch", Step),
    }
    return [name for name, good in ok.items() if not good]


def _is_generator(state: Any) -> bool:
    try:
        np.random.default_rng().bit_generator.state = state
    except (TypeError, ValueError, KeyError, OverflowError):
        return False
    return True


def _group(
    path: Path, arrays: dict[str, np.ndarray], group: str, like_these: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    found = {name.split("/", 1)[1]: value for name, value in arrays.items() if name.startswith(f"{group}/")}
    wanted = {name: (tuple(p.shape), str(p.dtype)) for name, p in like_these.items()}
    got = {name: (value.shape, str(value.dtype)) for name, value in found.items()}
    if got != wanted:
        raise HypothesisError(f"{path}: {group} must be {wanted}; got {got}.")
    return {name: like(like_these[name], value) for name, value in found.items()}
