"""The estimators on scikit-learn's digits beside its multilayer perceptron: accuracy and fit time, fold by fold.

    OPENBLAS_NUM_THREADS=1 python -m implicitref.validation.estimators_digits

StratifiedKFold(5, shuffle=True, random_state=0), every estimator on the pixels as they are. The perceptron is that of
scikit-learn's defaults with as many hidden units as give it at least the parameters of the monotone operator network.
Times are those that the process spent on a processor; the estimators take turns on every fold, so that a busy machine
slows all of them, and the smallest of the folds is what a machine of one's own would need. Exit status 1 where a
figure of the last column is missed.
"""

from __future__ import annotations

import time
import warnings
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Row", "main", "measure", "requirements"]


class Row(NamedTuple):
    """One estimator: accuracies and processor seconds of the fits, one a fold, and how many numbers were trained."""

    name: str
    accuracies: list[float]
    seconds: list[float]
    parameters: int

    @property
    def accuracy(self) -> float:
        """Mean over the folds, in per cent."""
        return 100 * float(np.mean(self.accuracies))


def candidates(seed: int) -> dict[str, Any]:
    """Name to estimator."""
    from sklearn.neural_network import MLPClassifier

    from ..estimators import ImplicitClassifier, JFBClassifier, MONClassifier, SequentialImplicitClassifier

    mon = 87 * (64 + 1 + 2 * 87 + 10) + 10
    return {
        "MLPClassifier": MLPClassifier(-(-(mon - 10) // (64 + 1 + 10)), random_state=seed),
        "MONClassifier": MONClassifier(random_state=seed),
        "SequentialImplicitClassifier": SequentialImplicitClassifier(random_state=seed),
        "JFBClassifier": JFBClassifier(random_state=seed),
        "ImplicitClassifier": ImplicitClassifier(random_state=seed),
    }


def size(model: Any) -> int:
    """The trained numbers of a fitted estimator, those that a structure keeps at zero left out."""
    if hasattr(model, "coefs_"):
        return sum(p.size for p in (*model.coefs_, *model.intercepts_))
    params = (model.network_ if hasattr(model, "network_") else model.model_).params.values()
    return sum(np.count_nonzero(p) for p in params)


def measure(seed: int = 0, folds: int = 5) -> list[Row]:
    """Fit and score every estimator on every fold, in turns."""
    from sklearn.datasets import load_digits
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import StratifiedKFold

    x, y = load_digits(return_X_y=True)
    rows = {name: Row(name, [], [], 0) for name in candidates(seed)}
    for train, test in StratifiedKFold(folds, shuffle=True, random_state=0).split(x, y):
        for name, model in candidates(seed).items():
            began = time.process_time()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # of the perceptron, after 200 epochs
                model.fit(x[train], y[train])
            rows[name].seconds.append(time.process_time() - began)
            rows[name].accuracies.append(model.score(x[test], y[test]))
            rows[name] = rows[name]._replace(parameters=size(model))
    return list(rows.values())


def requirements(rows: list[Row]) -> dict[str, bool]:
    """What has to hold of the two networks, as sentences."""
    found = {row.name: row for row in rows}
    mlp, mon, greedy = (found[f"{name}Classifier"] for name in ("MLP", "MON", "SequentialImplicit"))
    return {
        "MONClassifier reaches 97.8 %": mon.accuracy >= 97.8,
        "SequentialImplicitClassifier reaches 95.5 %": greedy.accuracy >= 95.5,
        "MONClassifier is at least as accurate as MLPClassifier": mon.accuracy >= mlp.accuracy,
        "SequentialImplicitClassifier is within 1.5 points of it": greedy.accuracy >= mlp.accuracy - 1.5,
        **{f"a fit of {row.name} takes less than 5 s": min(row.seconds) < 5 for row in (mon, greedy)},
        **{f"{row.name} fits in at most 3 times its time": _ratio(row, mlp) <= 3 for row in (mon, greedy)},
    }


def _ratio(row: Row, mlp: Row) -> float:
    return min(row.seconds) / min(mlp.seconds)


def main() -> int:
    """Print the table and what holds; 1 where something does not."""
    rows = measure()
    print("| estimator | parameters | accuracy | worst fold | fit, least | fit, median | to MLPClassifier |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        least, median = min(row.seconds), float(np.median(row.seconds))
        accuracy = f"{row.accuracy:.2f} % | {100 * min(row.accuracies):.2f} %"
        print(f"| {row.name} | {row.parameters:,} | {accuracy} | {least:.2f} s | {median:.2f} s | ", end="")
        print(f"{_ratio(row, rows[0]):.2f} |", flush=True)
    held = requirements(rows)
    for sentence, holds in held.items():
        print(f"{'yes' if holds else 'NO '}  {sentence}")
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
