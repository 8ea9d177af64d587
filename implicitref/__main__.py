"""The command line: ``implicitref train`` and ``implicitref verify``."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np

from . import __version__, activations, datasets
from .errors import ConvergenceError, HypothesisError
from .networks import MonNetwork, mon_fc
from .training import Recipe, State, alpha, checkpoints, schedules, start, train
from .training.archives import unwritable, write_atomically
from .training.loop import PAPER
from .training.progress import display

__all__ = ["main"]

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
RAW = argparse.RawDescriptionHelpFormatter
INPUT_ERRORS = (ValueError, OSError, TypeError, MemoryError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0 well, 1 failed, 2 usage or bad input, 130 interrupted."""
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as done:  # argparse has printed help or its complaint
        return int(done.code or 0)
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except OSError as error:  # whoever read the output has gone, or its disk is full
        with suppress(OSError), open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())  # what is still in the buffer goes there
        return _complain(f"the output could not be written: {error}", FAILED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="implicitref",
        description="The executable reference for implicit-depth networks.",
        epilog="example:\n  implicitref train mon-fc --data digits",
        formatter_class=RAW,
    )
    parser.add_argument("--version", action="version", version=f"implicitref {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_verify(commands)
    _add_train(commands)
    return parser


# ------------------------------------------------------------------------------------------------
# verify


def _add_verify(commands: Any) -> None:
    verify = commands.add_parser(
        "verify",
        help="check every registered claim on this machine",
        description="Check every registered claim: what was measured beside what the theorem predicts.",
        epilog="example:\n  implicitref verify --json report.json --html report.html\n\n"
        "exit status: 0 all as registered, 1 something disagrees, 2 usage, 3 inconclusive",
        formatter_class=RAW,
    )
    verify.add_argument("--json", metavar="F", help="write the report as JSON")
    verify.add_argument("--html", metavar="F", help="write the report as one self-contained page")
    verify.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the random problems (default 0)")
    verify.add_argument("--claim", metavar="ID", help="check one claim only, such as MON-Alg2")
    verify.set_defaults(run=_verify)


def _verify(arguments: argparse.Namespace) -> int:
    from .claims import validation

    return int(importlib.import_module(".run", validation().__name__).main(arguments))


# ------------------------------------------------------------------------------------------------
# train


def _add_train(commands: Any) -> None:
    parser = commands.add_parser(
        "train",
        help="train a network of the papers",
        description="Train a network of the papers, every equilibrium solved to a certificate.",
        epilog="examples:\n  implicitref train mon-fc --data digits\n"
        "  implicitref train mon-fc --data mnist.npz --checkpoint mon.npz --json mon.json\n"
        "  implicitref train mon-fc --data mnist.npz --checkpoint mon.npz --resume\n"
        "  implicitref train mon-fc --data mnist --recipe paper",
        formatter_class=RAW,
    )
    add = parser.add_argument
    add("model", choices=["mon-fc"], help="mon-fc: the dense monotone operator network")
    add("--data", default="digits", help="digits, mnist, fashion-mnist, an npz file or a folder of IDX files")
    add("--hidden", type=_count, default=87, metavar="N", help="size of the state (default 87)")
    add("--m", type=_positive, default=1.0, help="strong monotonicity of I - W (default 1)")
    add("--activation", default="relu", help="relu, tanh, leaky_relu:0.1, ... (default relu)")
    add("--recipe", choices=["paper"], help="the settings of appendix D.2; others given here take precedence")
    add("--epochs", type=_count, metavar="N", help="default 13; 40 in the recipe of the paper")
    add("--batch", type=_count, metavar="N", help="default 128; 32 where there are fewer than 10,000 images")
    add("--learning-rate", type=_positive, metavar="R", help="largest of the schedule (default 5e-3)")
    add("--schedule", choices=list(schedules.NAMES), help="default one-cycle")
    add("--weight-decay", type=_nonnegative, metavar="D", help="decoupled (default 0.2)")
    add("--tol", type=_positive, help="tolerance of both passes (default 1e-2)")
    add("--stop", choices=["certificate", "relative-change"], help="what tol is held against (default certificate)")
    add("--alpha", choices=list(alpha.NAMES), help="step: the best provable or the papers' trials (default best)")
    add("--seed", type=int, default=0, metavar="N", help="default 0")
    add("--checkpoint", type=Path, metavar="F", help="save the training there after every epoch")
    add("--resume", action="store_true", help="go on from --checkpoint")
    add("--json", type=Path, metavar="F", help="write settings and history as JSON")
    parser.set_defaults(run=_train)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer >= 1; got {text}")
    return int(text)


def _positive(text: str) -> float:
    if not 0 < _number(text) < math.inf:
        raise argparse.ArgumentTypeError(f"must be a finite number > 0; got {text}")
    return float(text)


def _nonnegative(text: str) -> float:
    if not 0 <= _number(text) < math.inf:
        raise argparse.ArgumentTypeError(f"must be a finite number >= 0; got {text}")
    return float(text)


def _number(text: str) -> float:
    """NaN where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _train(arguments: argparse.Namespace) -> int:
    try:
        data, recipe, first, config = _prepare(arguments)
    except INPUT_ERRORS as error:
        return _complain(error, USAGE)
    print(
        f"implicitref {__version__}: mon-fc on {data.name}, {_size(first.network):,} parameters, seed {arguments.seed}"
    )
    began, state = time.perf_counter(), first
    steps = math.ceil(len(data.x_train) / recipe.batch)
    try:
        with _one_thread(), display(recipe.epochs, steps, len(state.history)) as show:
            for state in train(first, data, recipe, on_step=show.step):
                if arguments.checkpoint:
                    checkpoints.save(arguments.checkpoint, state, config)
                show.epoch(state.history[-1])
    except (ConvergenceError, ArithmeticError, *INPUT_ERRORS) as error:
        return _complain(
            f"training failed in epoch {len(state.history) + 1}: {error}{_advice(error, arguments)}", FAILED
        )
    except KeyboardInterrupt:
        further = " Go on with --resume." if arguments.checkpoint else ""
        return _complain(f"stopped after {len(state.history)} epochs.{further}", INTERRUPTED)
    return _finish(arguments, state, config, time.perf_counter() - began)


def _advice(error: Exception, arguments: argparse.Namespace) -> str:
    if isinstance(error, ConvergenceError):
        solver = " A larger --tol or --m or a smaller --learning-rate helps."
    else:
        diverged = isinstance(error, ArithmeticError | HypothesisError)
        solver = " The parameters diverged: a smaller --learning-rate helps." if diverged else ""
    return solver + (f" The checkpoint {arguments.checkpoint} is kept." if arguments.checkpoint else "")


def _one_thread() -> AbstractContextManager[Any]:
    # Products of this size gain nothing from a second thread and take ten times as long where another process has its
    # core; besides, one thread gives the same bits whatever the load. Whoever sets a number of threads gets it.
    from threadpoolctl import threadpool_limits

    chosen = any(name in os.environ for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"))
    return nullcontext() if chosen else threadpool_limits(limits=1, user_api="blas")


def _prepare(arguments: argparse.Namespace) -> tuple[datasets.Dataset, Recipe, State, dict[str, Any]]:
    """Everything that can be wrong with the input shows here."""
    complaint = "".join(unwritable(path) for path in (arguments.checkpoint, arguments.json) if path is not None)
    if complaint:
        raise ValueError(complaint)
    data = datasets.load(arguments.data)
    recipe = _recipe(arguments, len(data.x_train))
    rng = np.random.default_rng(_seed(arguments.seed))
    activation = _activation(arguments.activation)
    network = mon_fc(rng, data.x_train.shape[1], arguments.hidden, data.classes, arguments.m, activation)
    config = {
        "model": arguments.model,
        "hidden": arguments.hidden,
        "m": arguments.m,
        "activation": arguments.activation,
        "seed": arguments.seed,
        "data": data.fingerprint(),
        **dataclasses.asdict(recipe),
    }
    return data, recipe, _first(arguments, start(network, rng), config), config


def _seed(seed: int) -> int:
    if seed < 0:
        raise ValueError(f"--seed must be >= 0; got {seed}.")
    return seed


def _recipe(arguments: argparse.Namespace, count: int) -> Recipe:
    small = 32 if count < 10_000 else 128
    base = PAPER if arguments.recipe == "paper" else Recipe(batch=small)
    given = {f.name: getattr(arguments, f.name) for f in dataclasses.fields(Recipe)}
    return dataclasses.replace(base, **{name: value for name, value in given.items() if value is not None})


def _activation(text: str) -> activations.Activation:
    name, *parameters = text.split(":")
    takes_one = not isinstance(activations.NAMES.get(name), activations.Activation)
    if len(parameters) > takes_one or any(math.isnan(_number(parameter)) for parameter in parameters):
        raise ValueError(f"--activation must be NAME or NAME:PARAMETER, as in leaky_relu:0.1; got {text!r}.")
    return activations.get(name, *map(float, parameters))


def _first(arguments: argparse.Namespace, fresh: State, config: dict[str, Any]) -> State:
    """The state to train from; with --checkpoint the file exists from here on, so --resume always finds one."""
    path = arguments.checkpoint
    if path is None:
        if arguments.resume:
            raise ValueError("--resume needs --checkpoint F.")
        return fresh
    if arguments.resume:
        return _resumed(path, fresh, config)
    if path.exists():
        raise ValueError(f"{path} exists. Add --resume to go on from it, or remove it to start anew.")
    checkpoints.save(path, fresh, config)
    return fresh


def _resumed(path: Path, fresh: State, config: dict[str, Any]) -> State:
    state, saved = checkpoints.load(path, fresh.network)
    differing = sorted(name for name in config if saved.get(name) != config[name])
    if differing:
        found = ", ".join(f"{name} = {saved.get(name)!r} (now {config[name]!r})" for name in differing)
        raise ValueError(f"{path} was trained with other settings: {found}. Give the same to resume.")
    return state


def _finish(arguments: argparse.Namespace, state: State, config: dict[str, Any], seconds: float) -> int:
    last = state.history[-1]
    print(f"test accuracy {100 * last.test_accuracy:.2f} % after {last.epoch} epochs, {seconds:.1f} s")
    if arguments.json:
        report = {
            "schema": "implicitref-training",
            "version": 1,
            "package": __version__,
            "config": config,
            "parameters": _size(state.network),
            "seconds": seconds,
            "history": [record._asdict() for record in state.history],
        }
        try:
            write_atomically(arguments.json, lambda file: file.write(json.dumps(report, indent=1).encode()))
        except OSError as error:
            return _complain(error, FAILED)
    return OK


def _size(network: MonNetwork) -> int:
    return sum(int(p.size) for p in network.params.values())


def _complain(message: object, status: int) -> int:
    print(f"implicitref: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
