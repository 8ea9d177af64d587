"""``implicitref train``."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import __version__, activations, datasets
from ..archives import check_settings, unwritable
from ..errors import ConvergenceError, HypothesisError
from ..networks import MonNetwork, jfb_mnist, mon_conv, mon_fc, mon_multitier
from ..training import FixedPointRecipe, Recipe, State, alpha, augmentations, checkpoints, jfb, schedules, start, train
from ..training.loop import PAPER, RECIPES, Learner, learner_of_mon
from ..training.progress import display
from ..training.team import Team, keep_memory, shareable
from .common import (
    FAILED,
    INPUT_ERRORS,
    INTERRUPTED,
    OK,
    RAW,
    UNFINISHED,
    USAGE,
    complain,
    count,
    counts,
    nonnegative,
    number,
    on_device,
    positive,
    processors,
    seeded,
    write_json,
)  # fmt: skip

__all__ = ["add"]

JFB = "jfb-mnist"
DEFAULTS: dict[str, Recipe | FixedPointRecipe] = {**RECIPES, JFB: FixedPointRecipe()}
FIELDS = ("learning_rate", "weight_decay")
SHARE, WORTH = 32, 10_000  # images of a minibatch for which a process pays, and of a training
OF_MON = ("hidden", "channels", "m", "activation", "recipe", "stop", "alpha")
OF_JFB = ("rule", "max_iter", "blocks", "gamma")
TRAIN_EXAMPLES = (
    "examples:\n  implicitref train mon-fc --data digits\n"
    "  implicitref train mon-fc --data mnist.npz --checkpoint mon.npz --json mon.json\n"
    "  implicitref train mon-fc --data mnist.npz --checkpoint mon.npz --resume\n"
    "  implicitref train mon-fc --data mnist --recipe paper\n"
    "  implicitref train mon-conv --data mnist.npz --checkpoint conv.npz --minutes 8\n"
    "  implicitref train mon-multitier --data cifar-10-batches-py --channels 64,128,128 --augment crop-flip "
    "--epochs 65 --device gpu\n"
    "  implicitref train jfb-mnist --data mnist.npz --rule neumann:5 --checkpoint jfb.npz\n\n"
    "exit status: 0 done, 1 failed, 2 usage, 3 out of --minutes: go on with --resume"
)


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "train",
        help="train a network of the papers",
        description="Train a network of the papers: monotone operator networks, dense, of one convolution or several "
        "tiers, or the fixed point network of Jacobian-free backpropagation.",
        epilog=TRAIN_EXAMPLES,
        formatter_class=RAW,
    )
    _add_network(parser.add_argument)
    _add_training(parser.add_argument)
    parser.set_defaults(run=_train)


def _add_network(add: Callable[..., Any]) -> None:
    models = "monotone operator network: dense, of one convolution, of several tiers; or the JFB network on MNIST"
    add("model", choices=list(DEFAULTS), help=models)
    data = "digits, mnist, fashion-mnist, an npz file or a folder of IDX, CIFAR-10 or SVHN files"
    add("--data", default="digits", help=data)
    add("--hidden", type=count, metavar="N", help="mon-fc: size of the state (default 87)")
    add("--channels", type=counts, metavar="N,...", help="mon-conv: default 56; mon-multitier: default 16,32,32")
    add("--m", type=positive, help="strong monotonicity of I - W (default 1)")
    add("--activation", help="relu, tanh, leaky_relu:0.1, ... (default relu)")
    add("--rule", metavar="R", help="jfb-mnist: jfb, neumann:K, implicit or implicit:SOLVER (default jfb)")
    add("--blocks", type=count, metavar="N", help="jfb-mnist: residual blocks of the latent space (default 2)")
    add("--gamma", type=positive, help="jfb-mnist: factor after the last block, below 1 (default 0.5)")
    add("--max-iter", type=count, metavar="N", help="jfb-mnist: cap of the forward iteration (default 50)")


def _add_training(add: Callable[..., Any]) -> None:
    add("--recipe", choices=["paper"], help="the settings of appendix D.2; others given here take precedence")
    epochs = ", ".join(f"{recipe.epochs} for {name}" for name, recipe in DEFAULTS.items())
    add("--epochs", type=count, metavar="N", help=f"default {epochs}")
    add("--batch", type=count, metavar="N", help="default 128; 32 where there are fewer than 10,000 images")
    rate, decay = (", ".join(f"{name} {getattr(r, field):g}" for name, r in DEFAULTS.items()) for field in FIELDS)
    add("--learning-rate", type=positive, metavar="R", help=f"largest of the schedule (default {rate})")
    add("--schedule", choices=list(schedules.NAMES), help="default one-cycle")
    add("--weight-decay", type=nonnegative, metavar="D", help=f"decoupled (default {decay})")
    tolerances = "of both passes (default 1e-2 for mon-fc, 3e-2 for the others on images); jfb-mnist: root mean square "
    add("--tol", type=positive, help=f"{tolerances}residual of a batch (default 0.5)")
    stop = "what tol is held against (default certificate for mon-fc, relative-change for the others)"
    add("--stop", choices=["certificate", "relative-change"], help=stop)
    trials = "step: the best provable or the papers' trials (default best for mon-fc, tuned for those on images)"
    add("--alpha", choices=list(alpha.NAMES), help=trials)
    add("--augment", choices=list(augmentations.NAMES), help="of training images, for networks on images")
    add("--device", choices=["cpu", "gpu"], default="cpu", help="gpu needs CuPy (default cpu)")
    add("--seed", type=int, default=0, metavar="N", help="default 0")
    add("--checkpoint", type=Path, metavar="F", help="save the training there after every epoch")
    add("--resume", action="store_true", help="go on from --checkpoint")
    add("--minutes", type=positive, metavar="T", help="stop at a checkpoint after that time, with status 3")
    add("--json", type=Path, metavar="F", help="write settings and history as JSON")


def _train(arguments: argparse.Namespace) -> int:
    try:
        data, recipe, first, config = _prepare(arguments)
    except INPUT_ERRORS as error:
        return complain(error, USAGE)
    print(
        f"implicitref {__version__}: {arguments.model} on {data.name}, {_size(first.network):,} parameters, seed "
        f"{arguments.seed}"
    )
    began, state, pause = time.perf_counter(), first, _pause(arguments.minutes)
    threads = _threads(arguments, recipe, len(data.x_train))
    steps = math.ceil(len(data.x_train) / recipe.batch)
    done = len(state.history) + len(state.steps) / steps
    try:
        keep_memory()
        with (
            threads.limited,
            _learner(arguments, first, threads) as learner,
            display(recipe.epochs, steps, done) as show,
        ):
            for state in train(first, data, recipe, on_step=show.step, pause=pause, learner=learner):
                if arguments.checkpoint:
                    checkpoints.save(arguments.checkpoint, state, config)
                if not state.steps:
                    show.epoch(state.history[-1])
    except (ConvergenceError, ArithmeticError, RuntimeError, *INPUT_ERRORS) as error:
        return complain(
            f"training failed in epoch {len(state.history) + 1}: {error}{_advice(error, arguments)}", FAILED
        )
    except KeyboardInterrupt:
        further = " Go on with --resume." if arguments.checkpoint else ""
        return complain(f"stopped after {len(state.history)} epochs.{further}", INTERRUPTED)
    if len(state.history) < recipe.epochs:
        where = f"in epoch {len(state.history) + 1}, after {len(state.steps)} of {steps} minibatches"
        return complain(f"stopped {where}: --minutes {arguments.minutes:g} are over. Go on with --resume.", UNFINISHED)
    return _finish(arguments, state, config, time.perf_counter() - began)


def _pause(minutes: float | None) -> Callable[[], bool]:
    end = math.inf if minutes is None else time.monotonic() + 60 * minutes
    return lambda: time.monotonic() > end


def _advice(error: Exception, arguments: argparse.Namespace) -> str:
    if isinstance(error, ConvergenceError):
        further = "or a smaller --gamma" if arguments.model == JFB else "or --m"
        solver = f" A larger --tol {further} or a smaller --learning-rate helps."
    else:
        diverged = isinstance(error, ArithmeticError | HypothesisError)
        solver = " The parameters diverged: a smaller --learning-rate helps." if diverged else ""
    return solver + (f" The checkpoint {arguments.checkpoint} is kept." if arguments.checkpoint else "")


class _Threads(NamedTuple):
    workers: int
    limited: AbstractContextManager[Any]


def _threads(arguments: argparse.Namespace, recipe: Any, images: int) -> _Threads:
    # The products of a dense network gain nothing from a second thread and take ten times as long where another process
    # has its core; those of networks on images are better shared out as parts of the batch, one thread each, or with
    # JFB one process each, where there is enough to do. Besides, one thread a product gives the same bits whatever the
    # load. Whoever sets a number of threads gets it.
    from threadpoolctl import threadpool_limits

    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    given = [int(os.environ[name]) for name in names if os.environ.get(name, "").isdigit()]
    if arguments.model == "mon-fc" and given:
        return _Threads(1, nullcontext())
    workers = 1 if arguments.model == "mon-fc" else max([1, *given]) if given else processors()
    if arguments.model == JFB:
        workers = min(workers, recipe.batch // SHARE)
        if workers < 2 or images * recipe.epochs < WORTH or arguments.device != "cpu" or not shareable(recipe.rule):
            return _Threads(1, nullcontext())
    return _Threads(workers, threadpool_limits(limits=1, user_api="blas"))


@contextmanager
def _learner(arguments: argparse.Namespace, first: State, threads: _Threads) -> Iterator[Learner]:
    if arguments.model != JFB:
        yield learner_of_mon(threads.workers)
    elif threads.workers == 1:
        yield jfb.LEARNER
    else:
        with Team(first.network, threads.workers) as team:
            yield jfb.learner_of(team)


def _prepare(arguments: argparse.Namespace) -> tuple[datasets.Dataset, Any, State, dict[str, Any]]:
    """Everything that can be wrong with the input shows here."""
    complaint = "".join(unwritable(path) for path in (arguments.checkpoint, arguments.json) if path is not None)
    if complaint:
        raise ValueError(complaint)
    if arguments.minutes and not arguments.checkpoint:
        raise ValueError("--minutes needs --checkpoint F, to go on from.")
    data = datasets.load(arguments.data)
    recipe = _recipe(arguments, len(data.x_train))
    rng = np.random.default_rng(seeded(arguments.seed))
    network, size = _network(arguments, rng, data)
    if recipe.augment != "none" and len(network.input_shape) != 3:
        raise ValueError(f"--augment {recipe.augment} is for networks on images; {arguments.model} is none.")
    config = {
        "model": arguments.model,
        **size,
        "seed": arguments.seed,
        "data": data.fingerprint(),
        **dataclasses.asdict(recipe),
    }
    network = on_device(arguments.device, network)
    return data, recipe, _first(arguments, start(network, rng), config), config


def _network(
    arguments: argparse.Namespace, rng: np.random.Generator, data: datasets.Dataset
) -> tuple[Any, dict[str, Any]]:
    """The initial network and what settles it."""
    if arguments.model == JFB:
        return _jfb_network(arguments, rng, data)
    _unused(arguments, *OF_JFB)
    network, size = _mon_network(arguments, rng, data)
    return network, {**size, "m": arguments.m or 1.0, "activation": arguments.activation or "relu"}


def _jfb_network(
    arguments: argparse.Namespace, rng: np.random.Generator, data: datasets.Dataset
) -> tuple[Any, dict[str, Any]]:
    _unused(arguments, *OF_MON)
    if len(data.shape) != 3:
        raise ValueError(f"{JFB} needs images; {data.name} holds rows of {data.shape[0]} numbers.")
    blocks, gamma = arguments.blocks or 2, arguments.gamma or 0.5
    network = jfb_mnist(rng, data.shape, data.classes, blocks=blocks, gamma=gamma)
    return network, {"blocks": blocks, "gamma": gamma}


def _mon_network(
    arguments: argparse.Namespace, rng: np.random.Generator, data: datasets.Dataset
) -> tuple[MonNetwork, dict[str, Any]]:
    further = data.classes, arguments.m or 1.0, _activation(arguments.activation or "relu")
    if arguments.model == "mon-fc":
        _unused(arguments, "channels")
        hidden = arguments.hidden or 87
        return mon_fc(rng, data.x_train.shape[1], hidden, *further), {"hidden": hidden}
    _unused(arguments, "hidden")
    if len(data.shape) != 3:
        raise ValueError(f"{arguments.model} needs images; {data.name} holds rows of {data.shape[0]} numbers.")
    if arguments.model == "mon-multitier":
        channels = arguments.channels or (16, 32, 32)
        return mon_multitier(rng, data.shape, channels, *further), {"channels": list(channels)}
    channels = arguments.channels or (56,)
    if len(channels) != 1:
        raise ValueError(f"--channels must be one number for mon-conv; got {','.join(map(str, channels))}.")
    return mon_conv(rng, data.shape, channels[0], *further), {"channels": list(channels)}


def _unused(arguments: argparse.Namespace, *names: str) -> None:
    for name in names:
        if getattr(arguments, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} means nothing to {arguments.model}.")


def _recipe(arguments: argparse.Namespace, count: int) -> Recipe | FixedPointRecipe:
    small = 32 if count < 10_000 else 128
    base = PAPER if arguments.recipe == "paper" else dataclasses.replace(DEFAULTS[arguments.model], batch=small)
    given = {f.name: getattr(arguments, f.name, None) for f in dataclasses.fields(base)}
    return dataclasses.replace(base, **{name: value for name, value in given.items() if value is not None})


def _activation(text: str) -> activations.Activation:
    name, *parameters = text.split(":")
    takes_one = not isinstance(activations.NAMES.get(name), activations.Activation)
    if len(parameters) > takes_one or any(math.isnan(number(parameter)) for parameter in parameters):
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
    check_settings(path, saved, config)
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
        return write_json(arguments.json, report)
    return OK


def _size(network: Any) -> int:
    return sum(int(p.size) for p in network.params.values())
