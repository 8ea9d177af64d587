"""What each suite measures: the cases of a level, and the tasks of a case."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ... import networks
from ...arrays import to_numpy
from ...optimisers import adam_init, adam_step
from ...splitting import rates
from ...training.loop import RECIPES
from .. import bench_conv, bench_jfb
from . import ours, peers
from .layers import Layer, certified, dense, iteration_need, solve_need, tiered, wanted
from .machine import Need, Place
from .measure import OURS, Found, Side, Task

__all__ = ["LEVELS", "SUITES", "Level"]

ROUNDING = 1e-4  # relative, between float32 results of one product
SOLVE, BOTH, ITERATION = "forward", "forward + backward", "iteration"


class Level(NamedTuple):
    """The sizes of the cases, the accuracy of solves relative to the longest injection or cotangent."""

    dense: tuple[tuple[int, float], ...]  # n, m
    images: tuple[tuple[tuple[int, ...], int], ...]  # channels, side
    batch: int  # of the dense cases, and of training steps
    image_batch: int
    networks: tuple[tuple[int, ...], ...]  # channels of those on images of MNIST
    accuracy: float = 1e-3


LEVELS = {
    "quick": Level(((87, 1.0), (87, 0.1)), (((16,), 16), ((8, 16), 16)), 128, 16, ((4,), (2, 4))),
    "full": Level(
        tuple((n, m) for n in (87, 512) for m in (0.1, 1.0)),
        tuple((case.channels, case.side) for case in bench_conv.CASES.values()), 128, bench_conv.BATCH,
        ((56,), (16, 32, 32)),
    ),
}  # fmt: skip


def _layers(level: Level, seed: int) -> Iterator[Layer]:
    for n, m in level.dense:
        yield dense(n, m, level.batch, seed)
    for channels, side in level.images:
        yield tiered(channels, side, level.image_batch, seed)


def _alpha(layer: Layer) -> float:
    return rates.best_alpha(layer.W, "peaceman-rachford")


def solve(layer: Layer, where: Place, passes: int, accuracy: float, names: tuple[str, ...] | None = None) -> Task:
    """One pass or both, by us and by the peers (those of these names), to one certified accuracy."""
    alpha, asked = _alpha(layer), wanted(layer, accuracy, passes)
    return Task(
        layer.name, BOTH if passes == 2 else SOLVE,
        [*ours.solves(layer, where, alpha, passes, asked), *peers.sides(layer, where, alpha, passes, names)],
        peers.absent(layer, passes, names),
        functools.partial(certified, layer), asked, functools.partial(solve_need, layer), layer.injection.nbytes,
    )  # fmt: skip


def iteration(layer: Layer, where: Place) -> Task:
    """One Peaceman-Rachford iteration of every form that has one."""
    alpha, lacking = _alpha(layer), peers.missing(("torch",))
    others = [] if lacking else peers.steps(layer, where, alpha)
    return Task(
        layer.name, ITERATION, [*ours.steps(layer, where, alpha), *others],
        {peers.PUBLISHED: lacking} if lacking else {},
        need=lambda _: iteration_need(layer), state_bytes=layer.injection.nbytes,
    )  # fmt: skip


def product(name: str, layer: Layer, where: Place) -> Task:
    """One of `ours.PRODUCTS`; certified is the relative distance to the same in float64."""
    alpha, lacking = _alpha(layer), peers.missing(("torch",))
    exact = ours.reference(name, layer, alpha).astype(np.float64)
    other = None if lacking else peers.product(name, layer, where)

    def distance(state: tuple[Any, ...]) -> tuple[float, ...]:
        off = to_numpy(state[0]).astype(np.float64).reshape(exact.shape) - exact
        return (float(np.linalg.norm(off) / np.linalg.norm(exact)),)

    return Task(
        layer.name, name, [ours.product(name, layer, where, alpha), *([other] if other else [])],
        {peers.PUBLISHED: lacking} if lacking and name in ("W z", "W' z") else {},
        distance, (ROUNDING,), product_need(name, layer), layer.injection.nbytes,
    )  # fmt: skip


def product_need(name: str, layer: Layer) -> Callable[[tuple[int, ...]], Need] | None:
    """A product with W or V costs an iteration but for |u| and + c; the rest is not counted."""
    if name not in ("W z", "W' z", "resolvent"):
        return None
    need, entries = iteration_need(layer), layer.injection.size
    return lambda _: need._replace(rest=0.0, moved=need.moved - 5 * 4 * entries)


# ---- training steps ----


def dense_step(batch: int, where: Place, seed: int, tol: float = 1e-3) -> Task:
    """`mon_fc` on noise of 784 numbers; both sides stop at the same relative change and factor W in every step."""
    network = networks.mon_fc(np.random.default_rng(seed), 784)
    x, labels = _noise(batch, (784,), seed)
    theirs = functools.partial(peers.dense_steps, network, x, labels)
    return _step(f"mon_fc 784-87-10 batch={batch}", network, x, labels, theirs, 1, tol, where)


def image_step(channels: tuple[int, ...], batch: int, where: Place, seed: int, tol: float = 1e-3) -> Task:
    """`mon_conv` or `mon_multitier` likewise on images of MNIST's size, ours in the parts that training solves."""
    alone, rng = len(channels) == 1, np.random.default_rng(seed)
    name, given = ("mon_conv", channels[0]) if alone else ("mon_multitier", channels)
    network: Any = getattr(networks, name)(rng, (1, 28, 28), given)
    x, labels = _noise(batch, (1, 28, 28), seed)
    theirs = functools.partial(peers.image_steps, network, x, labels)
    case = f"{name} {','.join(map(str, channels))} batch={batch}"
    parts = RECIPES[name.replace("_", "-")].parts if where.backend == "numpy" else 1
    return _step(case, network, x, labels, theirs, parts, tol, where)


