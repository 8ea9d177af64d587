r"""Run an iteration until every sample has stopped by itself. Stopping, history and failure live here only.

A sample that has stopped is frozen at its own iterate, and left out of the batch when a quarter has stopped: no
sample's answer depends on its batch mates, and none is computed for nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, eps, like, namespace, norm, quiet, to_numpy
from ..errors import ConvergenceError

__all__ = ["Log", "Method", "Run", "Solution", "drive", "over", "solution_of", "verdict"]


@dataclasses.dataclass(frozen=True, eq=False)
class Solution:
    r"""What an iteration found.

    Attributes
    ----------
    z : array (batch, ...)
        For every sample the iterate at which it stopped.
    iterations : int
        Applications of T: of the sample that took most.
    steps : integer array (batch,)
        Those of every sample, on the host.
    residuals : array (iterations, batch)
        ``||T(z_k) - z_k||_2``; a sample that has stopped keeps its last one.
    bound : array (batch,)
        Proven ``||z - z*||_2 <= r/(1 - gamma)``, up to the rounding of T; NaN where no gamma is known
        [NEW-cert-F1].
    estimate : array (batch,)
        An estimate of ``||z - z*||_2``, no bound: r times the stretch ``||dz||/||df||`` of the last step, which is
        ``1/|1 - lambda|`` once one eigenvalue rules; NaN after a single iteration.
    ratio : array (batch,)
        Measured: geometric mean of the last residual ratios (at most ten).
    converged : boolean array (batch,)
    reason : str
    gamma : float or None
        What the bound rests on.
    states : list of array, or None
        z of the whole batch after every iteration, with keep=True.
    """

    z: Array
    iterations: int
    steps: np.ndarray
    residuals: Array = dataclasses.field(repr=False)
    bound: Array
    estimate: Array
    ratio: Array
    converged: Array
    reason: str
    gamma: float | None
    states: list[Array] | None = dataclasses.field(default=None, repr=False)


class Method(NamedTuple):
    """An iteration on states whose leaves all have the batch axis first; `residual` measures one, (batch,)."""

    prepare: Callable[[Any], Any]  # data -> F
    start: Callable[[Any, Array], Any]  # F, z -> state
    step: Callable[[Any, Any], Any]  # F, state -> state
    residual: Callable[[Any], Array]
    norm: Callable[[Array], Array] = norm  # of every sample of z


def over(mask: Array, z: Array) -> Array:
    """One number a sample, shaped to multiply or to mask a batch of states like z."""
    return namespace(z).reshape(mask, (z.shape[0],) + (1,) * (z.ndim - 1))


class Run(NamedTuple):
    """What the driver hands back: the answers, what was measured, and every state if asked for."""

    z: Array
    sizes: np.ndarray
    stretch: np.ndarray
    log: Log
    states: list[Array] | None


def drive(method: Method, data: Any, z: Array, limit: np.ndarray, max_iter: int, keep: bool = False) -> Run:
    """Run a method until every sample's residual is at most its limit, or nothing more is to be hoped for."""
    log, states = Log(limit), []
    with quiet():
        pool = _Pool(method, data, z)
        while True:
            log.add(pool.index, to_numpy(method.residual(pool.state)))
            pool.freeze(log.alive)
            if keep:
                states.append(pool.answer)
            if not log.alive.any() or log.count == max_iter or log.stalled(pool.sizes, eps(z)):
                break
            if not keep:
                pool.shrink(log.alive)
            pool.advance()
        answer, stretch = pool.collect()
        return Run(answer, to_numpy(norm(answer)), stretch, log, states if keep else None)


