"""What the estimators share: checked and scaled inputs, classes and targets, training by the loop of `training`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils._array_api import get_namespace
from sklearn.utils.multiclass import _check_partial_fit_first_call, check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, has_fit_parameter, validate_data

from ..arrays import Array, eps, from_numpy, in_double, like, namespace, quiet, to_numpy
from ..errors import HypothesisError
from ..training import Samples, State, start, train
from .certificates import CertifiedClasses, lead, radius

__all__ = ["CertifiedClassifier", "Estimator", "Regressor", "Trained"]

ENTRIES = 2**22  # of the states that are solved together in a prediction


class Estimator(BaseEstimator):
    """Inputs: rows of numbers, centred by column and divided by one number for all of them.

    ``(x - center_)/scale_``, with scale_ the root mean square of the standard deviations of the columns: neither the
    origin nor the unit of the whole matters, while the ratios of the columns stay the user's, and Euclidean balls
    stay balls. Columns of different units want a StandardScaler in front.
    """

    def _rows(self, X: Any) -> Array:
        """The inputs of a prediction, as they came."""
        check_is_fitted(self)
        return validate_data(self, X, dtype=floats(X), reset=False)

    def _samples(self, X: Any, y: Any, sample_weight: Any, reset: bool) -> tuple[Array, Any, np.ndarray | None]:
        """X, y and weights of mean 1, or None where all are equal; samples without weight are left out."""
        numeric = isinstance(self, RegressorMixin)
        options = {"dtype": floats(X), "ensure_min_samples": 2, "reset": reset}
        X, y = validate_data(self, X, y, multi_output=numeric, y_numeric=numeric, **options)
        if not has_fit_parameter(self, "sample_weight"):
            return X, y, None
        if sample_weight is None:
            return merged(X, y, None)
        weights = to_numpy(_check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True))
        kept = np.flatnonzero(weights)
        if kept.size < 2:
            raise HypothesisError(f"sample_weight must be > 0 for at least 2 samples; it is for {kept.size}.")
        return merged(X[kept, ...], y[kept], weights[kept])

    def _learn_scale(self, X: Array, weights: np.ndarray | None) -> None:
        """Set `center_` and `scale_`."""
        host = to_numpy(X).astype(np.float64)
        center = np.average(host, axis=0, weights=weights)
        spread = float(np.sqrt(np.average(np.mean((host - center) ** 2, axis=1), weights=weights)))
        constant = spread <= 8 * eps(host) * np.abs(host).max()  # but for the rounding of the mean
        self.center_, self.scale_ = from_numpy(center, X), 1.0 if constant else spread

    def _scaled(self, X: Array) -> Array:
        return (X - like(X, self.center_)) / self.scale_

    def _states(self, X: Array) -> tuple[Array, Array, Array]:
        """What `_solved` says of the scaled inputs in float64, as many at a time as their states fit into memory:
        outputs, bounds of the states, and by how much the readout may have rounded the outputs."""
        step = max(1, ENTRIES // self._state_size())
        found = [self._solved(self._scaled(in_double(X[i : i + step, ...]))) for i in range(0, X.shape[0], step)]
        outputs, bounds, slack = (namespace(X).concat(list(column)) for column in zip(*found, strict=True))
        return outputs, bounds, slack

    def _logits(self, X: Array) -> Array:
        return self._states(X)[0]


class Classifier(ClassifierMixin, Estimator):
    """Labels, decisions and probabilities from `_logits`."""

    def _labels(self, y: Any, fresh: bool) -> np.ndarray:
        """Numbers 0, 1, ... for classes; `classes_` is set where the training is a fresh one."""
        y = to_numpy(y)
        check_classification_targets(y)
        found = np.unique(y)
        if fresh:
            self.classes_ = found
        unknown = np.setdiff1d(found, self.classes_)
        if unknown.size:
            raise HypothesisError(f"y must hold classes seen before, {self.classes_}; got {unknown} as well.")
        return np.asarray(np.searchsorted(self.classes_, y))

    def decision_function(self, X: Any) -> Array:
        """Logits (n_samples, n_classes); for two classes the second's less the first's, (n_samples,)."""
        X = self._rows(X)
        logits = like(X, self._logits(X))
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: Any) -> Array:
        """Softmax of the logits: (n_samples, n_classes)."""
        X = self._rows(X)
        logits, xp = self._logits(X), namespace(X)
        powers = xp.exp(logits - xp.max(logits, axis=1, keepdims=True))
        return like(X, powers / xp.sum(powers, axis=1, keepdims=True))

    def predict_log_proba(self, X: Any) -> Array:
        """Logarithms of the same: (n_samples, n_classes)."""
        probabilities = self.predict_proba(X)
        with quiet():  # the logarithm of what underflowed
            return namespace(probabilities).log(probabilities)

    def predict(self, X: Any) -> Array:
        """The class with the largest logit: (n_samples,)."""
        X = self._rows(X)
        return self._named(self._logits(X), X)

    def _named(self, logits: Array, X: Array) -> Array:
        named = self.classes_[to_numpy(logits).argmax(axis=1)]
        return (
            named
            if type(X) is np.ndarray or named.dtype.kind not in "iuf"
            else namespace(X).asarray(named, device=X.device)
        )


class CertifiedClassifier(Classifier):
    """Predictions with certificates.

    From `_certified`: logits, bounds on states, and how far each margin of the largest logit may be off; and from
    `certified_lipschitz`.
    """

    def predict_with_bound(self, X: Any) -> CertifiedClasses:
        """Predictions, certified ``||z - z*||_2``, and whether the exact state has the same class."""
        X = self._rows(X)
        logits, bound, doubt = self._certified(X)
        return CertifiedClasses(self._named(logits, X), bound, np.all(lead(logits, doubt) > 0, axis=1))

    def certified_radius(self, X: Any) -> np.ndarray:
        r"""The l2 distance, in the units of X, within which no input has another class: (n_samples,).

        The margin over each other class, less what the solve may be off, over its Lipschitz constant. 0 where the class
        is not certain, inf where there is one class [NEW-sensitivity].
        """
        logits, _, doubt = self._certified(self._rows(X))
        return radius(logits, doubt, self.certified_lipschitz())


class Regressor(RegressorMixin, Estimator):
    """Targets, (n_samples,) or (n_samples, n_outputs), centred and divided by their standard deviations."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _learn_targets(self, y: Any, weights: np.ndarray | None) -> None:
        """Set `y_center_`, `y_scale_`, `n_outputs_`."""
        host = to_numpy(y).astype(np.float64)
        center = np.average(host, axis=0, weights=weights)
        spread = np.sqrt(np.average((host - center) ** 2, axis=0, weights=weights))
        self.y_center_, self.y_scale_ = center, np.where(spread > 0, spread, 1.0)
        self.n_outputs_ = 1 if host.ndim == 1 else host.shape[1]

    def _targets(self, y: Any, X: Array) -> Array:
        """(n_samples, n_outputs), scaled, like X."""
        host = (to_numpy(y) - self.y_center_) / self.y_scale_
        if host.ndim == 1:
            host = host[:, None]
        if host.shape[1] != self.n_outputs_:
            raise HypothesisError(f"y must have {self.n_outputs_} columns as before; got {host.shape[1]}.")
        return from_numpy(host, X)

    def _values(self, outputs: Array, X: Array) -> Array:
        """Predictions in the units of y, (n_samples,) where y was."""
        values = outputs * like(outputs, self.y_scale_) + like(outputs, self.y_center_)
        return like(X, values[:, 0] if np.ndim(self.y_center_) == 0 else values)

    def _with_error(self, outputs: Array, off: np.ndarray, X: Array) -> tuple[Array, np.ndarray]:
        """Predictions, and how far they may be off where the outputs are `off`: rounding to the dtype of X included."""
        values = self._values(outputs, X)
        size = np.abs(to_numpy(outputs)) * self.y_scale_ + np.abs(self.y_center_)
        error = off * self.y_scale_ + (2 * eps(outputs) + eps(values)) * size
        return values, error[:, 0] if np.ndim(self.y_center_) == 0 else error

    def predict(self, X: Any) -> Array:
        """The prediction: (n_samples,), or (n_samples, n_outputs) where y had columns."""
        X = self._rows(X)
        return self._values(self._logits(X), X)


