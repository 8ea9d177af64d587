r"""What estimators hand to the training loop: targets with weights, and learners that know them.

The loop draws rows of inputs and targets and asks a `Learner` for a gradient; `networks.MonNetwork` knows the mean
cross-entropy only. Here stand weighted losses, the squared loss, and rules that leave the Jacobian out.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np

from .. import mon
from ..arrays import Array, largest, like, norm, to_numpy
from ..errors import HypothesisError
from ..fixed_point import rule_named
from ..fixed_point.maps import Jacobian
from ..layers import affine, affine_vjp
from ..losses import count_correct, loss_named
from ..networks import MonNetwork
from ..splitting import Solution, rates
from ..training import ImplicitRecipe, Learner, Recipe, State, Step
from ..training.implicit import recorded

__all__ = ["IMPLICIT", "MonRecipe", "Targets", "mon_learner", "score", "weighted"]


@dataclasses.dataclass(frozen=True, eq=False)
class Targets:
    """Targets, rows of numbers or labels, and a weight for each, of mean 1, or None; indexed together."""

    values: Array
    weights: Array | None = None

    def __getitem__(self, rows: Any) -> Targets:
        return Targets(self.values[rows], None if self.weights is None else self.weights[rows])

    def __len__(self) -> int:
        return int(self.values.shape[0])


def weighted(loss: str, prediction: Array, targets: Targets) -> tuple[float, Array]:
    r"""``sum_i w_i l_i / batch`` and its gradient at `prediction`, l_i the loss of sample i.

    Examples
    --------
    >>> import numpy as np
    >>> targets = Targets(np.array([[0.0], [0.0]]), np.array([2.0, 0.0]))
    >>> weighted("squared", np.array([[1.0], [5.0]]), targets)
    (0.5, array([[1.],
           [0.]]))
    """
    function, values = loss_named(loss), targets.values
    value, gradient = function(prediction, values)
    if targets.weights is None:
        return value, gradient
    rows = range(len(targets))
    each = [function(prediction[i : i + 1, ...], values[i : i + 1])[0] for i in rows]
    weights = to_numpy(targets.weights)
    return float(weights @ each) / max(1, len(targets)), gradient * like(gradient, weights)[:, None]


def score(loss: str, prediction: Array, targets: Targets) -> float:
    """Weighted accuracy for labels, the coefficient of determination for numbers, of which the constant mean has 0."""
    values, found = to_numpy(targets.values), to_numpy(prediction)
    weights = np.ones(len(values)) if targets.weights is None else to_numpy(targets.weights)
    if not len(values):
        return float("nan")
    if loss == "cross-entropy":
        return float(np.average(found.argmax(axis=1) == values, weights=weights))
    spread = weights @ (values - np.average(values, axis=0, weights=weights)) ** 2
    left = weights @ (values - found) ** 2
    return float(np.mean(1 - left / np.where(spread > 0, spread, 1.0)))


# ------------------------------------------------------------------------------------------------
# monotone operator networks


@dataclasses.dataclass(frozen=True)
class MonRecipe(Recipe):
    """A `training.Recipe` with the splitting, the gradient rule and the loss of an estimator."""

    method: str = "peaceman-rachford"
    rule: str = "implicit"
    loss: str = "cross-entropy"


class _Linearised(NamedTuple):
    """``T(z) = sigma(W z + x)`` around z, as the gradient rules see it: K = J W."""

    W: Any
    jac: Array

    def linearise(self, z: Array, x: Any) -> Jacobian:
        return Jacobian(lambda v: self.jac * self.W.matvec(v), lambda g: self.W.rmatvec(self.jac * g))


def cotangent(W: Any, jac: Array, dz: Array, recipe: MonRecipe, alpha: float) -> tuple[Array, int]:
    """The gradient at the pre-activation, and how many iterations it took.

    "implicit" solves Theorem 3 to ``tol max_i ||dz_i||``; "jfb" and "neumann:k" are J times their w [MON-Thm3,
    JFB-Eq16, JFB-Eq22].
    """
    if recipe.rule == "implicit":
        tol = recipe.tol * largest(norm(dz)) or recipe.tol
        found = mon.adjoint(W, jac, dz, method=recipe.method, alpha=alpha, tol=tol)
        return found.z, found.iterations
    return jac * rule_named(recipe.rule)(_Linearised(W, jac), dz, None, dz), 0


def mon_learner(recipe: MonRecipe) -> Learner:
    """Of monotone operator networks, by that recipe's loss and rule."""
    head, _, tail = recipe.rule.partition(":")
    if recipe.rule not in ("implicit", "jfb") and not (head == "neumann" and tail.isdecimal()):
        raise HypothesisError(f"rule must be implicit, jfb or neumann:k, k >= 0 [JFB-Eq22]; got {recipe.rule!r}.")
    return Learner(_mon_gradients, _mon_score)


