r"""Algorithm 1 of JFB and FPN with Anderson acceleration beside it, sample by sample, to a certificate or a residual.

A method is a state and two functions, ``start(F, z)`` and ``step(F, state)`` with ``F(z) = T(z; x)``: that is the
algorithm. `iterate` drives it: a sample stops by its own residual and is left out of what follows, so that no
sample's answer depends on its batch mates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, checked, count, eps, eye, is_array, namespace, norm, positive, zeros
from ..errors import ConvergenceError, HypothesisError, ShapeError
from .driver import Method, Solution, drive, over, solution_of, verdict
from .maps import at, contraction

__all__ = ["AndersonState", "State", "anderson_steps", "iterate", "picard_steps"]


class State(NamedTuple):
    """One iterate and its image; ``Tz - z`` is its residual."""

    z: Array
    Tz: Array


def _picard_start(F: Callable[[Array], Array], z: Array) -> State:
    return State(z, F(z))


def _picard_step(F: Callable[[Array], Array], state: State) -> State:
    return State(state.Tz, F(state.Tz))


class AndersonState(NamedTuple):
    """An iterate, its image, the last differences of residuals and of images, newest first, (batch, n) each, the inner
    products of the former (batch, window, window), and for how many steps a sample does without acceleration.
    """

    z: Array
    Tz: Array
    dF: tuple[Array, ...]
    dT: tuple[Array, ...]
    gram: Array
    wait: Array
    penalty: Array


WINDOW, PROGRESS = 8, 0.999


def _anderson_start(F: Callable[[Array], Array], z: Array) -> AndersonState:
    none, one = (zeros((z.shape[0], math.prod(z.shape[1:])), z),) * WINDOW, zeros((z.shape[0],), z) + 1
    return AndersonState(z, F(z), none, none, zeros((z.shape[0], WINDOW, WINDOW), z), one, one)


def _anderson_step(F: Callable[[Array], Array], s: AndersonState) -> AndersonState:
    # z+ = T(z) - sum_i theta_i dT_i, theta = argmin ||f - sum_i theta_i df_i||, f = T(z) - z. A step that does not
    # shorten f is undone and its history dropped; then come 1, 2, 4, ... Picard steps: nothing is lost but trials.
    xp = namespace(s.z)
    f, plain = _flat(s.Tz - s.z), s.wait > 0
    theta = xp.where(plain[:, None], zeros((), f), _least_squares(s.gram, _products(s.dF, f)))
    z = s.Tz - xp.reshape(_combine(theta, s.dT), s.z.shape)
    Tz = F(z)
    f_next = _flat(Tz - z)
    good = plain | (norm(f_next) <= PROGRESS * norm(f))
    dF, dT = (f_next - f, *s.dF[:-1]), (_flat(Tz - s.Tz), *s.dT[:-1])
    gram = _bordered(_products(dF, dF[0]), s.gram)
    wait, penalty = s.wait - xp.astype(plain, s.wait.dtype), s.penalty
    if not bool(xp.all(good)):
        z, Tz, gram = _where(good, (z, Tz, gram), (s.z, s.Tz))
        dF, dT = _where(good, dF, ()), _where(good, dT, ())
        wait, penalty = _where(good, (wait, penalty), (penalty, 2 * penalty))
    return AndersonState(z, Tz, dF, dT, gram, wait, penalty)


def _where(good: Array, new: tuple[Array, ...], old: tuple[Array, ...]) -> tuple[Array, ...]:
    """The new arrays for the samples that are good, for the others the old ones, or 0 where there are none."""
    xp, others = namespace(good), [*old, *(zeros((), array) for array in new[len(old) :])]
    return tuple(xp.where(over(good, a), a, b) for a, b in zip(new, others, strict=True))


def _least_squares(gram: Array, rhs: Array) -> Array:
    # Normal equations of the unit directions, with a ridge: a smaller one buys no iterations and amplifies rounding,
    # so that an answer would depend on the batch it was computed in. It also serves directions that are still zero.
    xp = namespace(gram)
    length = xp.sqrt(xp.linalg.diagonal(gram))
    length = xp.where(length > 0, length, xp.ones_like(length))
    scaled = gram / (length[:, :, None] * length[:, None, :]) + eps(gram) ** 0.5 * eye(gram.shape[1], gram)
    return xp.linalg.solve(scaled, (rhs / length)[:, :, None])[:, :, 0] / length


def _products(directions: tuple[Array, ...], f: Array) -> Array:
    xp = namespace(f)
    return xp.stack([xp.vecdot(d, f) for d in directions], axis=1)


def _combine(theta: Array, directions: tuple[Array, ...]) -> Array:
    total = theta[:, :1] * directions[0]
    for i, direction in enumerate(directions[1:], 1):
        total = total + theta[:, i : i + 1] * direction
    return total


def _bordered(row: Array, gram: Array) -> Array:
    """The Gram matrix with a new first direction, whose products are `row`, and without the last."""
    xp = namespace(row)
    rest = xp.concat([row[:, 1:, None], gram[:, :-1, :-1]], axis=2)
    return xp.concat([row[:, None, :], rest], axis=1)


def _flat(z: Array) -> Array:
    return namespace(z).reshape(z, (z.shape[0], math.prod(z.shape[1:])))


_METHODS: dict[str | None, tuple[Any, Any]] = {
    None: (_picard_start, _picard_step),
    "anderson": (_anderson_start, _anderson_step),
}


def picard_steps(T: Any, x: Any, z: Array) -> Iterator[State]:
    r"""``z+ = T(z; x)``: Algorithm 1 without its stopping rule [JFB-Alg1, JFB-Eq10].

    Examples
    --------
    >>> import numpy as np
    >>> from implicitref.fixed_point import Map
    >>> T = Map(lambda z, x: z / 2 + x, lambda z, x, g: g / 2, lambda z, x, g: {})
    >>> steps = picard_steps(T, np.array([[1.0]]), np.array([[0.0]]))
    >>> [float(next(steps).z[0, 0]) for _ in range(4)]
    [0.0, 1.0, 1.5, 1.75]
    """
    return _steps(None, T, x, z)


def anderson_steps(T: Any, x: Any, z: Array) -> Iterator[AndersonState]:
    r"""Anderson acceleration with window 8, a safeguard and restarts, for every sample by itself.

    One application of T a step. A step that lengthens the residual is undone, its history is dropped, and Picard
    steps follow, twice as many after every failure: where acceleration does not help, this is Picard's iteration.
    """
    return _steps("anderson", T, x, z)


def _steps(name: str | None, T: Any, x: Any, z: Array) -> Iterator[Any]:
    (start, step), F = _METHODS[name], at(T, x)
    state = start(F, z)
    while True:
        yield state
        state = step(F, state)


def iterate(
    T: Any,
    x: Any,
    z: Array,
    *,
    tol: float = 1e-6,
    max_iter: int = 1000,
    acceleration: str | None = None,
    gamma: float | None = None,
    keep: bool = False,
) -> Solution:
    r"""The fixed point ``z* = T(z*; x)`` of every sample [JFB-Alg1, JFB-Thm2.1].

    Parameters
    ----------
    T : fixed-point map, see `implicitref.fixed_point.maps`
    x : array (batch, ...), or a tuple of such
    z : array (batch, ...)
        Where to start.
    tol : float, > 0
        Without gamma a sample stops at its own ``||T(z) - z||_2 <= tol``; with it at the proven distance
        ``||z - z*||_2 <= ||T(z) - z||_2/(1 - gamma) <= tol`` [NEW-cert-F1].
    max_iter : int, >= 1
        Applications of T.
    acceleration : {None, "anderson"}
    gamma : float in [0, 1), optional
        A proven contraction factor [JFB-Asm2.1]; by default ``T.gamma`` where T has one.
    keep : bool
        Keep every iterate.

    Raises
    ------
    TypeError, ShapeError, HypothesisError
    ConvergenceError
        The iteration diverged, ran out of iterations, met the floor of the dtype, or showed gamma to be wrong.

    Examples
    --------
    >>> import numpy as np, implicitref as ir
    >>> one = np.array([[1.0]])
    >>> T = ir.fixed_point.OneLayer(one / 2, one, one[0], ir.activations.relu)
    >>> solution = iterate(T, one, 0 * one, tol=1e-3)
    >>> solution.iterations, abs(solution.z[0, 0] - 4) <= solution.bound[0] <= 1e-3
    (13, np.True_)
    """
    z, gamma, max_iter = checked("z", z), contraction(T, gamma), count("max_iter", max_iter)
    start, step = _acceleration(acceleration)
    _check_batch(x, z)
    limit = np.full(z.shape[0], positive("tol", tol) * (1 - (gamma or 0.0)))
    length = getattr(T, "norm", norm)
    method = Method(
        lambda data: at(T, data),
        lambda F, z: _shaped(start(F, z)),
        step,
        lambda state: length(state.Tz - state.z),
        length,
    )
    run = drive(method, x, z, limit, max_iter, keep)
    if (
        gamma is not None
        and acceleration is None
        and (seen := run.log.breach(gamma, 1e4 * eps(z) * (1 + run.sizes))) is not None
    ):
        raise ConvergenceError(_wrong_gamma(gamma, seen), solution_of(run, None))
    return verdict(solution_of(run, gamma), run, tol, "Picard" if acceleration is None else "Anderson")


def _acceleration(name: Any) -> tuple[Any, Any]:
    if (name is not None and not isinstance(name, str)) or name not in _METHODS:
        raise HypothesisError(f"acceleration must be None or 'anderson'; got {name!r}.")
    return _METHODS[name]


def _check_batch(x: Any, z: Array) -> None:
    if z.ndim < 2 or z.shape[0] == 0:
        raise ShapeError(f"z must have shape (batch, ...) with batch >= 1; got {tuple(z.shape)}. Use z[None] for one.")
    for part in _leaves(x):
        if not is_array(part):
            raise TypeError(f"x must be an array, or a tuple of arrays; got {type(part).__name__}.")
        if part.ndim < 1 or part.shape[0] != z.shape[0]:
            raise ShapeError(
                f"x and z must hold the same number of samples; got {tuple(part.shape)}, {tuple(z.shape)}."
            )


def _leaves(x: Any) -> Iterator[Any]:
    if isinstance(x, tuple):
        for part in x:
            yield from _leaves(part)
    else:
        yield x


def _shaped(state: Any) -> Any:
    wanted, found = tuple(state.z.shape), tuple(state.Tz.shape)
    if found != wanted:
        raise ShapeError(f"T(z; x) must have the shape of z, {wanted}; got {found} [JFB-Eq6].")
    return state


def _wrong_gamma(gamma: float, seen: float) -> str:
    return (
        f"T is no {gamma:.4g}-contraction: a residual was {seen:.4g} times the one before it [JFB-Asm2.1]. A bound "
        "from this gamma would be false. Leave gamma out (errors are then estimates), or scale the weights of T down "
        "(theory.rescaled)."
    )