class Trained(Estimator):
    """`fit`, `partial_fit`, warm starts and early stopping of networks that `training.train` trains.

    A subclass makes the network (`_initial`), the recipe (`_recipe`) and the learner (`_learner`), encodes targets
    (`_encoded`) and gives logits.
    """

    def _fit(self, X: Any, y: Any, sample_weight: Any = None) -> None:
        fresh = not (self.warm_start and hasattr(self, "network_"))
        X, y, weights = self._samples(X, y, sample_weight, reset=fresh)
        targets = self._encoded(X, y, weights, fresh)
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        rng = np.random.default_rng(seed)
        if fresh:
            self._learn_scale(X, weights)
        data = self._split(X, targets, seed)
        network = self._first(X, rng) if fresh else self.network_
        schedule = "constant" if self.early_stopping else "one-cycle"  # which has to know where it ends
        recipe = self._recipe(self.max_iter, min(self.batch_size, len(data.y_train)), schedule)
        past = () if fresh else self.history_
        state = self._trained(start(network, rng), data, recipe)
        self._settle(state, (*past, *state.history))

    def _partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> None:
        fresh = not hasattr(self, "network_")
        if isinstance(self, ClassifierMixin):
            _check_partial_fit_first_call(self, classes)
        X, y, weights = self._samples(X, y, sample_weight, reset=fresh)
        targets = self._encoded(X, y, weights, fresh and not hasattr(self, "classes_"))
        if fresh:
            self._learn_scale(X, weights)
            rng = np.random.default_rng(check_random_state(self.random_state).randint(2**31 - 1))
            self._state = start(self._first(X, rng), rng)
        past = () if fresh else self.history_
        data = self._split(X, targets, None)
        recipe = self._recipe(len(self._state.history) + 1, min(self.batch_size, len(data.y_train)), "constant")
        (state,) = train(self._state, data, recipe, learner=self._learner(recipe))
        self._settle(state, (*past, state.history[-1]))

    def _first(self, X: Array, rng: np.random.Generator) -> Any:
        network = self._initial(rng, int(X.shape[1]))
        arrays = {**network.params, **getattr(network, "buffers", {})}
        return network.replace(**{name: like(X, p) for name, p in arrays.items()})

    def _split(self, X: Array, targets: Any, seed: int | None) -> Samples:
        """Samples to train on, and those of early stopping."""
        X, none = self._scaled(X), slice(0, 0)
        if seed is None or not self.early_stopping:
            return Samples(X, targets, X[none, ...], targets[none])
        labels = getattr(targets, "values", targets) if isinstance(self, ClassifierMixin) else None
        rows = np.arange(X.shape[0])
        options = {"test_size": self.validation_fraction, "random_state": seed, "stratify": labels}
        kept, held = train_test_split(rows, **options)
        return Samples(X[kept, ...], targets[kept], X[held, ...], targets[held])

    def _trained(self, state: State, data: Samples, recipe: Any) -> State:
        """The last state, or under early stopping the best on the samples held out, with the history of all."""
        states, found = train(state, data, recipe, learner=self._learner(recipe)), state
        best, waited = -math.inf, 0
        for state in states:
            if not self.early_stopping:
                continue
            score = state.history[-1].test_accuracy
            waited = 0 if score > best else waited + 1
            if score > best:
                best, found = score, state
            if waited == self.n_iter_no_change:
                break
        if not self.early_stopping:
            return state
        self.best_validation_score_ = best
        return State(found.network, found.optimiser, found.rng, state.history)

    def _settle(self, state: State, history: tuple[Any, ...]) -> None:
        self._state, self.network_, self.history_ = state, state.network, history
        self.n_iter_ = len(history)
        self.loss_curve_ = [record.loss for record in history]
        self.certificate_curve_ = [record.certified_error for record in history]
        if self.early_stopping:
            self.validation_scores_ = [record.test_accuracy for record in history]


