"""The few figures of the report, as inline SVG that follows the page's colours. Needs matplotlib."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import activations, datasets, mon, well_posed
from ..fixed_point import examples, iterate, theory
from ..splitting import certificates, forward_backward, peaceman_rachford, rates
from . import algorithms, appendix_b, banach, descent, problems, sequential_statements, well_posedness
from . import certificates as certificate_checks
from . import convergence_rates as contraction
from .circulant import fourier, relative

INK = "#010203"  # replaced by the text colour of the page
COLOURS = {"measured": "#d1495b", "exact": "#2e86ab", "class": "#8a8d91", "bound": "#2e86ab", "rule": "#edae49"}


def figures(seed: int, wanted: set[str]) -> dict[str, tuple[str, str]]:
    """Of the claims that are wanted and have one: id to (SVG, caption)."""
    return {name: (svg(draw, seed, name), caption) for name, (draw, caption) in _DRAWN.items() if name in wanted}


def svg(draw: Callable[[Any, int], None], seed: int, name: str) -> str:
    """One figure as an svg element: transparent, text as text, ids that are unique on the page."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style = {"svg.fonttype": "none", "svg.hashsalt": "implicitref", "font.size": 9, "font.family": "sans-serif"}
    style |= {key: INK for key in ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")}
    with mpl.rc_context(style):
        figure = Figure(figsize=(4.6, 2.9), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes, seed)
        figure.legend(frameon=False, fontsize=8, loc="outside upper left", ncols=2)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    page = text.getvalue()
    page = page[page.index("<svg") :].replace(INK, "currentColor")
    page = re.sub(r'(id="|href="#|url\(#)', lambda match: f"{match[1]}{name}-", page)
    page = re.sub(r"<metadata>.*?</metadata>", "", page, flags=re.DOTALL)
    return page.replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1)


def _example(seed: int) -> problems.Problem:
    return problems.draw(seed, activations.relu, 0.5, n=6, batch=8, spread=3.0)


def _rates(method: str) -> Callable[[Any, int], None]:
    exact, bound = {
        "forward-backward": (rates.forward_backward, rates.forward_backward_class),
        "peaceman-rachford": (rates.peaceman_rachford, rates.peaceman_rachford_class),
    }[method]

    def draw(axes: Any, seed: int) -> None:
        p = _example(seed)
        L = p.lipschitz
        centre = p.m / L**2 if method == "forward-backward" else 1 / L
        alphas = centre * np.geomspace(0.1, 2.5 if method == "forward-backward" else 10, 60)
        start = p.z + 10 * np.random.default_rng(seed).normal(size=p.z.shape)
        axes.semilogx(alphas, [bound(p.m, L, a) for a in alphas], color=COLOURS["class"], ls="--", label="class bound")
        axes.semilogx(alphas, [exact(p.G, a) for a in alphas], color=COLOURS["exact"], label="exact factor")
        dots = alphas[::4]
        measured = [contraction.measure(p, method, a, start).max() for a in dots]
        axes.semilogx(dots, measured, ".", color=COLOURS["measured"], label="measured, worst step")
        axes.axhline(1, color=INK, lw=0.5)
        axes.set(xlabel="alpha", ylabel="contraction factor")

    return draw


def _convergence(method: str) -> Callable[[Any, int], None]:
    generator = {"forward-backward": forward_backward, "peaceman-rachford": peaceman_rachford}[method]

    def draw(axes: Any, seed: int) -> None:
        p = _example(seed)
        inclusion = mon.forward_inclusion(p.W, p.b, p.activation)
        alpha = rates.best_alpha(p.W, method)
        count = 60 if method == "peaceman-rachford" else 200
        states = [s for s, _ in zip(generator(inclusion, alpha, np.zeros_like(p.b)), range(count), strict=False)]
        error = [np.linalg.norm(s.z - p.z, axis=1).max() for s in states]
        bound = [certificates.distance(inclusion, alpha, s.u)[1].max() for s in states]
        axes.semilogy(bound, color=COLOURS["bound"], label="certified bound")
        axes.semilogy(error, color=COLOURS["measured"], label="true distance to z*")
        axes.set(xlabel="iteration", ylabel="distance", ylim=(1e-17, None))

    return draw


