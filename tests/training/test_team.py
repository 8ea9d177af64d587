"""A step by several processes is the step by one, up to the rounding of sums; and nobody waits for ever."""

from __future__ import annotations

import functools
import json
import os
import signal
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import assert_close, size

from implicitref import __main__ as cli
from implicitref import layers as L
from implicitref.commands import train as command
from implicitref.errors import ConvergenceError, HypothesisError, ShapeError
from implicitref.networks import jfb_mnist
from implicitref.training.team import Team

SIDE, BATCH = 9, 7


def network(**options):
    return jfb_mnist(np.random.default_rng(0), (1, SIDE, SIDE), 4, dtype=float, **options)


def minibatch(batch=BATCH, seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(batch, 1, SIDE, SIDE)), rng.integers(4, size=batch)


@pytest.fixture(scope="module")
def net():
    return network()


@pytest.fixture(scope="module")
def teams(net):
    with Team(net, 2) as two, Team(net, 3) as three:
        yield {2: two, 3: three}


@pytest.mark.parametrize("members", [2, 3])
@pytest.mark.parametrize("rule", ["jfb", "neumann:2"])
@pytest.mark.parametrize("batch", [BATCH, 3])
def test_a_team_s_step_is_the_network_s(net, teams, members, rule, batch):
    x, labels = minibatch(batch)
    net = net.replace(**{name: 1.1 * p for name, p in net.params.items()})  # not the arrays the team began with
    one = net.training_pass(x, labels, rule, tol=1e-6, max_iter=12)
    team = teams[members].training_pass(net, x, labels, rule, tol=1e-6, max_iter=12)
    assert team.solution.iterations == one.solution.iterations
    assert team.products == one.products
    assert_close(team.loss, one.loss, scale=1, tol=1e-12)
    assert_close(team.logits, one.logits, scale=size(one.logits), tol=1e-11)
    assert_close(team.solution.residuals, one.solution.residuals, scale=size(one.solution.residuals), tol=1e-12)
    assert team.statistics.keys() == one.statistics.keys()
    assert team.grads.keys() == one.grads.keys()
    largest = max(size(g) for g in one.grads.values())
    for mine, theirs in ((team.statistics, one.statistics), (team.grads, one.grads)):
        for name, value in theirs.items():
            assert_close(mine[name], value, scale=largest + size(value), tol=1e-11)


def gathering_threads(members):
    # a group whose members are threads
    barrier, values = threading.Barrier(members), [None] * members

    def of(rank):
        def gather(own):
            values[rank] = np.array(own, dtype=float)
            barrier.wait(timeout=20)
            found = np.stack(values)
            barrier.wait(timeout=20)
            return found

        return gather

    return [of(rank) for rank in range(members)]


