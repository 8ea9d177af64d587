"""scikit-learn's own checks of the estimator contract, all of them, on every estimator."""

from __future__ import annotations

import pytest

pytest.importorskip("sklearn")
from sklearn.utils.estimator_checks import parametrize_with_checks

from implicitref.estimators import (
    ImplicitClassifier,
    JFBClassifier,
    MONClassifier,
    MONRegressor,
    SequentialImplicitClassifier,
    SequentialImplicitRegressor,
)

ALL = [  # shorter than by default, and in nothing else different
    MONClassifier(max_iter=8),
    MONRegressor(max_iter=12),
    JFBClassifier(max_iter=8),
    ImplicitClassifier(max_iter=8),
    SequentialImplicitClassifier(order=20, n_blocks=2),
    SequentialImplicitRegressor(order=10, n_blocks=2),
]


@parametrize_with_checks(ALL)
def test_contract(estimator, check):
    check(estimator)
