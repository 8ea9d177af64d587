r"""Solvers of the subproblem (7): Adam, L-BFGS, Algorithm 2, and variable projection, which the paper does not have.

Each takes a `Problem` and random numbers and returns V and C. Searches begin at C_i = 0, that is, at the loss of the
blocks before, and return the best that they met.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..activations import relu
from ..arrays import eps, positive
from ..errors import HypothesisError
from ..optimisers import adam_init, adam_step
from .least_squares import least_squares
from .problem import Problem, Solved, extended, hyperplanes, start, value, value_and_gradients

__all__ = ["SOLVERS", "Solver", "adam", "alternating", "alternation", "lbfgs", "variable_projection"]

Solver = Callable[[Problem, np.random.Generator], Solved]
SAMPLES = 10_000  # from which principal directions are estimated
FLOOR = 0.1  # of their mean size: the smallest are not blown up to unit size
CONVERGED = 1e-4  # the improvement that `patience` waits for, that of scikit-learn's multilayer perceptron


# ------------------------------------------------------------------------------------------------
# local search (Remark 2)


def adam(
    problem: Problem,
    rng: np.random.Generator,
    *,
    epochs: int = 20,
    batch: int | None = 256,
    learning_rate: float = 5e-3,
    final_rate: float | None = 1e-5,
    components: int | None = 100,
    patience: int | None = None,
) -> Solved:
    r"""Adam on V and C together [GREEDY-Rem2]; the best of the iterates at the ends of the epochs.

    Parameters
    ----------
    problem : Problem
    rng : numpy.random.Generator
    epochs : int, >= 1
    batch : int >= 1, or None for all samples at once
    learning_rate, final_rate : float
        The rate falls linearly from the first to the second; None: it stays.
    components : int, optional
        Where x has more columns, B_i is sought in the span of so many principal directions of x, each scaled to unit
        size: a preconditioner, and a fraction of the work. None: as it is.
    patience : int, optional
        Stop after so many epochs in which the loss of all samples did not fall by 1e-4.
    """
    before, p = problem.C.shape[1], problem.u.shape[1] - problem.C.shape[1]
    if components is None or p <= components:
        return _adam(problem, rng, epochs, batch, (learning_rate, final_rate), patience)
    E = principal(problem.u[:, before:], components, rng)
    seen = problem._replace(u=np.concatenate([problem.z, problem.u[:, before:] @ E], axis=1))
    found = _adam(seen, rng, epochs, batch, (learning_rate, final_rate), patience)
    return found._replace(V=np.concatenate([found.V[:, :before], found.V[:, before:] @ E.T], axis=1))


def principal(x: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """E (p, count): columns of x E are principal components of x, of about unit size; from some of the samples."""
    x = x[rng.permutation(len(x))[:SAMPLES]]
    values, vectors = np.linalg.eigh((x.T @ x).astype(np.float64) / len(x))
    values, vectors = values[-count:], vectors[:, -count:]
    return np.asarray(vectors / np.sqrt(values + FLOOR * np.mean(values)), dtype=x.dtype)


def _adam(
    problem: Problem,
    rng: np.random.Generator,
    epochs: int,
    batch: int | None,
    rates: tuple[float, float | None],
    patience: int | None,
) -> Solved:
    m = problem.u.shape[0]
    pieces = 1 if batch is None else math.ceil(m / batch)
    best, state = start(problem, rng), None
    now, lowest, stale = best, value(problem, best), 0
    for epoch in range(epochs):
        order = rng.permutation(m)
        for k in range(pieces):
            part = problem if batch is None else problem.rows(order[k * batch : (k + 1) * batch])
            now, state = _adam_step(part, now, state, falling(*rates, (epoch + k / pieces) / epochs))
        loss = value(problem, now)
        stale = 0 if loss < lowest - CONVERGED else stale + 1
        best, lowest = (now, loss) if loss <= lowest else (best, lowest)
        if stale == patience:
            break
    return best


def _adam_step(problem: Problem, now: Solved, state: Any, rate: float) -> tuple[Solved, Any]:
    _, grads = value_and_gradients(problem, now)
    params = now._asdict()
    params, state = adam_step(params, grads._asdict(), state or adam_init(params), rate)
    return Solved(**params), state


def falling(first: float, last: float | None, done: float) -> float:
    """The rate when a part `done` of all steps is done: linear from the first to the last, or the first."""
    return first if last is None else first + (last - first) * done


def lbfgs(problem: Problem, rng: np.random.Generator, *, starts: int = 3, max_iter: int = 200) -> Solved:
    """L-BFGS on V and C together with all samples at once, the best of several starts [GREEDY-Rem2]."""
    found = [start(problem, rng) for _ in range(starts)]
    return min((_joint(problem, s, max_iter) for s in found), key=lambda solved: value(problem, solved))


def _joint(problem: Problem, first: Solved, max_iter: int) -> Solved:
    cut, shapes = first.V.size, (first.V.shape, first.C.shape)

    def unpacked(flat: np.ndarray) -> Solved:
        flat = flat.astype(problem.u.dtype)
        return Solved(flat[:cut].reshape(shapes[0]), flat[cut:].reshape(shapes[1]))

    def function(flat: np.ndarray) -> tuple[float, np.ndarray]:
        loss, grads = value_and_gradients(problem, unpacked(flat))
        return loss, np.concatenate([grads.V.ravel(), grads.C.ravel()])

    flat = minimised(function, np.concatenate([first.V.ravel(), first.C.ravel()]), max_iter)
    return accepted(problem, first, unpacked(flat))


def minimised(function: Callable[[np.ndarray], tuple[float, np.ndarray]], at: np.ndarray, steps: int) -> np.ndarray:
    """What SciPy's L-BFGS reaches in so many steps."""
    import scipy.optimize

    def double(flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = function(flat)
        return value, gradient.astype(np.float64)

    search: Any = scipy.optimize.minimize
    options = {"maxiter": steps, "ftol": 1e-9, "gtol": 1e-9}
    found = search(double, at.astype(np.float64), jac=True, method="L-BFGS-B", options=options)
    return np.asarray(found.x)


def accepted(problem: Problem, old: Solved, new: Solved, rounding: float = 0.0) -> Solved:
    """`new` where its loss is not larger, but for relative rounding, else `old`."""
    return new if value(problem, new) <= value(problem, old) * (1 + rounding) else old


# ------------------------------------------------------------------------------------------------
# Algorithm 2


def alternating(problem: Problem, rng: np.random.Generator, *, rounds: int = 10, steps: int = 20) -> Solved:
    """The last iterate of `alternation` [GREEDY-Alg2]."""
    solved = start(problem, rng)
    for solved in alternation(problem, rng, rounds=rounds, steps=steps):  # noqa: B007
        pass
    return solved


def alternation(problem: Problem, rng: np.random.Generator, *, rounds: int = 10, steps: int = 20) -> Iterator[Solved]:
    r"""Algorithm 2: least squares for C (11), then the shallow problem for V (12), one after the other [GREEDY-Alg2].

    Only steps that do not raise the loss are accepted, and the last is a least squares. (11) is solved exactly; (12),
    which has bad local minima whatever the paper says, by `steps` steps of L-BFGS. Units that are off on every sample
    have no gradient: they are drawn anew.

    Yields
    ------
    Solved
        After every half-step.

    Raises
    ------
    HypothesisError
        The loss is not the squared one [GREEDY-Asm4].
    """
    _squared("Algorithm 2", problem)
    now = start(problem, rng)
    for _ in range(rounds):
        now = _least_squares_step(problem, now)
        yield now
        now = accepted(problem, now, _revived(problem, now, rng))
        now = accepted(problem, now, _shallow_step(problem, now, steps))
        yield now
    yield _least_squares_step(problem, now)


def _least_squares_step(problem: Problem, now: Solved) -> Solved:
    """(11): C for these V. A minimum whose value is only known to rounding."""
    z = readable(problem, now.V)
    return accepted(problem, now, now._replace(C=least_squares(z, problem.target)), 64 * eps(z))


def readable(problem: Problem, V: np.ndarray) -> np.ndarray:
    """The features [phi(V u), z] that C reads, those that are nothing but the rounding of V u replaced by zero.

    A unit that begins to bend at the outermost sample is on by 1e-17 there, or not: C would be 1e17.
    """
    z = extended(problem.u, V, problem.activation)[:, : problem.units + problem.C.shape[1]]
    noise = V.shape[1] * eps(z) * np.linalg.norm(problem.u, axis=1).max() * np.linalg.norm(V, axis=1).max()
    return np.where(np.abs(z).max(axis=0) > noise, z, 0)


def _shallow_step(problem: Problem, now: Solved, steps: int) -> Solved:
    """(12): V for this C; the targets less what the blocks before say are fixed."""
    n = problem.units
    rest = problem.target - problem.z @ now.C[:, n:].T
    shallow = problem._replace(target=rest, C=now.C[:, :0])  # block i still sees the features before
    own = now.C[:, :n]

    def function(flat: np.ndarray) -> tuple[float, np.ndarray]:
        loss, grads = value_and_gradients(shallow, Solved(flat.reshape(now.V.shape).astype(own.dtype), own))
        return loss, grads.V.ravel()

    return now._replace(V=minimised(function, now.V.ravel(), steps).reshape(now.V.shape).astype(own.dtype))


def dead(problem: Problem, V: np.ndarray) -> np.ndarray:
    """Which units have slope zero on every sample: no gradient will ever move them."""
    return np.asarray(~np.any(problem.activation.derivative(problem.u @ V.T) > 0, axis=0))


def _revived(problem: Problem, now: Solved, rng: np.random.Generator) -> Solved:
    off = dead(problem, now.V)
    if not off.any():
        return now
    C = now.C.copy()
    C[:, : problem.units][:, off] = 0
    return Solved(np.where(off[:, None], hyperplanes(problem, rng, problem.units), now.V), C)


# ------------------------------------------------------------------------------------------------
# variable projection


def variable_projection(
    problem: Problem, rng: np.random.Generator, *, starts: int = 3, ridge: float = 3e-4, max_iter: int = 50
) -> Solved:
    r"""L-BFGS on V alone, C eliminated by least squares; the best of several starts.

    Minimises ``||Y - Y^||_F^2/(2m) + rho/2 (||C||_F^2 + ||V||_F^2)`` over V with C the best for every V. The penalty,
    a convex P as in (4), keeps units from fitting jumps between two samples; rho is `ridge` times the root mean square
    of the targets, and weights of x are counted in units of the root mean square of its columns, so that neither the
    units of x nor those of y matter.

    Parameters
    ----------
    problem : Problem, of the squared loss
    rng : numpy.random.Generator
    starts, max_iter : int, >= 1
    ridge : float, > 0

    Raises
    ------
    HypothesisError
    """
    _squared("variable projection", problem)
    reduced = Eliminated(problem, positive("ridge", ridge))
    points = [hyperplanes(problem, rng, problem.units) * reduced.scale for _ in range(starts)]
    tried = [minimised(reduced.value_and_gradient, W.ravel(), max_iter) for W in points]
    best = min([np.zeros_like(tried[0]), *tried], key=lambda flat: reduced.value_and_gradient(flat)[0])
    return reduced.solved(best)


class Eliminated:
    r"""The loss of a subproblem as a function of V alone, C being the best for that V.

    With F the features so far and ``K = I - F (F'F + lam)^-1 F'`` the least squares for C_i alone has the normal
    equations ``(Z'KZ + lam) C_i' = Z'K y``, Z = z_i. Costs O(m (n_1 + ... + n_{i-1}) n_i) an evaluation.
    """

    def __init__(self, problem: Problem, ridge: float) -> None:
        self.problem, y = problem, problem.target.astype(np.float64)
        m, before = y.shape[0], problem.C.shape[1]
        self.scale = _scale(problem.u, before)
        self.lam = ridge * m * (math.sqrt(np.mean(y * y)) or 1.0)
        self.u = problem.u / self.scale
        self.ut = np.ascontiguousarray(self.u.T)
        self.Q = _range(problem.z, self.lam)
        self.y = y - self.Q @ (self.Q.T @ y)
        self.base = float(np.vdot(y, self.y))

    # J(V) = min_C j(V, C) has the gradient of j for V at the minimising C, the rest of the chain rule being times
    # dj/dC = 0: no derivative of a projection is needed, Kaufman's or the full one.
    # j = (||y - F C_F' - Z C_i'||^2 + lam ||C||^2 + lam ||W||^2)/2m, r = K (Z C_i' - y), dZ = r C_i, dW = (dZ phi')'u.

    def value_and_gradient(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        """J and its gradient; `flat` is V in units of `scale`."""
        W, act, m = flat.reshape(self.problem.units, -1), self.problem.activation, len(self.u)
        pre = W @ self.ut
        Z = act(pre)
        KZ = Z - (Z @ self.Q) @ self.Q.T
        gram, right = Z @ KZ.T, Z @ self.y
        gram.flat[:: len(gram) + 1] += self.lam
        Ct = np.linalg.solve(gram, right)
        r = KZ.T @ Ct - self.y
        value = self.base - np.vdot(Ct, right) + self.lam * np.vdot(flat, flat)
        dpre = (Ct @ r.T) * (pre > 0 if act is relu else act.derivative(pre))
        return float(value) / (2 * m), (dpre @ self.u + self.lam * W).ravel() / m

    def solved(self, flat: np.ndarray) -> Solved:
        """V and the C that goes with it."""
        problem, dtype = self.problem, self.problem.u.dtype
        V = (flat.reshape(problem.units, -1) / self.scale).astype(dtype)
        z = extended(problem.u, V, problem.activation)[:, : problem.units + problem.C.shape[1]]
        return Solved(V, least_squares(z, problem.target, self.lam))


def _scale(u: np.ndarray, before: int) -> np.ndarray:
    """1 for the features, whose size the penalty keeps in order; the root mean square for the columns of x."""
    size = np.sqrt(np.mean(np.square(u, dtype=np.float64), axis=0))
    return np.where((np.arange(u.shape[1]) < before) | (size == 0), 1.0, size)


def _range(F: np.ndarray, lam: float) -> np.ndarray:
    """Q with ``Q Q' = F (F'F + lam)^-1 F'``."""
    if not F.size:
        return np.zeros((F.shape[0], 0))
    P, s, _ = np.linalg.svd(F.astype(np.float64), full_matrices=False)
    return np.asarray(P * (s / np.sqrt(s * s + lam)))


def _squared(what: str, problem: Problem) -> None:
    if problem.loss != "squared":
        raise HypothesisError(
            f"{what} needs the squared loss (8) [GREEDY-Asm4]; got {problem.loss!r}. Use adam or l-bfgs."
        )


SOLVERS: dict[str, Solver] = {
    "variable-projection": variable_projection,
    "alternating": alternating,
    "l-bfgs": lbfgs,
    "adam": adam,
    # enough where `refine` follows
    "adam-brief": functools.partial(adam, epochs=5, batch=512, learning_rate=7e-3, components=64),
    # the paper's optimiser and rate on its interpolation tasks; it does not say for how long: 2000 steps give its 0.29
    "adam-paper": functools.partial(
        adam, epochs=2000, batch=None, learning_rate=1e-2, final_rate=None, components=None
    ),
}
