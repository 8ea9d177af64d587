"""Random layers written in PyTorch: right ones pass, planted mistakes are named, those outside the library are unknown.

Small; validation/crosscheck_trials.py runs thousands.
"""

from __future__ import annotations

import collections
import importlib
import itertools
import sys

import numpy as np
import pytest

from implicitref import claims

pytest.importorskip("torch")
sys.path.append(claims.validation().__path__[0])  # the trials are a script

trials = importlib.import_module("crosscheck_trials")


def outcomes(run, first, count):
    found = list(trials.RUNS[run](first, count))
    return collections.Counter(outcome for outcome, _ in found), "\n".join(where for _, where in found)


def test_right_layers_are_not_accused():
    counts, where = outcomes("correct", 32, 5)
    assert set(counts) <= {"pass", "not solved by the layer itself"}, where
    assert counts["pass"] >= 4


def test_loose_layers_are_not_accused():
    counts, where = outcomes("loose", 0, 10)
    assert set(counts) <= {"inconclusive"}, where


def test_a_check_of_a_dense_layer_is_timed():
    found = [*itertools.islice(trials.times(0, 1), 2)]
    assert [verdict for verdict, _ in found] == ["pass", "pass"]
    assert all(0 < float(where.split(" s, given ")[0]) < 10 for _, where in found), found
    assert trials._tall(0).x.shape == (2, 16 * 256 + 32 * 64)


def test_planted_mistakes_are_named():
    counts, where = outcomes("plants", 0, 15)
    assert counts == {"named": 15}, where


def test_there_are_plants_of_every_kind():
    for seed in range(5, 10):
        problem, rng = trials.draw(seed, dtype=np.float64), np.random.default_rng(0)
        names = {plant.name for plant in trials.plants(problem, rng)}
        assert len(names) >= 20
    assert len({p.name for s in range(5) for p in trials.plants(trials.draw(s), np.random.default_rng(0))}) >= 40


def test_mistakes_outside_the_library_are_unknown():
    counts, where = outcomes("unknown", 0, 10)
    assert counts == {"unknown": 10}, where
