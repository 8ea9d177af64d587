"""Monotone operator equilibrium networks as scikit-learn estimators."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import activations
from ..arrays import Array, largest, namespace, norm, to_numpy
from ..errors import HypothesisError
from ..networks import MonNetwork, mon_conv, mon_fc, mon_multitier
from ..training import Learner
from .base import CertifiedClassifier, Regressor, Trained, image_of
from .certificates import CertifiedValues, input_lipschitz, pairs, readout_rounding, state_lengths, together
from .targets import MonRecipe, Targets, mon_learner, settled

__all__ = ["MONClassifier", "MONRegressor"]

HIDDEN: dict[str, Any] = {"dense": 87, "conv": 16, "multitier": (8, 16)}
ACCURACY = 1e-9  # certified error of the states of a prediction, relative to the injection where that is large


class _Mon(Trained):
    """What classifier and regressor share."""

    def _initial(self, rng: np.random.Generator, features: int) -> MonNetwork:
        if self.operator not in HIDDEN:
            raise HypothesisError(f"operator must be one of {', '.join(HIDDEN)}; got {self.operator!r}.")
        hidden = HIDDEN[self.operator] if self.hidden is None else self.hidden
        activation = activations.get(self.activation) if isinstance(self.activation, str) else self.activation
        further = hidden, self._outputs(), self.m, activation, np.float64
        if self.operator == "dense":
            return mon_fc(rng, features, *further)
        make = mon_conv if self.operator == "conv" else mon_multitier
        return make(rng, image_of(self.image_shape, features), *further)

    def _recipe(self, epochs: int, batch: int, schedule: str) -> MonRecipe:
        fixed = epochs, batch, self.learning_rate, schedule, self.weight_decay, self.tol
        return MonRecipe(*fixed, method=self.method, rule=self.rule, loss=self._loss)

    def _learner(self, recipe: MonRecipe) -> Learner:
        return mon_learner(recipe)

    def _state_size(self) -> int:
        return math.prod(self.network_.W.state_shape)

    def _solved(self, x: Array) -> tuple[Array, Array, Array]:
        network = self.network_
        x = namespace(x).reshape(x, (-1, *network.input_shape))
        tol = ACCURACY * max(1.0, largest(norm(network.inject(x))))
        solution = settled(network, x, self.method, tol)
        size = network.ends.features(network.W, namespace(x).abs(solution.z))
        slack = readout_rounding(size, network.readout_weight, network.readout_bias, self._state_size())
        return network.readout(solution.z), solution.bound, slack

    def _lipschitz(self, rows: Array) -> np.ndarray:
        return input_lipschitz(self.network_, rows) / self.scale_


class MONClassifier(CertifiedClassifier, _Mon):
    r"""A monotone operator equilibrium network, ``z* = sigma(W z* + U x + b)``, I - W >= m I, and a linear readout
    [MON-Eq1, MON-Thm1].

    Parameters
    ----------
    operator : {"dense", "conv", "multitier"}
        W as a matrix, a circular convolution on images, or a pyramid of them [MON-Prop1, MON-TabD1].
    hidden : int or tuple, optional
        States (dense, 87), channels (conv, 16), channels of every tier (multitier, (8, 16)).
    image_shape : (height, width) or (channels, height, width), optional
        Of the flat rows of X, for the two on images; a grey square by default.
    activation : str or Activation
    m : float, > 0
        Strong monotonicity: the equilibrium moves at most 1/m times as far as its injection.
    method : {"peaceman-rachford", "forward-backward", "douglas-rachford"}
    rule : {"implicit", "jfb", "neumann:k"}
        The gradient: exact, without the Jacobian, or with k terms of its Neumann series [MON-Thm3, JFB-Eq16].
    max_iter : int
        Epochs, of one cycle of the learning rate; with early stopping it is constant.
    batch_size, learning_rate, weight_decay
        Of Adam, the decay decoupled.
    tol : float
        Certified error of the states in training.
    early_stopping, validation_fraction, n_iter_no_change
        Stop once so many epochs bring no better score on held-out samples; keep the best.
    warm_start : bool
    random_state : int, RandomState or None

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = MONClassifier(hidden=10, batch_size=16, random_state=0).fit(X, y)
    >>> found, radius = model.predict_with_bound(X), model.certified_radius(X)
    >>> model.score(X, y) > 0.9, bool(found.bound.max() < 1e-7), bool(radius.max() > 0.1)
    (True, True, True)
    """

    _loss = "cross-entropy"

    def __init__(
        self,
        operator: str = "dense",
        *,
        hidden: Any = None,
        image_shape: Any = None,
        activation: Any = "relu",
        m: float = 1.0,
        method: str = "peaceman-rachford",
        rule: str = "implicit",
        max_iter: int = 25,
        batch_size: int = 64,
        learning_rate: float = 1e-2,
        weight_decay: float = 0.1,
        tol: float = 1e-2,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        warm_start: bool = False,
        random_state: Any = None,
    ) -> None:
        self.operator = operator
        self.hidden = hidden
        self.image_shape = image_shape
        self.activation = activation
        self.m = m
        self.method = method
        self.rule = rule
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

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MONClassifier:
        """Train on rows X (n_samples, n_features) and labels y; weights multiply the losses of the samples."""
        self._fit(X, y, sample_weight)
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> MONClassifier:
        """One epoch at a constant learning rate; the first call needs all `classes` and settles the scale of X."""
        self._partial_fit(X, y, classes, sample_weight)
        return self

    def certified_lipschitz(self) -> np.ndarray:
        """(n_classes, n_classes): how much the logit of i less that of j can change per unit of X in l2
        [NEW-sensitivity].
        """
        return self._lipschitz(pairs(self.network_.readout_weight)).reshape(2 * (len(self.classes_),))

    def _certified(self, X: Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        logits, bound, slack = map(to_numpy, self._states(X))
        lengths = state_lengths(self.network_, pairs(self.network_.readout_weight)).reshape(2 * (len(self.classes_),))
        return logits, bound, lengths[logits.argmax(axis=1)] * bound[:, None] + together(slack, logits)

    def _outputs(self) -> int:
        return len(self.classes_)

    def _encoded(self, X: Array, y: Any, weights: np.ndarray | None, fresh: bool) -> Targets:
        return Targets(self._labels(y, fresh), weights)


class MONRegressor(Regressor, _Mon):
    r"""The same network for numbers, trained on half the squared error of targets that are centred and scaled.

    Parameters
    ----------
    operator, hidden, image_shape, activation, m, method, rule, max_iter, batch_size, learning_rate, weight_decay, tol
        As in `MONClassifier`, as the rest.
    early_stopping, validation_fraction, n_iter_no_change, warm_start, random_state

    Examples
    --------
    >>> import numpy as np
    >>> X = np.linspace(-1, 1, 100)[:, None]
    >>> model = MONRegressor(hidden=10, max_iter=100, random_state=0).fit(X, np.abs(X[:, 0]))
    >>> model.score(X, np.abs(X[:, 0])) > 0.95, bool(model.predict_with_bound(X).error.max() < 1e-8)
    (True, True)
    """

    _loss = "squared"

    def __init__(
        self,
        operator: str = "dense",
        *,
        hidden: Any = None,
        image_shape: Any = None,
        activation: Any = "relu",
        m: float = 1.0,
        method: str = "peaceman-rachford",
        rule: str = "implicit",
        max_iter: int = 50,
        batch_size: int = 64,
        learning_rate: float = 1e-2,
        weight_decay: float = 0.01,
        tol: float = 1e-2,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        warm_start: bool = False,
        random_state: Any = None,
    ) -> None:
        self.operator = operator
        self.hidden = hidden
        self.image_shape = image_shape
        self.activation = activation
        self.m = m
        self.method = method
        self.rule = rule
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

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MONRegressor:
        """Train on rows X (n_samples, n_features) and y (n_samples,) or (n_samples, n_outputs)."""
        self._fit(X, y, sample_weight)
        return self

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> MONRegressor:
        """One epoch at a constant learning rate; the first call settles the scales of X and y."""
        self._partial_fit(X, y, None, sample_weight)
        return self

    def predict_with_bound(self, X: Any) -> CertifiedValues:
        """Predictions, certified ``||z - z*||_2``, and what it and rounding leave open of the predictions."""
        X = self._rows(X)
        outputs, bound, slack = self._states(X)
        off = to_numpy(bound)[:, None] * state_lengths(self.network_, self.network_.readout_weight) + to_numpy(slack)
        values, error = self._with_error(outputs, off, X)
        return CertifiedValues(values, to_numpy(bound), error)

    def certified_lipschitz(self) -> np.ndarray:
        """(n_outputs,): how much each prediction can change per unit of X in l2 [NEW-sensitivity]."""
        return self._lipschitz(self.network_.readout_weight) * self.y_scale_

    def _outputs(self) -> int:
        return int(self.n_outputs_)

    def _encoded(self, X: Array, y: Any, weights: np.ndarray | None, fresh: bool) -> Targets:
        if fresh or not hasattr(self, "y_scale_"):
            self._learn_targets(y, weights)
        return Targets(self._targets(y, X), weights)
