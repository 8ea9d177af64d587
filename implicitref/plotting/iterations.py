"""How a splitting arrives: distances by iteration, paths in the plane, spectra."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..arrays import largest, norm, quiet, to_numpy
from ..errors import ShapeError
from ..splitting import Solution, certificates, rates
from ..splitting.iterations import MAPS
from .style import BLUE, GREY, RED, line_style, new_axes

__all__ = ["ConvergenceDisplay", "IterateDisplay", "SpectrumDisplay"]


def replayed(solution: Solution) -> list[Any]:
    """u at the start and after every iteration."""
    step, states = MAPS[solution.method](solution.inclusion, solution.alpha), [solution.start]
    with quiet():
        for _ in range(solution.iterations):
            states.append(step(states[-1]))
    return states


@dataclasses.dataclass(eq=False)
class ConvergenceDisplay:
    r"""Distances against iterations, the largest of the batch, on a logarithmic scale.

    Parameters
    ----------
    curves : dict of str to array (iterations,)
        Entry k belongs to iteration k + 1: also residuals of other solvers, such as ``residuals.max(axis=1)`` of
        `fixed_point.iterate`.

    Examples
    --------
    >>> import numpy as np, implicitref as ir
    >>> W = ir.operators.MonotoneDense(np.eye(2), np.array([[0.0, 2.0], [0.0, 0.0]]), m=1.0)
    >>> solution = ir.mon.equilibrium(W, np.ones((1, 2)), ir.activations.relu)
    >>> display = ConvergenceDisplay.from_solution(solution)
    >>> steps, bound, predicted = display.curves.values()
    >>> bool(np.all(steps <= predicted * (1 + 1e-9)))
    True
    """

    curves: dict[str, np.ndarray]

    @classmethod
    def from_solution(cls, solution: Solution) -> ConvergenceDisplay:
        r"""The length of every step, the certified distance after it, and the predicted ``rho^k ||u_1 - u_0||``.

        rho is the exact factor of the method [NEW-rate-pr, NEW-rate-fb]; operators too large for it have no prediction.
        """
        u = replayed(solution)
        steps = np.array([largest(norm(after - before)) for before, after in itertools.pairwise(u)])
        curves = {r"step $\|u^+ - u\|$": steps, r"certified $\|z - z^*\|$": _bounds(solution, u)}
        if rates.affordable(solution.inclusion.W):
            rho = rates.factor(rates.gap(solution.inclusion.W), solution.method, solution.alpha)
            curves[rf"predicted step, $\rho = {rho:.3g}$"] = steps[0] * rho ** np.arange(len(steps))
        return cls(curves)

    @classmethod
    def from_solutions(cls, solutions: Mapping[str, Solution]) -> ConvergenceDisplay:
        """The certified distance of each, by name."""
        return cls({name: _bounds(solution, replayed(solution)) for name, solution in solutions.items()})

    def plot(self, ax: Any = None) -> ConvergenceDisplay:
        """Draw on matplotlib axes, on a new figure by default."""
        self.ax_ = new_axes(ax, (5.6, 3.6))
        self.figure_ = self.ax_.figure
        for index, (name, values) in enumerate(self.curves.items()):
            self.ax_.semilogy(np.arange(1, len(values) + 1), values, label=name, **line_style(index, len(values)))
        self.ax_.set(xlabel="iteration", ylabel="distance (units of the state)")
        self.ax_.grid(alpha=0.3)
        self.ax_.legend()
        return self


def _bounds(solution: Solution, u: list[Any]) -> np.ndarray:
    inclusion, alpha = solution.inclusion, solution.alpha
    with quiet():
        return np.array([largest(certificates.distance(inclusion, alpha, state)[1]) for state in u[1:]])


@dataclasses.dataclass(eq=False)
class SpectrumDisplay:
    r"""Eigenvalues in the complex plane, with the circles and the line that theory draws around them.

    Parameters
    ----------
    values : complex array (count,)
    circles : dict of str to float
        Radii, centred at 0.
    m : float or None
        No eigenvalue lies left of the line Re = m.
    name : str
        Of the matrix.

    Examples
    --------
    >>> import numpy as np, implicitref as ir
    >>> W = ir.operators.MonotoneDense(np.eye(2), np.array([[0.0, 2.0], [0.0, 0.0]]), m=1.0)
    >>> SpectrumDisplay.from_operator(W).values
    array([2.+2.j, 2.-2.j])
    """

    values: np.ndarray
    circles: dict[str, float]
    m: float | None = None
    name: str = "I - W"

    @classmethod
    def from_operator(cls, W: Any, alpha: float | None = None) -> SpectrumDisplay:
        r"""Of G = I - W between Re = m and |.| = L [MON-Prop1], or with alpha of the Cayley operator
        ``(I - alpha G)(I + alpha G)^-1`` inside the circle of its norm rho [MON-EqA5, NEW-rate-pr].
        """
        G = rates.gap(W)
        values = np.linalg.eigvals(G).ravel()
        if np.iscomplexobj(G):  # blocks of real images: every other frequency has the conjugate block
            values = np.concatenate([values, values.conj()])
        if alpha is None:
            return cls(values, {"L": rates.constants(G)[1]}, W.m)
        rho = rates.peaceman_rachford(G, alpha)
        name = rf"Cayley operator at $\alpha$ = {alpha:.3g}"
        return cls((1 - alpha * values) / (1 + alpha * values), {"1": 1.0, r"$\rho$": rho}, None, name)

    def plot(self, ax: Any = None) -> SpectrumDisplay:
        """Draw on matplotlib axes, on a new figure by default."""
        from matplotlib.patches import Circle

        self.ax_ = new_axes(ax, (4.6, 4.4))
        self.figure_ = self.ax_.figure
        self.ax_.plot(self.values.real, self.values.imag, "o", color=BLUE, markersize=4, label="eigenvalues")
        for (label, radius), line in zip(self.circles.items(), ("--", ":"), strict=False):
            told = f"{label} = {radius:.3g}" if label != f"{radius:g}" else label
            self.ax_.add_patch(Circle((0, 0), radius, fill=False, ls=line, ec=GREY, lw=1.4, label=f"radius {told}"))
        if self.m is not None:
            self.ax_.axvline(self.m, color=RED, ls="-.", label=f"m = {self.m:.3g}")
        reach = 1.08 * max([*self.circles.values(), *np.abs(self.values)])
        self.ax_.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", title=self.name)
        self.ax_.set(xlabel="real part", ylabel="imaginary part")
        self.ax_.grid(alpha=0.3)
        self.ax_.legend(loc="upper left", fontsize=8)
        return self


@dataclasses.dataclass(eq=False)
class IterateDisplay:
    r"""Paths in the plane, with the set on which f is finite, certified balls and the equilibrium.

    Parameters
    ----------
    paths : dict of str to array (points, 2)
        In the order in which they were visited.
    target : array (2,), optional
        z*.
    balls : sequence of (array (2,), float)
        Centres and radii of balls that hold z*.
    activation : Activation, optional
        Where its f is finite is shaded.

    Examples
    --------
    >>> import numpy as np, implicitref as ir
    >>> W = ir.operators.MonotoneDense(np.eye(2), np.array([[0.0, 2.0], [0.0, 0.0]]), m=1.0)
    >>> solution = ir.mon.equilibrium(W, np.array([[1.0, -1.0]]), ir.activations.relu)
    >>> display = IterateDisplay.from_solution(solution)
    >>> centre, radius = display.balls[0]
    >>> bool(np.linalg.norm(display.target - centre) <= radius + 1e-6)
    True
    """

    paths: dict[str, np.ndarray]
    target: np.ndarray | None = None
    balls: Sequence[tuple[np.ndarray, float]] = ()
    activation: Any = None

    @classmethod
    def from_solution(cls, solution: Solution, sample: int = 0, balls: int = 3) -> IterateDisplay:
        r"""u and z of one sample from the start on, and the first so many certified balls [NEW-cert-C1]."""
        inclusion, alpha = _planar(solution), solution.alpha
        u = replayed(solution)
        z = [inclusion.B.prox(state, alpha) for state in u]
        found = [certificates.ball(inclusion, alpha, state) for state in u[1 : balls + 1]]
        held = [(to_numpy(centre)[sample], float(radius[sample])) for centre, radius in found]
        paths = {"u": _points(u, sample), "z": _points(z, sample)}
        return cls(paths, paths["z"][-1], held, _domain(inclusion))

    @classmethod
    def from_solutions(cls, solutions: Mapping[str, Solution], sample: int = 0) -> IterateDisplay:
        """z of one sample by each method, to the equilibrium of the last."""
        paths = {}
        for name, solution in solutions.items():
            B = _planar(solution).B
            paths[name] = _points([B.prox(u, solution.alpha) for u in replayed(solution)], sample)
        return cls(paths, [*paths.values()][-1][-1], (), _domain(solution.inclusion))

    def plot(self, ax: Any = None) -> IterateDisplay:
        """Draw on matplotlib axes, on a new figure by default."""
        self.ax_ = new_axes(ax, (5.2, 4.6))
        self.figure_ = self.ax_.figure
        self.ax_.set(aspect="equal", xlabel="$z_1$ (units of the state)", ylabel="$z_2$ (units of the state)")
        for index, (name, path) in enumerate(self.paths.items()):
            style = line_style(index, 1) | {"markevery": 1, "markerfacecolor": "white" if index else None}
            self.ax_.plot(*path.T, label=name, lw=1.3, **style)
        self._sets()
        if self.target is not None:
            self.ax_.plot(*self.target, "*", color="black", markersize=14, label="$z^*$", zorder=4)
        self.ax_.legend(loc="best", fontsize=8)
        return self

    def _sets(self) -> None:
        from matplotlib.patches import Circle

        points = np.concatenate([*self.paths.values()])
        low, high = points.min(axis=0), points.max(axis=0)
        margin = 0.15 * float(max(high - low)) + 1e-12
        self.ax_.set(xlim=(low[0] - margin, high[0] + margin), ylim=(low[1] - margin, high[1] + margin))
        for k, (centre, radius) in enumerate(self.balls):
            label = "certified balls" if k == 0 else None
            self.ax_.add_patch(Circle((centre[0], centre[1]), radius, fill=False, ec=GREY, ls="--", lw=1, label=label))
        if self.activation is not None:
            axes = [np.linspace(low, high, 400) for low, high in (self.ax_.get_xlim(), self.ax_.get_ylim())]
            finite = [np.isfinite(self.activation.value(axis)) for axis in axes]
            inside = finite[1][:, None] & finite[0]
            if not inside.all():
                self.ax_.contourf(*axes, inside.astype(float), [0.5, 1.5], colors=["#e8ecf0"], zorder=0)


def _planar(solution: Solution) -> Any:
    if tuple(solution.z.shape[1:]) != (2,):
        raise ShapeError(f"paths can be drawn in the plane only, states (batch, 2); got {tuple(solution.z.shape)}.")
    return solution.inclusion


def _points(states: list[Any], sample: int) -> np.ndarray:
    return np.stack([to_numpy(state)[sample] for state in states])


def _domain(inclusion: Any) -> Any:
    return inclusion.B if hasattr(inclusion.B, "value") else None
