"""``implicitref evaluate``."""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import __version__, datasets, persistence
from ..archives import unwritable
from ..errors import ConvergenceError, HypothesisError, ShapeError
from ..layers import Affine
from ..networks import FixedPointNetwork, ImplicitModel, MonNetwork
from ..training.checkpoints import Checkpoint
from .common import FAILED, INPUT_ERRORS, OK, RAW, USAGE, complain, count, positive, write_json

__all__ = ["add"]

BATCH = 500


class _Answers(NamedTuple):
    """Logits, the certified error of every state (NaN where none is proven), and of the difference of two logits."""

    logits: np.ndarray
    bound: np.ndarray
    slack: np.ndarray  # (batch, classes, classes)


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "evaluate",
        help="the accuracy of a saved network, with certified errors",
        description="The accuracy of a network in a file on test images: every state is solved to a certificate, and a "
        "class is certain where no state within its error has another.",
        epilog="example:\n  implicitref evaluate mon.npz --data mnist.npz --tol 1e-4 --json evaluation.json\n\n"
        "exit status: 0 done, 1 a state did not reach --tol, 2 usage",
        formatter_class=RAW,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a checkpoint of train, or what implicitref.save wrote")
    parser.add_argument("--data", default="digits", help="as in train (default digits)")
    parser.add_argument("--tol", type=positive, default=1e-4, help="certified error of every state (default 1e-4)")
    parser.add_argument("--max-iter", type=count, default=5000, metavar="N", help="default 5000")
    parser.add_argument("--json", type=Path, metavar="F", help="write what was found as JSON")
    parser.set_defaults(run=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> int:
    began = time.perf_counter()
    try:
        if complaint := unwritable(arguments.json) if arguments.json else "":
            raise ValueError(complaint)
        found = persistence.load(arguments.file)
        network, config = (found.state, found.config) if isinstance(found, Checkpoint) else (found, {})
        network = getattr(network, "network", network)
        data = datasets.load(arguments.data)
        x = _inputs(network, data)
        answers = [_answers(network, x[i : i + BATCH], arguments) for i in range(0, len(x), BATCH)]
    except ConvergenceError as error:
        return complain(f"a state did not reach --tol {arguments.tol:g}: {error}", FAILED)
    except INPUT_ERRORS as error:
        return complain(error, USAGE)
    report = _report(_Answers(*map(np.concatenate, zip(*answers, strict=True))), data.y_test)
    report |= {"network": type(network).__name__, "data": data.name, "tol": arguments.tol}
    report["same data as in training"] = config["data"] == data.fingerprint() if "data" in config else None
    return _say(report, arguments, time.perf_counter() - began)


def _inputs(network: Any, data: datasets.Dataset) -> np.ndarray:
    if not isinstance(network, MonNetwork | FixedPointNetwork | ImplicitModel):
        raise HypothesisError(f"FILE must hold a network, or a checkpoint of one; it holds a {type(network).__name__}.")
    shape = tuple(network.input_shape)
    if math.prod(shape) != data.x_test.shape[1]:
        raise ShapeError(f"the network takes inputs {shape}; those of {data.name} are {data.shape}.")
    return data.x_test.reshape(-1, *shape)


def _answers(network: Any, x: np.ndarray, arguments: argparse.Namespace) -> _Answers:
    solution = network.solve(x, tol=arguments.tol, max_iter=arguments.max_iter)
    # in float64 what a readout rounds is far below what the state may be off
    z, bound = np.asarray(solution.z, np.float64), np.asarray(solution.bound, np.float64)
    if isinstance(network, ImplicitModel):
        logits = network.readout(z, x)
        rows, errors = np.abs(network.C[:, None] - network.C), bound.max(axis=1, initial=0.0)
        return _Answers(logits, errors, np.einsum("ijn,bn->bij", rows, bound))
    logits = network.readout(z) if isinstance(network, MonNetwork) else network.S(z)
    # features are entries of z, or means of some: no longer than z
    weight = np.asarray(_linear_readout(network, logits.shape[1]), np.float64)
    return _Answers(logits, bound, np.linalg.norm(weight[:, None] - weight, axis=2) * bound[:, None, None])


def _linear_readout(network: MonNetwork | FixedPointNetwork, classes: int) -> Any:
    """Its matrix; NaN, of which nothing follows, where the readout is another."""
    if isinstance(network, MonNetwork):
        return network.readout_weight
    *before, last = network.S.layers.values()
    return last.weight if isinstance(last, Affine) and not before else np.full((classes, 1), math.nan)


def _report(answers: _Answers, labels: np.ndarray) -> dict[str, Any]:
    rows, logits = np.arange(len(labels)), answers.logits.astype(np.float64)
    best = logits.argmax(axis=1)
    rival = logits - logits[rows, best][:, None] + answers.slack[rows, best]  # below 0: cannot be the largest
    rival[rows, best] = -math.inf
    certain = (rival < 0).all(axis=1)
    proven = bool(np.isfinite(answers.bound).all() and np.isfinite(answers.slack).all())
    return {
        "images": len(labels),
        "accuracy": float((best == labels).mean()),
        "largest certified error": float(answers.bound.max(initial=0.0)) if proven else None,
        "certain": int(certain.sum()) if proven else None,
        "certain and right": int((certain & (best == labels)).sum()) if proven else None,
    }


def _say(report: dict[str, Any], arguments: argparse.Namespace, seconds: float) -> int:
    print(
        f"{report['network']} on {report['data']}: {100 * report['accuracy']:.2f} % of {report['images']} test images"
    )
    if report["certain"] is None:
        print("no error is certified: no contraction factor below 1 is proven for this network")
    else:
        print(f"largest certified error {report['largest certified error']:.2g}")
        print(f"class certain for {report['certain']} images, and right for {report['certain and right']} of them")
    if report["same data as in training"] is False:
        print("these are not the data that the network was trained on")
    if arguments.json:
        document = {"schema": "implicitref-evaluation", "version": 1, "package": __version__, **report}
        return write_json(arguments.json, {**document, "seconds": seconds})
    return OK
