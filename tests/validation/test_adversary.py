"""The search for worst cases finds them, and what is too tight a bound is noticed by it alone."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from oracles import assert_close

from implicitref import claims
from implicitref.fixed_point import theory
from implicitref.splitting import certificates, rates

package = claims.validation().__name__
adversary, run = (importlib.import_module(f"{package}.{name}") for name in ("adversary", "run"))


def test_ascent_finds_the_largest_value_and_names_the_seed():
    target = np.array([0.3, -2.0, 1.0])
    found = adversary.climb(lambda v: -float(np.sum((v - target) ** 2)), 3, 7, 1.0)
    assert -1e-8 < found.value <= 0
    assert found.trials == adversary.SAMPLE + adversary.EVALUATIONS
    assert found.where.endswith("seed 7")
    assert found == adversary.climb(lambda v: -float(np.sum((v - target) ** 2)), 3, 7, 1.0)


def test_nan_is_the_worst_of_all():
    assert np.isnan(adversary.climb(lambda v: np.nan if v[0] > 1 else 0.5, 1, 0, 0.1).value)


@pytest.mark.parametrize("seed", range(5))
def test_problems_have_the_constants_they_say(seed):
    v = np.random.default_rng(seed).normal(size=adversary.PROBLEM)
    p = adversary.problem(v)
    assert_close(np.linalg.eigvalsh((p.G + p.G.T) / 2)[0], adversary.positive(v[0]), scale=1.0, tol=1e-10)
    assert_close(np.maximum(p.z @ p.matrix.T + p.b, 0), p.z, scale=1.0, tol=1e-13)
    K = adversary.contraction(v[:4], 0.7)
    assert_close(np.linalg.norm(K, 2), 0.7, scale=1.0, tol=1e-13)
    assert 0.05 < adversary.positive(v[0]) < 5


def tighter(module, name, share):
    def plant(patch):
        right = getattr(module, name)
        patch.setattr(module, name, lambda *arguments: share * right(*arguments))

    return plant


def tighter_pairs(module, name, index, share):
    def plant(patch):
        right = getattr(module, name)

        def wrong(*arguments):
            found = list(right(*arguments))
            found[index] = share * found[index]
            return tuple(found)

        patch.setattr(module, name, wrong)

    return plant


@pytest.mark.parametrize(
    ("plant", "claim"),
    [
        (tighter(rates, "forward_backward_class", 0.999), "NEW-rate-fb"),
        (tighter(rates, "peaceman_rachford_class", 0.999), "NEW-rate-pr"),
        (tighter_pairs(certificates, "distance", 1, 0.99), "NEW-cert-C1"),
        (tighter_pairs(certificates, "distance_from_state", 2, 0.99), "NEW-cert-C2"),
        (tighter(certificates, "distance_from_step", 0.99), "NEW-cert-C3"),
        (tighter(certificates, "adjoint_state_bound", 0.9), "NEW-cert-B1"),
        (tighter(certificates, "sensitivity", 0.999), "NEW-sensitivity"),
        (tighter(theory, "descent_constant", 1.001), "NEW-descent-constant"),
        (tighter(theory, "inverse_coercivity", 1.001), "FPN-Eq12"),
        (tighter_pairs(theory, "residual_interval", 1, 0.99), "NEW-cert-F1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "tighter",
)
def test_a_bound_that_is_too_tight_is_noticed_by_the_ascent(plant, claim, monkeypatch):
    plant(monkeypatch)
    outcome = run.check(claims.load()[claim], 0, 0.5)
    assert outcome.message == ""
    assert any("ascent from the worst" in v.statement and not v.holds for v in outcome.verdicts)
