"""The papers' tuning of alpha beside the provable best."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from implicitref import errors, mon, networks
from implicitref.splitting import rates
from implicitref.training import alpha

RULE = {"tol": 1e-2, "stop": "relative-change"}


def problem(scale, seed=0):
    rng = np.random.default_rng(seed)
    network = networks.mon_fc(rng, 6, hidden=10, dtype=np.float64)
    network = network.replace(A=scale * network.W.A, B=scale * network.W.B)
    return network, rng.normal(size=(7, 6))


@pytest.mark.claim("MON-AppD.2-alpha")
@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0, 10.0])
def test_tuning_stops_where_halving_first_costs_iterations(scale):
    network, x = problem(scale)
    found = alpha.tuned(network, x, **RULE)
    trials = [2.0**-k for k in range(12)]
    counts = {
        a: mon.equilibrium(network.W, network.inject(x), network.activation, alpha=a, **RULE).iterations for a in trials
    }
    path = trials[: trials.index(found) + 1]
    assert all(counts[b] <= counts[a] for a, b in itertools.pairwise(path))
    assert counts[found / 2] > counts[found]


@pytest.mark.claim("MON-AppD.2-alpha")
def test_tuning_follows_the_lipschitz_constant_down():
    found = [alpha.tuned(*problem(scale), **RULE) for scale in (0.1, 3.0, 10.0)]
    assert found[0] > found[1] > found[2]


@pytest.mark.claim("MON-AppD.2-alpha")
def test_tuning_does_not_beat_the_provable_best_in_the_rate():
    for scale in (0.3, 1.0, 3.0):
        network, x = problem(scale)
        G = rates.gap(network.W)
        best, tuned = alpha.best(network, x, **RULE), alpha.tuned(network, x, **RULE)
        assert rates.peaceman_rachford(G, best) <= rates.peaceman_rachford(G, tuned) * (1 + 1e-5)


def test_a_step_that_does_not_converge_is_no_candidate():
    # at alpha = 1 and L = 4e4 a thousand iterations do not suffice; tuning goes on to smaller steps
    network, x = problem(200.0)
    rule = {"tol": 1e-6, "stop": "certificate"}
    with pytest.raises(errors.ConvergenceError):
        mon.equilibrium(network.W, network.inject(x), network.activation, alpha=1.0, **rule)
    assert alpha.tuned(network, x, **rule) < 1


def test_unknown_rules_are_refused():
    with pytest.raises(errors.HypothesisError, match="best, tuned"):
        alpha.by_name("largest")
