r"""MON Figures 2, 3 and E2 and Table 1 on networks trained here: iterations along training, convergence over alpha.

The paper's figures are of a large multi-tier network trained on CIFAR-10. Here it is the dense network of Table D1,
trained as the paper does, without weight decay and solved to a relative change of 1e-2, on the digits of scikit-learn
or on other images. Drawn by ``implicitref reproduce mon-figure-2``, ``mon-figure-3`` and ``mon-figure-e2``.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import mon, training
from ..datasets import Dataset, load
from ..networks import MonNetwork, mon_conv, mon_fc, mon_multitier
from ..plotting.style import line_style
from ..splitting import forward_backward, peaceman_rachford, rates
from ..training.alpha import tuned
from ..training.loop import PAPER
from . import problems, table_d1
from .sequential_tables import silent
from .verdict import Verdict, compare, largest

__all__ = ["Along", "Curve", "along", "convergence", "curves", "iterations_grow", "table_1"]

TOL, STOP = 1e-2, "relative-change"  # appendix D.2
SMALL = dataclasses.replace(PAPER, batch=32, learning_rate=5e-3, schedule="constant")  # for digits
ALPHAS = tuple(1 / d for d in (1, 4, 8, 16, 32, 64))  # of Figure 3
STEPS, IMAGES = 250, 128
EPOCHS = 40  # of the figures, as in Table D1
Tell = Callable[[str], object]
GENERATORS = {"forward-backward": forward_backward, "peaceman-rachford": peaceman_rachford}


class Along(NamedTuple):
    """After so many epochs: L of I - W, and Peaceman-Rachford's mean iterations on batches of test images."""

    epoch: int
    lipschitz: float
    best_alpha: float
    forward_at_best: float
    forward_at_1: float
    backward_at_best: float
    backward_at_1: float


class Curve(NamedTuple):
    """``||z_k - z*||/||z*||``, k = 1, 2, ..., over a batch of test images; and the factor that a step is proven by."""

    method: str
    alpha: float
    factor: float
    errors: np.ndarray
    auxiliary: np.ndarray

    def iterations(self, tol: float = 1e-3) -> float:
        """How many it takes to a relative error below tol; infinite where it does not come there."""
        below = np.flatnonzero(self.errors < tol)
        return float(below[0]) + 1 if below.size else np.inf


# ------------------------------------------------------------------------------------------------
# Figures 2 and E2


def states(data: Dataset, seed: int, epochs: int) -> Iterator[training.State]:
    """The network before training and after every epoch."""
    rng = np.random.default_rng(seed)
    state = training.start(mon_fc(rng, data.x_train.shape[1], classes=data.classes), rng)
    yield state
    yield from training.train(state, data, dataclasses.replace(recipe(data), epochs=epochs))


def trained(data: Dataset, seed: int, epochs: int, tell: Tell = silent) -> MonNetwork:
    """The network after the last epoch, in float64."""
    *_, last = _told(states(data, seed, epochs), epochs, tell)
    return last.network.following(np.zeros(1))


def recipe(data: Dataset) -> training.Recipe:
    """The paper's, or for few images more and larger steps."""
    return SMALL if len(data.x_train) < 10_000 else PAPER


def along(data: Dataset, seed: int, epochs: int, tell: Tell = silent) -> list[Along]:
    """What the figures show, measured before training and after every epoch."""
    return [_measured(state, data) for state in _told(states(data, seed, epochs), epochs, tell)]


def _told(found: Iterable[training.State], epochs: int, tell: Tell) -> Iterator[training.State]:
    for epoch, state in enumerate(found):
        tell(f"epoch {epoch} of {epochs}")
        yield state


def _measured(state: training.State, data: Dataset) -> Along:
    network, x = state.network, data.x_test[: 8 * IMAGES]
    best = tuned(network, x, tol=TOL, stop=STOP)
    counts = [
        (found.forward.iterations, found.backward.iterations)
        for alpha in (best, 1.0)
        for found in (
            network.gradients(x[i : i + IMAGES], data.y_test[i : i + IMAGES], alpha=alpha, tol=TOL, stop=STOP)
            for i in range(0, len(x), IMAGES)
        )
    ]
    at_best, at_1 = np.array(counts, dtype=float).reshape(2, -1, 2).mean(axis=1)
    return Along(len(state.history), lipschitz(network), best, at_best[0], at_1[0], at_best[1], at_1[1])


def lipschitz(network: MonNetwork) -> float:
    """||I - W||."""
    return rates.constants(rates.gap(network.W))[1]


def draw_iterations(figure: Any, rows: Sequence[Along], way: str) -> None:
    """Iterations "forward" (Figure 2) or "backward" (Figure E2) against epochs, beside L."""
    left, right = figure.subplots(1, 2)
    epochs = [row.epoch for row in rows]
    for i, (name, label) in enumerate((("at_1", "alpha = 1"), ("at_best", "best alpha"))):
        left.plot(epochs, [getattr(row, f"{way}_{name}") for row in rows], label=label, **line_style(i, len(rows)))
    right.plot(epochs, [row.lipschitz for row in rows], **line_style(3, len(rows)))
    left.set(xlabel="epochs of training", ylabel=f"iterations, {way} pass", ylim=(0, None))
    right.set(xlabel="epochs of training", ylabel="L = ||I - W||", ylim=(0, None))
    left.legend(frameon=False)


