"""Implicit models trained end to end as a scikit-learn estimator."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import activations
from ..arrays import Array, in_double, norm, to_numpy
from ..networks import ImplicitModel, implicit_model
from ..sequential import augment
from ..training import ImplicitRecipe, Learner
from .base import CertifiedClassifier, Trained
from .certificates import doubts, entrywise_lipschitz, pairs, readout_rounding, together
from .targets import IMPLICIT, Targets

__all__ = ["ImplicitClassifier"]

TOL = 1e-9  # certified error of every entry of the states of a prediction


class ImplicitClassifier(CertifiedClassifier, Trained):
    r"""An implicit model, ``z = phi(A z + B [x, 1])``, logits C z, trained end to end: what GREEDY compares with.

    Adam with A projected on the ball ``||A||_inf <= radius`` after every step, which keeps it well-posed
    [GREEDY-Eq4, GREEDY-Rem4].

    Parameters
    ----------
    order : int
        n, the number of states.
    activation : str or Activation
    radius : float, in (0, 1)
    max_iter, batch_size, learning_rate, weight_decay
        As in `MONClassifier`, as the next five.
    early_stopping, validation_fraction, n_iter_no_change, warm_start, random_state
    tol : float
        Certified error of every entry of the states in training.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = ImplicitClassifier(order=10, batch_size=16, random_state=0).fit(X, y)
    >>> model.score(X, y) > 0.9, bool(model.predict_with_bound(X).certain.all())
    (True, True)
    """

    def __init__(
        self,
        order: int = 87,
        *,
        activation: Any = "relu",
        radius: float = 0.95,
        max_iter: int = 25,
        batch_size: int = 64,
        learning_rate: float = 1e-2,
        weight_decay: float = 0.0,
        tol: float = 1e-3,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        warm_start: bool = False,
        random_state: Any = None,
    ) -> None:
        self.order = order
        self.activation = activation
        self.radius = radius
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.tol = tol
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> ImplicitClassifier:
        """Train on rows X (n_samples, n_features) and labels y; weights multiply the losses of the samples."""
        self._fit(X, y, sample_weight)
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> ImplicitClassifier:
        """One epoch at a constant learning rate; the first call needs all `classes` and settles the scale of X."""
        self._partial_fit(X, y, classes, sample_weight)
        return self

    def certified_lipschitz(self) -> np.ndarray:
        """(n_classes, n_classes): how much the logit of i less that of j can change per unit of X in l2
        [GREEDY-Thm1].
        """
        A, B, C = (to_numpy(p).astype(np.float64) for p in (self.network_.A, self.network_.B, self.network_.C))
        found = entrywise_lipschitz(A, B[:, :-1], pairs(C)) / self.scale_
        return found.reshape(2 * (len(self.classes_),))

    def _certified(self, X: Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        logits, error, slack = map(to_numpy, self._states(X))
        doubt = doubts(to_numpy(self.network_.C).astype(np.float64), logits, error)
        return logits, to_numpy(norm(error)), doubt + together(slack, logits)

    def _solved(self, x: Array) -> tuple[Array, Array, Array]:
        network = in_double(self.network_)
        solution = network.solve(x, tol=TOL)
        slack = readout_rounding(solution.z, network.C, 0.0, self._state_size())
        return network.readout(solution.z, x), solution.bound, slack

    def _scaled(self, X: Array) -> Array:
        return augment(super()._scaled(X))

    def _state_size(self) -> int:
        return int(self.network_.A.shape[0])

    def _initial(self, rng: np.random.Generator, features: int) -> ImplicitModel:
        phi = activations.get(self.activation) if isinstance(self.activation, str) else self.activation
        return implicit_model(rng, self.order, features + 1, len(self.classes_), activation=phi, radius=self.radius)

    def _recipe(self, epochs: int, batch: int, schedule: str) -> ImplicitRecipe:
        fixed = epochs, batch, self.learning_rate, schedule, self.weight_decay
        return ImplicitRecipe("cross-entropy", *fixed, tol=self.tol)

    def _learner(self, recipe: ImplicitRecipe) -> Learner:
        return IMPLICIT

    def _encoded(self, X: Array, y: Any, weights: np.ndarray | None, fresh: bool) -> Targets:
        return Targets(self._labels(y, fresh), weights)