def _fooled(axes: Any, seed: int) -> None:
    W, b = algorithms.fooling_problems()[0]
    inclusion = mon.forward_inclusion(W, b, activations.hardtanh)
    z, change, error, bound = np.zeros((1, 1)), [], [], []
    for state, _ in zip(peaceman_rachford(inclusion, 100.0, np.zeros((1, 1))), range(160), strict=False):
        change.append(max(abs(state.z - z)[0, 0] / abs(state.z)[0, 0], 1e-4))
        error.append(abs(state.z[0, 0] - 0.9))
        bound.append(certificates.distance(inclusion, 100.0, state.u)[1][0])
        z = state.z
    k = np.arange(1, len(error) + 1)
    axes.semilogy(k, bound, color=COLOURS["bound"], label="certified bound")
    axes.semilogy(k, error, color=COLOURS["measured"], ls="--", label="true distance to z* = 0.9")
    axes.semilogy(k, change, ".", ms=3, color=COLOURS["rule"], label="printed rule (0 drawn at 1e-4)")
    axes.set(xlabel="iteration", ylim=(5e-5, 500))


def _tightness(samples: Callable[[int, float], Any], seed_size: float = 1.0) -> Callable[[Any, int], None]:
    def draw(axes: Any, seed: int) -> None:
        ratios = np.concatenate([np.ravel(row[0]) for row, _ in samples(seed, seed_size)])
        axes.hist(ratios, bins=np.linspace(0, 1, 41), color=COLOURS["bound"], label=f"{ratios.size:,} random problems")
        axes.axvline(1, color=COLOURS["measured"], label="bound attained")
        axes.set(xlabel="true distance over certified bound", ylabel="problems")

    return draw


def _skew(axes: Any, seed: int) -> None:
    c, alphas = appendix_b.draw(seed, 2, 4, 3), np.geomspace(0.05, 20, 61)
    steps = [c._replace(alpha=a) for a in alphas]
    wrong = [relative(appendix_b.printed_28(x), x.shifted) for x in steps]
    right = [relative(appendix_b.corrected_28(x, fourier(c.s)), x.shifted) for x in steps]
    axes.loglog(alphas, wrong, color=COLOURS["rule"], label="as printed")
    axes.loglog(alphas, right, color=COLOURS["measured"], label="with alpha at D_B")
    axes.set(xlabel="alpha", ylabel="relative error", ylim=(1e-17, 10))


def _borders(axes: Any, seed: int) -> None:
    for k, colour in ((3, "measured"), (5, "exact"), (7, "rule")):
        errors = [appendix_b.interior_error(appendix_b.draw(seed, 1, 15, k), p)[0] for p in range(5)]
        axes.semilogy(errors, "o-", color=COLOURS[colour], label=f"kernels {k} x {k}")
    axes.set(xlabel="border pixels p", ylabel="relative error inside", xticks=range(5), ylim=(1e-17, 10))


def _threshold(axes: Any, seed: int) -> None:
    gammas = np.linspace(0.3, 0.99, 70)
    axes.semilogy(gammas, 1 / gammas, color=COLOURS["class"], ls="--", label="printed condition, 1/gamma")
    axes.semilogy(gammas, [theory.descent_threshold(g) for g in gammas], color=COLOURS["exact"], label="kappa*")
    dots = np.array([0.5, 0.65, 0.8, 0.9, 0.95])
    found = [descent._search(g, seed) for g in dots]
    axes.semilogy(dots, found, ".", color=COLOURS["measured"], label="least kappa at which a search ascends")
    axes.set(xlabel="gamma", ylabel="kappa(M'M)")


def _truncation(axes: Any, seed: int) -> None:
    K, steps = banach.contractions(np.random.default_rng(seed), 1, 6, 0.8)[0], np.arange(25)
    partial = np.cumsum([np.linalg.matrix_power(K, k) for k in steps], axis=0)
    errors = np.linalg.norm(np.linalg.inv(np.eye(6) - K) - partial, 2, axis=(1, 2))
    bounds = [theory.neumann_error(0.8, int(k)) for k in steps]
    axes.semilogy(bounds, color=COLOURS["bound"], label="bound, attained by gamma I")
    axes.semilogy(errors, ".", color=COLOURS["measured"], label="one random K")
    axes.set(xlabel="k", ylabel="error of the truncated series")