def settled(network: MonNetwork, x: Array, method: str, tol: float, alpha: float | None = None) -> Solution:
    """The equilibria of inputs, started where the iteration is shortest."""
    alpha = rates.best_alpha(network.W, method) if alpha is None else alpha
    injection = network.inject(x)
    start = network.start(injection, alpha)
    return mon.equilibrium(network.W, injection, network.activation, method=method, alpha=alpha, tol=tol, start=start)


def _mon_gradients(
    state: State, x: Array, targets: Targets, recipe: MonRecipe
) -> tuple[dict[str, Array], Step, dict[str, Array]]:
    # the chain rule, last layer first: logits = W_o features(z) + b_o, z = sigma(W z + U x + b)
    network: MonNetwork = state.network
    W, ends = network.W, network.ends
    alpha = state.steps[-1].alpha if state.steps else rates.best_alpha(W, recipe.method)  # once an epoch
    assert alpha is not None
    forward = settled(network, x, recipe.method, recipe.tol, alpha)
    features = ends.features(W, forward.z)
    prediction = affine(features, network.readout_weight, network.readout_bias)
    loss, dprediction = weighted(recipe.loss, prediction, targets)
    dfeatures, dweight, dbias = affine_vjp(features, network.readout_weight, dprediction)
    jac = network.activation.derivative(network.activation.root(forward.u, forward.alpha))
    dpre, steps = cotangent(W, jac, ends.features_vjp(W, dfeatures), recipe, alpha)
    dU, db = ends.inject_vjp_params(W, x, dpre)
    grads = {"U": dU, "b": db, "readout_weight": dweight, "readout_bias": dbias}
    error, right = largest(forward.bound), _right(recipe.loss, prediction, targets)
    step = Step(len(state.steps), loss, x.shape[0], right, forward.iterations, steps, error, alpha, 0.0)
    return grads | flat(W.vjp(forward.z, dpre)), step, {}


def flat(grads: dict[str, Any]) -> dict[str, Array]:
    """Lists of gradients entry by entry, as ``name.i``: the names of `MonNetwork.params`."""
    found: dict[str, Array] = {}
    for name, value in grads.items():
        found |= {f"{name}.{i}": g for i, g in enumerate(value)} if isinstance(value, list) else {name: value}
    return found


def _right(loss: str, prediction: Array, targets: Targets) -> Any:
    return count_correct(prediction, targets.values) if loss == "cross-entropy" else float("nan")


def _mon_score(state: State, data: Any, recipe: MonRecipe) -> float:
    if not len(data.y_test):
        return float("nan")
    x = data.x_test.reshape(-1, *state.network.input_shape)
    solution = settled(state.network, x, recipe.method, recipe.tol)
    return score(recipe.loss, state.network.readout(solution.z), data.y_test)


# ------------------------------------------------------------------------------------------------
# implicit models


def _implicit_gradients(
    state: State, x: Array, targets: Targets, recipe: ImplicitRecipe
) -> tuple[dict[str, Array], Step, dict[str, Array]]:
    loss = functools.partial(weighted, recipe.loss)
    found = state.network.gradients(x, targets, loss, tol=recipe.tol, max_iter=recipe.max_iter)
    return found.grads, recorded(state, x, found, _right(recipe.loss, found.prediction, targets)), {}


def _implicit_score(state: State, data: Any, recipe: ImplicitRecipe) -> float:
    if not len(data.y_test):
        return float("nan")
    prediction = state.network.predict(data.x_test, tol=recipe.tol, max_iter=recipe.max_iter)
    return score(recipe.loss, prediction, data.y_test)


IMPLICIT = Learner(_implicit_gradients, _implicit_score)