@given(st.lists(st.integers(1, 4), min_size=2, max_size=3), st.sampled_from([0.0, 1e4]), st.integers(0, 2**32 - 1))
def test_batch_norm_of_parts_is_that_of_the_whole(parts, offset, seed):
    rng = np.random.default_rng(seed)
    x, dy = (rng.normal(size=(sum(parts), 3, 2, 2)) for _ in range(2))
    x += offset
    layer = L.BatchNorm(np.zeros(3), np.ones(3), rng.normal(size=3), rng.normal(size=3))
    y, pull, statistics = layer.linearize(x, training=True)
    dx, grads = pull(dy)
    found, ends = {}, np.cumsum([0, *parts])

    def member(rank, gather):
        own = slice(ends[rank], ends[rank + 1])
        value, back, moments = L.records.gathering(L.Sequential({"": layer}), gather).linearize(x[own], training=True)
        found[rank] = value, moments, *back(dy[own])

    threads = [threading.Thread(target=member, args=pair) for pair in enumerate(gathering_threads(len(parts)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    values, moments, backs, own = zip(*(found[rank] for rank in range(len(parts))), strict=True)
    tol = 1e-12 * (1 + offset)
    assert_close(np.concatenate(values), y, scale=size(y), tol=tol)
    assert_close(np.concatenate(backs), dx, scale=size(dx) + size(dy), tol=tol)
    for name, value in statistics.items():
        for other in moments:
            assert_close(other[name], value, scale=size(x), tol=1e-13)
    for name, gradient in grads.items():
        assert_close(sum(g[name] for g in own), gradient, scale=size(dy) * len(x) * 4, tol=tol)


def test_what_a_team_refuses(net, teams):
    x, labels = minibatch()
    with pytest.raises(HypothesisError, match=r"rule must be jfb or neumann:k for several processes; got 'implicit'"):
        teams[2].training_pass(net, x, labels, "implicit")
    with pytest.raises(HypothesisError, match=r"x must hold at least one image for each of 3 processes; got 2"):
        teams[3].training_pass(net, x[:2], labels[:2], "jfb")
    with pytest.raises(HypothesisError, match="members must be an integer >= 2"):
        Team(net, 1)
    assert np.isfinite(teams[2].training_pass(net, x, labels, "jfb").loss)  # nothing was lost


def expanding():
    net = network(batch_norm=False)
    return net.replace(**{name: 1e3 * p for name, p in net.params.items() if name.startswith("latent")})


def labelled(labels, place):
    return np.where(np.arange(BATCH) == place, 99, labels)


ENDS = {
    "diverges": (lambda net, x, labels: (expanding(), x, labels), ConvergenceError, "diverged"),
    "another's label": (lambda net, x, labels: (net, x, labelled(labels, 6)), HypothesisError, "labels must"),
    "one's own label": (lambda net, x, labels: (net, x, labelled(labels, 0)), HypothesisError, "labels must"),
    "images": (lambda net, x, labels: (net, x[:, :, 1:], labels), ShapeError, "x must have shape"),
}


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.timeout(60)
def test_an_error_ends_the_team_and_is_told(net, name):
    change, error, message = ENDS[name]
    with Team(expanding() if name == "diverges" else net, 2) as team:
        with pytest.raises(error, match=message):
            team.training_pass(*change(net, *minibatch()), "jfb", tol=1e-9)
        assert not any(process.is_alive() for process in team.processes)
        with pytest.raises(RuntimeError, match="the team is closed, as it is after any error"):
            team.training_pass(net, *minibatch(), "jfb")


@pytest.mark.parametrize("when", ["between", "within"])
@pytest.mark.timeout(60)
def test_a_process_that_is_killed_is_missed(net, when):
    with Team(net, 3) as team:
        team.training_pass(net, *minibatch(), "jfb")
        kill, gather = functools.partial(os.kill, team.processes[1].pid, signal.SIGKILL), team.group.gather
        if when == "between":
            kill()
        else:
            calls = iter([bool, bool, kill])
            team.group.gather = lambda values: (next(calls, bool)(), gather(values))[1]
        with pytest.raises(RuntimeError, match="a process of the team is gone"):
            team.training_pass(net, *minibatch(), "jfb")
    assert not any(process.is_alive() for process in team.processes)


@pytest.mark.timeout(120)
def test_the_command_shares_minibatches_out(monkeypatch, tmp_path):
    made = []
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    monkeypatch.setattr(command, "Team", lambda *args: made.append(Team(*args)) or made[-1])
    run = ["train", "jfb-mnist", "--data", "digits", "--batch", "500", "--epochs", "1", "--tol", "1", "--blocks", "1"]
    found = []
    for worth in (0, 10**9):
        monkeypatch.setattr(command, "WORTH", worth)
        assert cli.main([*run, "--json", str(tmp_path / "r.json")]) == 0
        found.append(json.loads((tmp_path / "r.json").read_text())["history"][0])
    (team,) = made
    assert team.members == 2
    assert team.closed
    assert abs(found[0]["loss"] - found[1]["loss"]) < 1e-4
