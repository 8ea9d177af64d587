"""The papers' Jacobian-based baseline: what one step of CG on the normal equations is worth."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from implicitref import claims, networks

baseline = importlib.import_module(f"{claims.validation().__name__}.jfb_baseline")


@pytest.mark.claim("JFB-Tab2")
def test_the_absolute_tolerance_is_met_after_one_step_whose_gradient_is_wrong():
    rng = np.random.default_rng(0)
    network = networks.jfb_mnist(rng, (1, 4, 4), 3, blocks=1, gamma=0.8, batch_norm=False, dtype=np.float64)
    rows = baseline.judged(network, rng.normal(size=(20, 1, 4, 4)), rng.integers(3, size=20))
    papers, tight, jfb = (rows[name] for name in baseline.RULES)
    assert papers["steps"] == 1
    assert jfb["steps"] == 0
    assert tight["steps"] > 5
    assert tight["error"] < 1e-3 < 0.1 < papers["error"] < jfb["error"]
    assert tight["angle_degrees"] < 0.1 < papers["angle_degrees"] < 90


def test_an_exact_rule_is_judged_to_be_exact_and_a_reversed_one_is_not(monkeypatch):
    def reversed_exact(*arguments):
        return -baseline.EXACT(*arguments)

    monkeypatch.setattr(baseline, "RULES", {"exact": baseline.EXACT, "reversed": reversed_exact})
    rng = np.random.default_rng(1)
    network = networks.jfb_mnist(rng, (1, 4, 4), 3, blocks=1, batch_norm=False, dtype=np.float64)
    rows = baseline.judged(network, rng.normal(size=(5, 1, 4, 4)), rng.integers(3, size=5))
    assert rows["exact"]["error"] < 1e-9
    assert rows["reversed"]["error"] > 0.5
