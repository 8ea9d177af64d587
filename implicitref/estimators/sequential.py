"""Block-triangular implicit models, trained block by block, as scikit-learn estimators."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from .. import well_posed
from ..activations import relu
from ..arrays import Array, in_double, like, norm, to_numpy
from ..sequential import augment, greedy, partition
from ..sequential.training import FITTING, finished
from .base import CertifiedClassifier, Estimator, Regressor
from .certificates import CertifiedValues, doubts, entrywise_lipschitz, pairs, readout_rounding, together

__all__ = ["SequentialImplicitClassifier", "SequentialImplicitRegressor"]


class _Sequential(Estimator):
    """What classifier and regressor share."""

    def _grow(self, X: Array, targets: Array, loss: str, fresh: bool) -> None:
        """`sequential.fit`, but that the blocks before `refine` are kept: a warm start goes on from them."""
        # an unpickled relu is another object than the one that greedy compares with
        old: Any = None if fresh else dataclasses.replace(self._blocks, activation=relu)
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        sizes, solver = partition(self.order, self.n_blocks), FITTING[loss]
        models = greedy(X, targets, sizes, loss=loss, solver=solver, random_state=seed, start=old)
        self._blocks: Any = functools.reduce(lambda _, model: model, models, old)
        self.model_: Any = finished(self._blocks, X, targets, loss, seed)
        self.history_ = self.model_.history
        self.loss_curve_ = [record.loss for record in self.history_]
        self.n_iter_ = len(self.history_)

    def _scaled(self, X: Array) -> Array:
        scaled = super()._scaled(X)
        return augment(scaled) if self.fit_intercept else scaled

    def _learn_scale(self, X: Array, weights: np.ndarray | None) -> None:
        super()._learn_scale(X, weights)
        if not self.fit_intercept:  # nothing then stands for the origin that a centre would move
            self.scale_ = float(np.sqrt(np.mean(to_numpy(X).astype(np.float64) ** 2))) or 1.0
            self.center_ = 0 * self.center_

    def _fresh(self) -> bool:
        return not (self.warm_start and hasattr(self, "model_"))

    def _state_size(self) -> int:
        return int(self.model_.A.shape[0])

    def _solved(self, x: Array) -> tuple[Array, Array, Array]:
        # exact but for rounding, which the componentwise certificate measures
        model = in_double(self.model_)
        z = model.features(x)
        error = well_posed.bound(like(x, model.A), z, x @ like(x, model.B).T, model.activation)
        return z @ like(z, model.C).T, error, readout_rounding(z, model.C, 0.0, self._state_size())

    def _reach(self, rows: np.ndarray) -> np.ndarray:
        A, B = (to_numpy(p).astype(np.float64) for p in (self.model_.A, self.model_.B))
        return entrywise_lipschitz(A, B[:, : self.n_features_in_], rows) / self.scale_


class SequentialImplicitClassifier(CertifiedClassifier, _Sequential):
    r"""A strictly block-triangular implicit model, ``z = relu(A z + B x)``, logits C z, trained as by `sequential.fit`
    [GREEDY-Alg1].

    Parameters
    ----------
    order : int
        n, the number of states.
    n_blocks : int, 2 <= n_blocks <= order
    fit_intercept : bool
        Append a constant column to X; without one the model is positively homogeneous [GREEDY-SecV-bias].
    warm_start : bool
        Go on from the blocks that are there with those that a larger order and n_blocks add.
    random_state : int, RandomState or None

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = SequentialImplicitClassifier(order=10, n_blocks=2, random_state=0).fit(X, y)
    >>> model.score(X, y) > 0.9, bool(model.predict_with_bound(X).certain.all())
    (True, True)
    """

    def __init__(
        self,
        order: int = 100,
        n_blocks: int = 10,
        fit_intercept: bool = True,
        random_state: Any = None,
        *,
        warm_start: bool = False,
    ) -> None:
        self.order = order
        self.n_blocks = n_blocks
        self.fit_intercept = fit_intercept
        self.random_state = random_state
        self.warm_start = warm_start

    def fit(self, X: Any, y: Any) -> SequentialImplicitClassifier:
        """Train on rows X (n_samples, n_features) and labels y: block after block, then all of them together."""
        fresh = self._fresh()
        X, y, _ = self._samples(X, y, None, reset=fresh)
        labels = self._labels(y, fresh)
        if fresh:
            self._learn_scale(X, None)
        self._grow(self._scaled(X), np.eye(len(self.classes_))[labels], "cross-entropy", fresh)
        return self

    def certified_lipschitz(self) -> np.ndarray:
        """(n_classes, n_classes): how much the logit of i less that of j can change per unit of X in l2
        [GREEDY-Thm1].
        """
        return self._reach(pairs(self.model_.C)).reshape(2 * (len(self.classes_),))

    def _certified(self, X: Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        logits, error, slack = map(to_numpy, self._states(X))
        doubt = doubts(to_numpy(self.model_.C).astype(np.float64), logits, error)
        return logits, to_numpy(norm(error)), doubt + together(slack, logits)


class SequentialImplicitRegressor(Regressor, _Sequential):
    r"""The same for numbers, with the squared loss and variable projection.

    Weights are exact: ReLU being positively homogeneous, a sample of weight w is the row ``sqrt(w) [x, 1]`` with the
    target ``sqrt(w) y`` [NEW-homogeneity].

    Parameters
    ----------
    order, n_blocks, fit_intercept, random_state, warm_start
        As in `SequentialImplicitClassifier`.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.linspace(-1, 1, 100)[:, None]
    >>> model = SequentialImplicitRegressor(order=4, n_blocks=2, random_state=0).fit(X, np.abs(X[:, 0]))
    >>> model.score(X, np.abs(X[:, 0])) > 0.99, bool(model.predict_with_bound(X).error.max() < 1e-10)
    (True, True)
    """

    def __init__(
        self,
        order: int = 30,
        n_blocks: int = 10,
        fit_intercept: bool = True,
        random_state: Any = None,
        *,
        warm_start: bool = False,
    ) -> None:
        self.order = order
        self.n_blocks = n_blocks
        self.fit_intercept = fit_intercept
        self.random_state = random_state
        self.warm_start = warm_start

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SequentialImplicitRegressor:
        """Train on rows X (n_samples, n_features) and y (n_samples,) or (n_samples, n_outputs), block after block."""
        fresh = self._fresh()
        X, y, weights = self._samples(X, y, sample_weight, reset=fresh)
        if fresh:
            self._learn_scale(X, weights)
            self._learn_targets(y, weights)
        x, targets = self._scaled(X), self._targets(y, X)
        if weights is not None:
            root = like(x, np.sqrt(weights))[:, None]
            x, targets = root * x, root * targets
        self._grow(x, targets, "squared", fresh)
        return self

    def predict_with_bound(self, X: Any) -> CertifiedValues:
        """Predictions, certified ``||z - z*||_2`` (rounding only), and what rounding leaves open of the predictions."""
        X = self._rows(X)
        outputs, error, slack = self._states(X)
        off = to_numpy(error) @ np.abs(to_numpy(self.model_.C).T) + to_numpy(slack)
        values, off = self._with_error(outputs, off, X)
        return CertifiedValues(values, to_numpy(norm(error)), off)

    def certified_lipschitz(self) -> np.ndarray:
        """(n_outputs,): how much each prediction can change per unit of X in l2 [GREEDY-Thm1]."""
        return self._reach(to_numpy(self.model_.C)) * self.y_scale_

    def _learn_targets(self, y: Any, weights: np.ndarray | None) -> None:
        super()._learn_targets(y, weights)
        if not self.fit_intercept:
            self.y_center_ = 0 * self.y_center_