def _roots(axes: Any, seed: int) -> None:
    y, d = np.linspace(-1.25, 1.25, 300), np.linspace(-0.5, 0.5, 21)[:, None]
    found = iterate(examples.toy(), d, 0 * d, tol=1e-12, max_iter=400).z[:, 0]
    axes.plot(y - y**5, y, color=COLOURS["class"], label="all real roots")
    axes.plot(d[:, 0], found, ".", color=COLOURS["measured"], label="found from 0")
    axes.axvspan(-0.5, 0.5, color=COLOURS["class"], alpha=0.15, lw=0)
    axes.set(xlabel="d", ylabel="y", xlim=(-1, 1))


def _homogeneous(axes: Any, seed: int) -> None:
    task = datasets.interpolation("smooth", seed)
    best = sequential_statements.best_halves(task.x_test, task.y_test)
    axes.plot(task.x_test, task.y_test, color=COLOURS["exact"], label="f_1")
    axes.plot(task.x_test, best, color=COLOURS["measured"], label="the best model without a constant input")
    axes.set(xlabel="u", ylabel="y")


def _picard(axes: Any, seed: int) -> None:
    rng, n = np.random.default_rng(seed), 6
    A, b = well_posedness.matrix(rng, n, 0.8), rng.normal(size=(8, n))
    exact = well_posed.solve(A, b, activations.relu, tol=1e-12, max_iter=1000).z
    states = list(itertools.islice(well_posed.picard(A, b, activations.relu, 0 * b), 100))
    bounds = [well_posed.bound(A, x, b, activations.relu).max() for x in states]
    axes.semilogy(bounds, color=COLOURS["bound"], label="certified bound")
    axes.semilogy([np.abs(x - exact).max() for x in states], color=COLOURS["measured"], label="true distance to x*")
    axes.set(xlabel="iteration", ylabel="largest entry", ylim=(1e-12, None))


_RATES = (
    "Contraction over alpha for one random G (n = 6, m = 1/2): the class bound, the exact factor of this G, and the"
)
_RUNS = "One random problem (n = 6, m = 1/2, 8 samples, relu), best provable alpha: the certificate never falls below"
_HISTOGRAM = "How much of the certified bound the true distance takes up; beyond 1 the bound would be violated."
_DRAWN = {
    "NEW-rate-fb": (_rates("forward-backward"), f"{_RATES} worst of 12 measured steps."),
    "NEW-rate-pr": (_rates("peaceman-rachford"), f"{_RATES} worst of 12 measured steps."),
    "MON-Alg1": (_convergence("forward-backward"), f"{_RUNS} the error."),
    "MON-Alg2": (_convergence("peaceman-rachford"), f"{_RUNS} the error."),
    "MON-Eq28": (_skew, "n = 2, s = 4, 3 x 3 kernels: as printed the formula is right at alpha = 1 only."),
    "MON-Sec4.2-padding": (
        _borders,
        "The interior of W against the zero-padded convolution, n = 1, s = 15: rounding as soon as 2p >= k - 1.",
    ),
    "NEW-stopping-fooled": (
        _fooled,
        "hardtanh, W = 0, b = 0.9, alpha = 100: z stays at 1, so the printed rule reads 0 at the second iteration.",
    ),
    "NEW-cert-C1": (_tightness(certificate_checks._c1), _HISTOGRAM),
    "NEW-cert-C2": (_tightness(certificate_checks._c2), _HISTOGRAM),
    "NEW-cert-C3": (_tightness(certificate_checks._c3), _HISTOGRAM),
    "NEW-cert-B1": (_tightness(certificate_checks._b1), _HISTOGRAM),
    "NEW-jfb-threshold": (
        _threshold,
        "Below the curve p descends for every K; just above it a search finds an ascent.",
    ),
    "JFB-Eq22": (_truncation, "n = 6, ||K|| = gamma = 0.8: ||(I - K)^-1 - sum of K^i over i <= k||."),
    "JFB-Eq4": (_roots, "Three real y for every d of the paper's interval (shaded); the iteration finds the smallest."),
    "GREEDY-SecV-bias": (_homogeneous, "Two half lines are all that such a model can do, whatever A, B and C."),
    "GREEDY-Thm1": (_picard, "relu, n = 6, Perron eigenvalue 0.8, 8 samples: the bound entry by entry, largest shown."),
}