class _Pool:
    """The samples still at work, and the answers of those that are done."""

    def __init__(self, method: Method, data: Any, z: Array) -> None:
        self.method, self.data, self.F = method, data, method.prepare(data)
        self.state = self.previous = method.start(self.F, z)
        self.index, self.frozen = np.arange(z.shape[0]), np.zeros(z.shape[0], dtype=bool)
        self.answer, self.stretch = z, np.full(z.shape[0], math.nan)
        self.done: list[tuple[np.ndarray, Array, np.ndarray]] = []

    def advance(self) -> None:
        self.previous, self.state = self.state, self.method.step(self.F, self.state)

    def sizes(self) -> np.ndarray:
        return to_numpy(self.method.norm(self.state.z))

    def freeze(self, alive: np.ndarray) -> None:
        # `answer` follows the samples at work and stays behind with those that have stopped
        moving, xp = ~self.frozen, namespace(self.answer)
        if moving.all():
            self.answer = self.state.z
        else:
            self.answer = xp.where(over(_mask(self.answer, moving), self.answer), self.state.z, self.answer)
        self.frozen = ~alive[self.index]
        if (stopped := moving & self.frozen).any():
            self.stretch = np.where(stopped, self._stretch(), self.stretch)

    def _stretch(self) -> np.ndarray:
        if self.previous is self.state or not hasattr(self.state, "Tz"):
            return np.full(self.index.shape, math.nan)
        moved = self.state.z - self.previous.z
        lengths = norm(moved), norm(self.state.Tz - self.previous.Tz - moved)
        return np.asarray(to_numpy(lengths[0]) / to_numpy(lengths[1]))

    def shrink(self, alive: np.ndarray) -> None:
        here = alive[self.index]
        if here.sum() > 0.75 * here.size:
            return
        self.done.append((self.index[~here], _rows(self.answer, ~here), self.stretch[~here]))
        self.index, self.frozen, self.stretch = self.index[here], self.frozen[here], self.stretch[here]
        self.answer, self.data = _rows(self.answer, here), _rows(self.data, here)
        self.state, self.F = _rows(self.state, here), self.method.prepare(self.data)

    def collect(self) -> tuple[Array, np.ndarray]:
        unsolved = np.where(self.frozen, self.stretch, self._stretch())
        parts = [*self.done, (self.index, self.answer, unsolved)]
        order = np.argsort(np.concatenate([part[0] for part in parts]))
        xp = namespace(self.answer)
        answers = xp.concat([part[1] for part in parts], axis=0)
        if len(parts) > 1:  # back into the order of the batch
            answers = xp.take(answers, xp.argsort(like(answers, np.argsort(order).astype(float))), axis=0)
        return answers, np.concatenate([part[2] for part in parts])[order]


def _mask(z: Array, mask: np.ndarray) -> Array:
    return like(z, mask.astype(np.float64)) > 0.5  # a boolean array on the device of z