def _noise(batch: int, shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, 1])
    return rng.normal(size=(batch, *shape)).astype(np.float32), rng.integers(10, size=batch)


def _step(
    case: str, network: Any, x: np.ndarray, labels: np.ndarray, theirs: Callable[..., Any], parts: int, tol: float,
    where: Place,
) -> Task:  # fmt: skip
    """Both sides' steps, whose loss is that of the equilibrium to a per cent."""
    alpha, lacking = rates.best_alpha(network.W, "peaceman-rachford"), peers.missing(("torch",))
    wide = network.following(x.astype(np.float64))
    exact = wide.accumulate(x.astype(np.float64), labels, parts, alpha=alpha, tol=1e-6).loss
    options: dict[str, Any] = {"alpha": alpha, "tol": tol, "stop": "relative-change"}
    sides = [Side(OURS, _our_steps(network, where.move(x), where.move(labels), parts, where, options))]
    if not lacking:
        sides.append(Side(peers.PUBLISHED, theirs(alpha, tol, where)))
    return Task(
        case, "training step", sides, {peers.PUBLISHED: lacking} if lacking else {},
        lambda state: (abs(float(state[0]) - exact) / exact,), (1e-2,),
    )  # fmt: skip


def _our_steps(
    network: Any, x: Any, labels: Any, parts: int, where: Place, options: dict[str, Any]
) -> Callable[[tuple[float, ...]], Found]:
    network = network.following(x)
    state, first, workers = (network, adam_init(network.params)), list[Found](), where.threads if parts > 1 else 1

    def run(tols: tuple[float, ...]) -> Found:
        nonlocal state
        net, optimiser = state
        with bench_conv.POOLS.limit(limits=1 if workers > 1 else None, user_api="blas"):
            found = net.accumulate(x, labels, parts, workers=workers, **options)
        params, optimiser = adam_step(net.params, found.grads, optimiser, bench_jfb.RATE)
        state = net.replace(**net.projected(params)), optimiser
        first.append(Found((found.loss,), (found.forward_iterations, found.backward_iterations)))
        return first[0]  # what is compared is the loss of the first step

    return run


def jfb_step(batch: int, threads: int, iterations: int = 5) -> Task:
    """`jfb_mnist`, as `bench_jfb` measures it."""
    network, x, labels = bench_jfb.problem(batch)
    ended = contextlib.ExitStack()
    team = ended.enter_context(bench_jfb.team_of(network, threads))
    step, sides = bench_jfb.our_step(network, x, labels, iterations, team), list[Side]()
    lacking = peers.missing(("torch",))

    def mine() -> float:
        with bench_conv.POOLS.limit(limits=1, user_api="blas"):  # as the training command has it
            return float(step().loss)

    wide = network.replace(**{k: p.astype(np.float64) for k, p in (network.params | network.buffers).items()})
    pass_ = wide.training_pass(x.astype(np.float64), labels, "jfb", tol=1e-30, max_iter=iterations + 1)
    sides.append(Side(OURS, _first(mine, iterations)))
    if not lacking:
        sides.append(Side(peers.PUBLISHED, _first(bench_jfb.torch_step(network, x, labels, iterations)[0], iterations)))
    return Task(
        f"jfb_mnist batch={batch}", "training step", sides, {peers.PUBLISHED: lacking} if lacking else {},
        lambda state: (abs(float(state[0]) - pass_.loss) / pass_.loss,), (1e-2,), end=ended.close,
    )  # fmt: skip


def _first(step: Callable[[], float], iterations: int) -> Callable[[tuple[float, ...]], Found]:
    losses = list[float]()

    def run(tols: tuple[float, ...]) -> Found:
        losses.append(step())
        return Found((losses[0],), (iterations,))

    return run


# ---- suites ----

Make = Callable[[], Task]


def forward(level: Level, where: Place, seed: int) -> Iterator[Make]:
    """One iteration and one solve of every layer, against the forms in PyTorch."""
    names = (peers.PUBLISHED, peers.BEST, peers.REFLECTED)
    for layer in _layers(level, seed):
        yield functools.partial(iteration, layer, where)
        yield functools.partial(solve, layer, where, 1, level.accuracy, names)


def training(level: Level, where: Place, seed: int) -> Iterator[Make]:
    """Both passes of every layer with the gradients by its parameters, and whole training steps."""
    for layer in _layers(level, seed):
        yield functools.partial(solve, layer, where, 2, level.accuracy, (peers.PUBLISHED,))
    yield functools.partial(dense_step, level.batch, where, seed)
    for channels in level.networks:
        yield functools.partial(image_step, channels, level.image_batch, where, seed)
    if where.backend == "numpy":
        yield functools.partial(jfb_step, level.batch, where.threads)


def operators(level: Level, where: Place, seed: int) -> Iterator[Make]:
    """The products with W, W' and the resolvent, its factorisation, the gradients by A and B."""
    for layer in _layers(level, seed):
        yield from (functools.partial(product, name, layer, where) for name in ours.PRODUCTS)


def against_peers(level: Level, where: Place, seed: int) -> Iterator[Make]:
    """Dense layers against every peer."""
    for n, m in level.dense:
        for passes in (1, 2):
            yield functools.partial(solve, dense(n, m, level.batch, seed), where, passes, level.accuracy)


SUITES: dict[str, Callable[[Level, Place, int], Iterator[Make]]] = {
    "forward": forward, "training": training, "operators": operators, "peers": against_peers,
}  # fmt: skip
