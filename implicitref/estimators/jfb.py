"""Fixed point networks trained by Jacobian-free backpropagation as a scikit-learn estimator."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..arrays import Array, all_finite, namespace, to_numpy
from ..errors import ConvergenceError, HypothesisError
from ..fixed_point.theory import spectral_norm
from ..layers import Affine
from ..networks import FixedPointNetwork, fpn_mnist_dense, jfb_mnist
from ..training import FixedPointRecipe, Learner
from ..training.jfb import LEARNER
from .base import CertifiedClassifier, Trained, image_of
from .certificates import pairs, readout_rounding, together, upwards

__all__ = ["JFBClassifier"]

TOL, CAP = 1e-9, 1000  # of the residual in predictions, and the applications of T that they may take


class JFBClassifier(CertifiedClassifier, Trained):
    r"""A fixed point network, ``z* = T(z*; x)``, trained without its Jacobian [FPN-Alg1, JFB-Eq16].

    Parameters
    ----------
    operator : {"dense", "conv"}
        "dense": ``T = gamma relu(W (z + Q(x)))`` with ``||W||_2 <= 1``, a proven contraction. "conv": the convolutional
        network of the papers, of which none is proven: its states have no bound, and no class is certain.
    hidden, latent : int
        Units of Q and of the state; for "dense".
    image_shape : (height, width) or (channels, height, width), optional
        For "conv"; a grey square by default.
    gamma : float, in (0, 1)
    rule : {"jfb", "neumann:k", "implicit"}
    max_iter, batch_size, learning_rate, weight_decay
        As in `MONClassifier`, as the next five.
    early_stopping, validation_fraction, n_iter_no_change, warm_start, random_state
    tol : float
        In training: ``||T(z) - z||_2 <= tol sqrt(batch)``.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = JFBClassifier(hidden=10, latent=10, batch_size=16, random_state=0).fit(X, y)
    >>> model.score(X, y) > 0.9, bool(model.predict_with_bound(X).certain.all())
    (True, True)
    """

    def __init__(
        self,
        operator: str = "dense",
        *,
        hidden: int = 95,
        latent: int = 58,
        image_shape: Any = None,
        gamma: float = 0.5,
        rule: str = "jfb",
        max_iter: int = 25,
        batch_size: int = 64,
        learning_rate: float = 1e-2,
        weight_decay: float = 0.0,
        tol: float = 1e-2,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        warm_start: bool = False,
        random_state: Any = None,
    ) -> None:
        self.operator = operator
        self.hidden = hidden
        self.latent = latent
        self.image_shape = image_shape
        self.gamma = gamma
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

    def fit(self, X: Any, y: Any) -> JFBClassifier:
        """Train on rows X (n_samples, n_features) and labels y."""
        self._fit(X, y)
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> JFBClassifier:
        """One epoch at a constant learning rate; the first call needs all `classes` and settles the scale of X."""
        self._partial_fit(X, y, classes)
        return self

    def certified_lipschitz(self) -> np.ndarray:
        r"""(n_classes, n_classes): how much the logit of i less that of j can change per unit of X in l2.

        ``||dz|| <= g (||dz|| + ||dv||)`` gives ``||dz|| <= g/(1 - g) ||dv||``, v = Q(x) [FPN-Asm2.1].
        """
        g = self.network_.latent.gamma
        if g is None:
            return self._margins()
        data = [spectral_norm(layer.weight) for layer in self.network_.Q.layers.values() if isinstance(layer, Affine)]
        slopes: np.ndarray = self._margins() * (g / (1 - g)) * math.prod(data) / self.scale_
        return slopes

    def _margins(self) -> np.ndarray:
        """Norms of the margins as functions of the state; inf where no bound is proven."""
        if self.network_.latent.gamma is None:
            return np.full(2 * (len(self.classes_),), math.inf)
        (readout,) = self.network_.S.layers.values()
        lengths = upwards(np.linalg.norm(pairs(readout.weight), axis=1), self._state_size())
        return lengths.reshape(2 * (len(self.classes_),))

    def _certified(self, X: Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        logits, bound, slack = map(to_numpy, self._states(X))
        return logits, bound, self._margins()[logits.argmax(axis=1)] * bound[:, None] + together(slack, logits)

    def _state_size(self) -> int:
        return math.prod(self.network_.state)

    def _solved(self, x: Array) -> tuple[Array, Array, Array]:
        network, xp = self.network_, namespace(x)
        try:
            solution = network.solve(xp.reshape(x, (-1, *network.image)), tol=TOL, max_iter=CAP)
        except ConvergenceError as error:  # nothing makes the convolutional map a contraction: its last iterate
            solution = error.solution
            if network.latent.gamma is not None or not all_finite(solution.z):
                raise
        bound = solution.bound
        logits, bound = network.S(solution.z), xp.where(xp.isnan(bound), xp.full_like(bound, math.inf), bound)
        if network.latent.gamma is None:
            return logits, bound, xp.full_like(logits, math.inf)
        (readout,) = network.S.layers.values()
        return logits, bound, readout_rounding(solution.z, readout.weight, 0.0, self._state_size())

    def _initial(self, rng: np.random.Generator, features: int) -> FixedPointNetwork:
        if self.operator == "conv":
            image = image_of(self.image_shape, features)
            return jfb_mnist(rng, image, len(self.classes_), gamma=self.gamma, dtype=np.float64)
        if self.operator != "dense":
            raise HypothesisError(f"operator must be dense or conv; got {self.operator!r}.")
        image, classes = (1, 1, features), len(self.classes_)
        return fpn_mnist_dense(
            rng, image, classes, hidden=self.hidden, latent=self.latent, gamma=self.gamma, dtype=np.float64
        )

    def _recipe(self, epochs: int, batch: int, schedule: str) -> FixedPointRecipe:
        fixed = epochs, batch, self.learning_rate, schedule, self.weight_decay
        return FixedPointRecipe(*fixed, tol=self.tol, rule=self.rule)

    def _learner(self, recipe: FixedPointRecipe) -> Learner:
        return LEARNER

    def _encoded(self, X: Array, y: Any, weights: Any, fresh: bool) -> np.ndarray:
        return self._labels(y, fresh)