def iterations_grow(seed: int, size: float) -> list[Verdict]:
    """Figures 2 and E2: L grows in training, and with it the iterations of both passes."""
    rows = along(load("digits"), seed, problems.count(10, size))
    first, last = rows[0], rows[-1]

    def more(claim: str, way: str, where: str) -> Verdict:
        begin, end = (getattr(row, f"{way}_{where}") for row in (first, last))
        at, text = (
            where.replace("_", " "),
            f"{way} iterations, {begin:.3g} at first, {end:.3g} after {last.epoch} epochs",
        )
        return compare(claim, f"{text}, alpha {at}: ratio", end / begin, ">=", 1)

    return [
        compare(
            "MON-Fig2", f"L after {last.epoch} epochs over L at first", last.lipschitz / first.lipschitz, ">=", 1.2
        ),
        *(more("MON-Fig2", "forward", where) for where in ("at_1", "at_best")),
        *(more("MON-FigE2", "backward", where) for where in ("at_1", "at_best")),
    ]


# ------------------------------------------------------------------------------------------------
# Figure 3


def curves(network: MonNetwork, x: np.ndarray, alphas: Sequence[float] = ALPHAS, steps: int = STEPS) -> list[Curve]:
    """Both splittings from 0 on the inputs x, for every alpha, against equilibria certified to 1e-9."""
    injection, W = network.inject(x.astype(np.float64)), network.W
    truth = mon.equilibrium(W, injection, network.activation, tol=1e-9, max_iter=5000).z
    return [_curve(network, injection, truth, method, alpha, steps) for method in GENERATORS for alpha in alphas]


def _curve(
    network: MonNetwork, injection: np.ndarray, truth: np.ndarray, method: str, alpha: float, steps: int
) -> Curve:
    inclusion = mon.forward_inclusion(network.W, injection, network.activation)
    pre = truth @ np.asarray(network.W.to_dense()).T + injection
    target = truth if method == "forward-backward" else truth + alpha * (pre - truth)
    exact = rates.forward_backward if method == "forward-backward" else rates.peaceman_rachford
    errors, auxiliary = np.full((2, steps), np.inf)
    with np.errstate(over="ignore", invalid="ignore"):
        for k, state in zip(range(steps), GENERATORS[method](inclusion, alpha, 0 * injection), strict=False):
            moved = state.z if method == "forward-backward" else state.u
            errors[k] = np.linalg.norm(state.z - truth) / np.linalg.norm(truth)
            auxiliary[k] = np.linalg.norm(moved - target) / np.linalg.norm(target)
            if not errors[k] < 1e6:
                break
    return Curve(method, alpha, exact(rates.gap(network.W), alpha), errors, auxiliary)


def draw_convergence(figure: Any, found: Sequence[Curve]) -> None:
    """Two panels, a line an alpha, as in the paper."""
    panels = figure.subplots(1, 2, sharey=True)
    for axes, method in zip(panels, GENERATORS, strict=True):
        own = [curve for curve in found if curve.method == method]
        for i, curve in enumerate(own):
            shown = np.where(curve.errors < 20, curve.errors, np.nan)
            axes.semilogy(np.arange(1, len(shown) + 1), shown, label=fraction(curve.alpha), **line_style(i, 250))
        axes.set(title=method.capitalize().replace("rach", "Rach"), xlabel="iterations", ylim=(1e-7, 20))
    panels[0].set_ylabel("relative error ||z - z*||/||z*||")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", title="alpha", frameon=False)


def fraction(alpha: float) -> str:
    """1/64 for 0.015625."""
    return f"1/{1 / alpha:g}" if alpha < 1 else f"{alpha:g}"


def records(found: Sequence[Curve]) -> list[dict[str, Any]]:
    """A line an iteration."""
    return [
        {"method": c.method, "alpha": c.alpha, "factor": c.factor, "iteration": k, "relative error": error}
        for c in found
        for k, error in enumerate(c.errors, 1)
        if np.isfinite(error)
    ]


def said(curve: Curve) -> str:
    """What the paper says of this curve."""
    if curve.method == "peaceman-rachford":
        return "converges for any alpha"
    return "does not converge" if curve.alpha > 1 / 8 else "slower for smaller alpha"


def limit(network: MonNetwork) -> float:
    """Up to which alpha forward-backward is proven to converge."""
    return float(rates.forward_backward_limit(rates.gap(network.W)))