def _rows(value: Any, mask: np.ndarray) -> Any:
    """The samples that the mask names, of an array or of a tuple of arrays."""
    if isinstance(value, tuple):
        parts = [_rows(part, mask) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if type(value) is np.ndarray:
        return value[mask]
    xp = namespace(value)
    return xp.take(value, xp.nonzero(_mask_beside(value, mask))[0], axis=0)


def _mask_beside(value: Array, mask: np.ndarray) -> Array:
    xp = namespace(value)
    if xp.isdtype(value.dtype, "real floating"):
        return _mask(value, mask)
    return xp.asarray(mask, device=value.device)


class Log:
    """Residuals of all samples, on the host, and what they say: who is done, who diverges, who has met the floor."""

    PATIENCE, GROWTH = 20, 1e16

    def __init__(self, limit: np.ndarray) -> None:
        size = limit.size
        self.limit, self.rows, self.alive = limit, list[np.ndarray](), np.ones(size, dtype=bool)
        self.steps, self.shortest = np.zeros(size, dtype=np.int64), np.full(size, math.inf)
        self.reached, self.ending = np.zeros(size, dtype=np.int64), "iterations"

    @property
    def count(self) -> int:
        """Iterations so far."""
        return len(self.rows)

    @property
    def last(self) -> np.ndarray:
        """The last residual of every sample."""
        return self.rows[-1]

    def add(self, index: np.ndarray, measured: np.ndarray) -> None:
        """One more iteration: the residuals of the samples `index`, of which some may have stopped."""
        row = self.last.copy() if self.rows else np.full(self.limit.size, math.nan)
        working = index[self.alive[index]]
        row[working] = measured[self.alive[index]]
        self.rows.append(row)
        self.steps[working] = self.count
        better = row < 0.9 * self.shortest
        self.shortest, self.reached = np.where(better, row, self.shortest), np.where(better, self.count, self.reached)
        bounded = row <= self.GROWTH * np.where(self.rows[0] > 0, self.rows[0], 1.0)  # False for NaN
        self.alive &= ~(row <= self.limit) & bounded
        if not bounded.all():
            self.ending = "diverged"

    def stalled(self, sizes: Callable[[], np.ndarray], eps: float) -> bool:
        """No sample at work gets nearer, and all are down to rounding."""
        if (self.count - self.reached[self.alive] < max(self.PATIENCE, self.count / 4)).any():
            return False
        if self.last[self.alive].max() > 64 * eps * max(sizes().max(), 1e-300):
            return False
        self.ending = "floor"
        return True

    def ratio(self) -> np.ndarray:
        """Geometric mean of the last (at most ten) ratios of successive residuals of every sample."""
        rows, last = np.stack(self.rows), self.steps - 1
        back = np.maximum(last - 10, 0)
        columns = np.arange(rows.shape[1])
        with np.errstate(all="ignore"):
            quotient = rows[last, columns] / rows[back, columns]
            return np.where(last > back, quotient ** (1 / np.maximum(last - back, 1)), math.nan)

    def breach(self, gamma: float, noise: np.ndarray) -> float | None:
        """A ratio of successive residuals above gamma, which no gamma-contraction has; None where there is none."""
        rows = np.stack(self.rows)
        if len(rows) < 2:
            return None
        before, after = rows[:-1], rows[1:]
        moving = np.arange(1, len(rows))[:, None] < self.steps
        with np.errstate(all="ignore"):
            ratios = np.where(moving & (before > noise), after / before, 0.0)
        worst = float(ratios.max())
        return worst if worst > gamma + 1e-3 else None


def solution_of(run: Run, gamma: float | None) -> Solution:
    """The record of a run."""
    log, z = run.log, run.z
    bound = log.last / (1 - gamma) if gamma is not None else np.full_like(log.last, math.nan)
    first = like(z, log.last)
    solved = log.last <= log.limit
    return Solution(
        z=z,
        iterations=log.count,
        steps=log.steps,
        residuals=like(z, np.stack(log.rows)),
        bound=like(z, bound) * (1 + eps(z)),
        estimate=like(z, np.where(log.last > 0, log.last * run.stretch, 0.0)),
        ratio=like(z, log.ratio()),
        converged=_mask(first, solved),
        reason=f"residual {np.max(log.last):.2g} after {log.count} iterations",
        gamma=gamma,
        states=run.states,
    )


def verdict(solution: Solution, run: Run, tol: float, method: str) -> Solution:
    """The solution if every sample has converged; ConvergenceError, with cause and remedy, otherwise."""
    log = run.log
    if not (failed := ~(log.last <= log.limit)).any():
        return solution
    cause = f"{_cause(solution, log, failed, tol, method)} {_remedy(solution, log, failed, method)}"
    raise ConvergenceError(cause, dataclasses.replace(solution, reason=cause))


def _cause(solution: Solution, log: Log, failed: np.ndarray, tol: float, method: str) -> str:
    who, worst = f"{int(failed.sum())} of {failed.size} samples", float(np.max(np.where(failed, log.last, 0.0)))
    if log.ending == "floor":
        floor = f"{method} reached the floor of {solution.z.dtype} for {who}"
        return f"{floor}: the residual stays at {worst:.2g}, tol = {tol:.2g}."
    if not math.isfinite(worst) or log.ending == "diverged":
        return f"{method} diverged: {who} overflowed or grew without end, in {int(log.steps[failed].max())} iterations."
    left = f"{method} left {who} above tol = {tol:.2g} after max_iter = {log.count} iterations"
    return f"{left}; the residual is {worst:.2g}."


def _remedy(solution: Solution, log: Log, failed: np.ndarray, method: str) -> str:
    ratios = to_numpy(solution.ratio)[failed]
    known = ratios[np.isfinite(ratios)]
    ratio = float(known.max()) if known.size else math.inf
    if log.ending == "floor":
        wider = ", or pass float64 arrays" if eps(solution.z) > 1e-8 else ""
        return f"Ask for a larger tol{wider}."
    if ratio < 0.999:
        more = math.ceil(math.log(float(np.max(log.last[failed] / log.limit[failed]))) / -math.log(ratio))
        faster = "" if method == "Anderson" else ", or use acceleration='anderson'"
        return f"The measured ratio is {ratio:.3f}: about {more} more iterations would do; raise max_iter{faster}."
    return (
        f"The measured ratio of residuals is {ratio:.3g}: T is no contraction there [JFB-Asm2.1]. Scale its weights "
        "down (theory.rescaled), or, where the network is a MON, use its forward-backward or Peaceman-Rachford step "
        "as T [JFB-Sec1-mon-case]."
    )