def floats(X: Any) -> list[Any]:
    """The dtypes that are kept, of the library whose arrays scikit-learn hands on: NumPy where it dispatches none."""
    xp, _ = get_namespace(X)
    return [xp.float64, xp.float32]


def merged(X: Array, y: Any, weights: np.ndarray | None) -> tuple[Array, Any, np.ndarray | None]:
    """Equal samples as one with the sum of their weights: a weight of two is a sample that is there twice, exactly.

    Where no two are equal and all weigh the same, the samples in their order.
    """
    labels = to_numpy(y)
    codes = np.unique(labels, axis=0 if labels.ndim == 2 else None, return_inverse=True)[1]
    rows = np.column_stack([to_numpy(X), codes])
    if (weights is None or np.ptp(weights) == 0) and len({row.tobytes() for row in rows}) == len(rows):
        return X, y, None
    _, first, place = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    total = np.bincount(place.ravel(), weights)
    return X[first, ...], y[first], None if np.ptp(total) == 0 else total / total.mean()


def image_of(image_shape: Any, features: int) -> tuple[int, int, int]:
    """(channels, height, width) of rows of so many numbers: as given, with two sides grey, by default a square."""
    side = math.isqrt(features)
    shape = (side, side) if image_shape is None else tuple(image_shape)
    shape = (1, *shape) if len(shape) == 2 else shape
    if len(shape) != 3 or math.prod(shape) != features:
        wanted = "image_shape=(height, width) or (channels, height, width)"
        raise HypothesisError(f"X has {features} columns, which are no image of shape {shape}. Give {wanted}.")
    return shape