def convergence(seed: int, size: float) -> list[Verdict]:
    """Figure 3: where forward-backward stops converging, and Peaceman-Rachford does not."""
    data = load("digits")
    network = trained(data, seed, problems.count(10, size))
    found = curves(network, data.x_test[:IMAGES], (4.0, *ALPHAS))
    splitting = [c.iterations() for c in found if c.method == "peaceman-rachford"]
    return [
        *shown(found, limit(network), seed),
        compare(
            "MON-Fig3",
            "Peaceman-Rachford is not monotone in alpha: its fewest iterations over those at alpha = 4 and at 1/64",
            min(splitting) / min(splitting[0], splitting[-1]),
            "<=",
            0.9,
        ),
    ]


def shown(found: Sequence[Curve], limit: float, seed: int) -> list[Verdict]:
    """What the figure is to show: `limit` is what forward-backward is proven to converge up to."""
    claim = "MON-Fig3"
    forward, splitting = ([c for c in found if c.method == method] for method in GENERATORS)
    below = sorted((c for c in forward if c.alpha < limit), key=lambda c: c.alpha)
    halved = [one.iterations() / two.iterations() for one, two in itertools.pairwise(below)]
    fewest = [min(c.iterations() for c in own) for own in (forward, splitting)]
    return [
        compare(
            claim,
            f"alpha < {limit:.3g} or Peaceman-Rachford: error after k iterations over factor^k, largest",
            largest((_over(c), f"{c.method}, alpha = {fraction(c.alpha)}, seed {seed}") for c in found if c.factor < 1),
            "<=",
            1,
            slack=1e-6,
        ),
        compare(
            claim,
            f"alpha = 1, beyond the limit {limit:.3g} of forward-backward: its relative error after {STEPS} iterations",
            next(c for c in forward if c.alpha == 1).errors[-1],
            ">=",
            1e-3,
        ),
        compare(
            claim,
            "forward-backward below the limit, iterations to 1e-3: those of an alpha over those of the next larger",
            min(halved),
            ">=",
            1,
        ),
        compare(
            claim,
            f"fewest iterations to 1e-3: Peaceman-Rachford {fewest[1]:g} over forward-backward {fewest[0]:g}",
            fewest[1] / fewest[0],
            "<=",
            1,
        ),
    ]


def _over(curve: Curve) -> np.ndarray:
    proven = curve.factor ** np.arange(1, len(curve.auxiliary) + 1)
    return np.asarray(curve.auxiliary / (proven + 1e-8))  # z* itself is certified to 1e-9 only


# ------------------------------------------------------------------------------------------------
# Table 1

SIZES = {  # thousands of parameters as printed, and the network's
    "MNIST, dense": (84, table_d1.predict_dense(87, 784)),
    "MNIST, single convolution of 56 channels": (84, table_d1.predict_single(56, table_d1.GREY)),
    "MNIST, multi-tier": (81, table_d1.predict_tiers((16, 32, 32), table_d1.GREY)),
    "single convolution": (172, table_d1.predict_single(81, table_d1.COLOUR)),
    "multi-tier": (170, table_d1.predict_tiers((16, 32, 60), table_d1.COLOUR)),
    "single convolution, large": (854, table_d1.predict_single(200, table_d1.COLOUR)),
}
ACCURACIES = {  # MONs with few parameters, and the Augmented Neural ODE of the same row
    "CIFAR-10": ((74.1, 71.8), 60.6),
    "SVHN": ((88.8, 92.3), 83.5),
    "MNIST": ((99.2, 98.9), 98.2),
}
KINDS = {
    "dense": lambda rng: mon_fc(rng, 64, hidden=40),
    "single convolution": lambda rng: mon_conv(rng, (1, 8, 8), 16),
    "multi-tier": lambda rng: mon_multitier(rng, (1, 8, 8), (8, 12)),
}
LEARNT = 0.5  # of the test images right after one epoch, where guessing has 0.1


def table_1(seed: int, size: float) -> list[Verdict]:
    """The sizes and the arithmetic of Table 1; that its three kinds of network learn, on small images."""
    claim, data = "MON-Tab1", load("digits")
    off = [(abs(round(count / 1000) - printed), f"{name}, not random") for name, (printed, count) in SIZES.items()]
    ahead = [(ode - min(ours), f"{name}, not random") for name, (ours, ode) in ACCURACIES.items()]
    return [
        compare(claim, "printed thousands of parameters against the networks'", largest(off), "==", 0),
        compare(
            claim, "CIFAR-10, single convolution less Augmented Neural ODE, points", 74.1 - 60.6, "==", 13.5, slack=1e-9
        ),
        compare(claim, "Augmented Neural ODE less the worst convolutional MON, points", largest(ahead), "<=", 0),
        *(
            compare(claim, f"{kind} on digits, {count:,} parameters, one epoch: accuracy", accuracy, ">=", LEARNT)
            for kind, count, accuracy in _learnt(data, seed)
        ),
    ]


def _learnt(data: Dataset, seed: int) -> Iterator[tuple[str, int, float]]:
    one = training.Recipe(1, 32, 2e-2, weight_decay=0.0, tol=TOL, stop=STOP)
    for kind, build in KINDS.items():
        rng = np.random.default_rng(seed)
        network = build(rng)
        *_, last = training.train(training.start(network, rng), data, one)
        yield kind, table_d1.measure(network), last.history[-1].test_accuracy
