"""The benchmark: its counts, its certificate, what it says of slow, wrong and absent peers, what it leaves behind."""

from __future__ import annotations

import csv
import functools
import importlib
import itertools
import json
import math
import sys
import time

import numpy as np
import pytest
from oracles import assert_close

from implicitref import __main__ as cli
from implicitref import claims, mon, networks

bench = importlib.import_module(f"{claims.validation().__name__}.bench")
curves, layers, machine, measure, ours, peers, suites = (
    importlib.import_module(f"{bench.__name__}.{name}")
    for name in ("curves", "layers", "machine", "measure", "ours", "peers", "suites")
)
HERE = machine.place("numpy")
PEAKS = dict.fromkeys(machine.PEAKS, 10.0)
LAYERS = [layers.dense(6, 0.5, 5), layers.tiered((2,), 6, 3), layers.tiered((2, 3), 8, 3)]
SMALL = suites.Level(((6, 0.5),), (((2,), 6),), 4, 2, ((2,),))


@pytest.fixture(params=LAYERS, ids=lambda layer: layer.name)
def layer(request):
    return request.param


# ------------------------------------------------------------------------------------------------
# counts


def test_products_of_an_iteration_are_those_that_torch_counts(layer):
    torch = pytest.importorskip("torch")
    counter = importlib.import_module("torch.utils.flop_counter").FlopCounterMode(display=False)
    side = ours.steps(layer, machine.place("torch"), 0.3)[0]
    side.run(())  # factors the blocks
    with counter, torch.inference_mode():
        side.run(())
    need, found = layers.iteration_need(layer), counter.get_total_flops()
    assert found == pytest.approx(need.products + need.blocks)


def test_dense_counts_by_brute_force():
    n, batch, multiplications = 3, 2, 0
    C, u = np.ones((n, n)), np.ones((batch, n))
    for row in u:
        for line in C:
            multiplications += sum(1 for _ in zip(row, line, strict=True))
    need = layers.iteration_need(layers.dense(n, 1.0, batch))
    assert need.products == 2 * multiplications
    assert need.rest == 2 * u.size
    # |u|, the product and the sum, each array read or written counted once
    assert need.moved == 4 * (2 * u.size + (u.size + C.size + u.size) + 3 * u.size)
    assert layers.gradient_need(layers.dense(n, 1.0, batch)).products == 2 * batch * n**2 + 2 * n**3


def test_a_solve_counts_both_passes_and_the_gradient(layer):
    one, gradient = layers.iteration_need(layer), layers.gradient_need(layer)
    assert layers.solve_need(layer, (5,)) == one.times(5)
    assert layers.solve_need(layer, (5, 2)) == one.times(7).plus(gradient)


def test_roofline_takes_the_scarcer():
    need = machine.Need(products=2e9, blocks=1e9, rest=5e9, moved=1e9)
    assert machine.roofline(need, PEAKS, math.inf, 600.0) == {"bound": "products", "fraction": pytest.approx(0.5)}
    slow = PEAKS | {"copy": 2.0}
    assert machine.roofline(need, slow, math.inf, 1000.0) == {"bound": "memory", "fraction": pytest.approx(0.5)}
    assert machine.roofline(need, slow, 1000.0, 600.0)["bound"] == "products"


def test_peaks_are_positive_numbers():
    found = machine.peaks(HERE, 1, size=32, entries=2**10, batch=4)
    assert set(found) == set(machine.PEAKS)
    assert all(0 < value < math.inf for value in found.values())


# ------------------------------------------------------------------------------------------------
# the certificate


def test_certificates_bound_what_they_certify(layer):
    alpha = 0.5
    W, injection, dz = layer.W, layer.injection, layer.dz
    wide = layers.moved(layer, lambda x: np.asarray(x, dtype=np.float64))
    tight = mon.equilibrium(wide.W, wide.injection, layer.activation, alpha=alpha, tol=1e-10)
    rough = mon.equilibrium(W, injection, layer.activation, alpha=alpha, tol=1e-1)
    grads, _ = mon.equilibrium_vjp(W, injection, layer.activation, rough.z, dz, alpha=alpha, tol=1e-4)
    found = layers.certified(layer, (rough.z, grads["injection"]))
    off = np.linalg.norm((rough.z - tight.z).reshape(layer.batch, -1), axis=1).max()
    assert off <= found[0] <= 1.0
    assert found[1] <= 1e-3
    wrong = grads["injection"] + np.float32(0.1) * (grads["injection"] != 0)
    assert layers.certified(layer, (rough.z, wrong))[1] > 1e-2
    assert layers.certified(layer, (rough.z + 1, wrong))[0] > 0.5
    assert layers.certified(layer, (rough.z * math.nan,)) == (math.inf,)


def test_only_open_signs_are_taken_from_the_side():
    layer = LAYERS[0]
    pre = np.array([[1.0, 0.01, -0.01, -1.0, 0.01, -0.01]])
    dpre = np.array([[0.0, 0.0, 1.0, 1.0, 1.0, 0.0]])
    assert_close(layers.slopes(layer, pre, 0.1, dpre), np.array([[1.0, 0, 1, 0, 1, 0]]), scale=1.0, tol=1e-15)


def test_parts_in_threads_are_the_whole_batch():
    layer, where = LAYERS[2], HERE._replace(threads=2)
    mine, certified, whole = ours.solves(layer, where, 0.5, 2, layers.wanted(layer, 1e-3, 2))
    assert [side.name for side in (mine, certified, whole)] == [ours.OURS, ours.CERTIFIED, ours.WHOLE]
    tols = (1e-6, 1e-6)
    for part, one in zip(mine.run(tols).state, whole.run(tols).state, strict=True):
        assert part.shape == one.shape
        assert_close(part, one, scale=float(np.abs(one).max()), tol=1e-5)
    assert len(ours.solves(LAYERS[0], where, 0.5, 1, (1.0,))) == len(ours.steps(LAYERS[0], where, 0.5)) + 1 == 2


# ------------------------------------------------------------------------------------------------
# peers, planted


def planted(monkeypatch, name, change, needs=()):
    """A peer that is our side, changed."""

    def build(layer, where, alpha, passes):
        side = ours.solves(layer, where, alpha, passes, ())[0]
        return side._replace(run=functools.partial(change, side.run))

    monkeypatch.setattr(peers, "PEERS", (peers.Peer(name, needs, build, images=True),))


def rows(layer=LAYERS[0], passes=2, runs=2):
    return {row.side: row for row in measure.measure(suites.solve(layer, HERE, passes, 1e-3), HERE, PEAKS, runs)}


def test_a_slow_peer_changes_the_ratio(monkeypatch):
    def late(run, tols):
        time.sleep(0.03)
        return run(tols)

    planted(monkeypatch, "slow", late)
    found = rows()
    assert found["slow"].state == measure.MEASURED
    assert found["slow"].median_ms > 30
    ratio = found[measure.OURS].median_ms / found["slow"].median_ms
    assert found["slow"].ratio == pytest.approx(ratio)
    assert ratio < 0.5
    assert all(r <= w for r, w in zip(found["slow"].certified, found["slow"].wanted, strict=True))


def test_a_wrong_state_is_flagged_and_never_timed(monkeypatch):
    def wrong(run, tols):
        found = run(tols)
        return found._replace(state=(found.state[0] * np.float32(1.2), *found.state[1:]))

    planted(monkeypatch, "wrong", wrong)
    row = rows()["wrong"]
    assert row.state == measure.OFF
    assert row.ratio is None
    assert "certified distance" in row.note


def test_a_peer_that_turns_wrong_while_it_is_timed_is_flagged(monkeypatch):
    calls = []

    def turning(run, tols):
        calls.append(tols)
        found = run(tols)
        return found if len(calls) <= 8 else found._replace(state=tuple(x + 1 for x in found.state))

    planted(monkeypatch, "turning", turning)
    assert rows(runs=10)["turning"].state == measure.OFF


def test_a_peer_that_raises_says_so(monkeypatch):
    def broken(run, tols):
        raise OverflowError("planted")

    planted(monkeypatch, "broken", broken)
    row = rows(passes=1)["broken"]
    assert (row.state, row.note) == (measure.FAILED, "OverflowError: planted")


def test_an_absent_peer_is_named_with_what_to_install(monkeypatch):
    def nothing_there(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(peers, "_imported", nothing_there)
    found = rows(passes=1)
    absent = {name: row.note for name, row in found.items() if row.state == measure.ABSENT}
    assert set(absent) == {peer.name for peer in peers.PEERS if peer.dense}
    assert "pip install jaxopt==0.8.5" in absent["jaxopt, Anderson"] or "pip install jax" in absent["jaxopt, Anderson"]
    assert found[measure.OURS].state == measure.MEASURED
    assert set(peers.versions().values()) == {None}


@pytest.mark.parametrize("passes", [1, 2])
def test_pytorch_forms_reach_the_accuracy_too(layer, passes):
    pytest.importorskip("torch")
    names = (peers.PUBLISHED, peers.BEST, peers.REFLECTED)
    task = suites.solve(layer, HERE, passes, 1e-3, names)
    found = measure.measure(task, HERE, PEAKS, 1)
    assert len(found) == (3 if passes == 2 else 4)
    assert {row.state for row in found} == {measure.MEASURED}


def test_jaxopt_and_torchdeq_solve_the_same_layer():
    layer, wanted = LAYERS[0], layers.wanted(LAYERS[0], 1e-2, 2)
    for peer in peers.PEERS[3:]:
        if peers.missing(peer.needs) or peer.name == "jaxopt, Anderson":  # a second compilation shows nothing new
            continue
        reached = layers.certified(layer, peer.build(layer, HERE, 0.5, 2).run((1e-4, 1e-4)).state)
        assert all(r <= w for r, w in zip(reached, wanted, strict=True)), peer.name


# ------------------------------------------------------------------------------------------------
# the command


@pytest.fixture
def small(monkeypatch):
    """Small cases, small peaks, curves of two small points, no slow compilers."""
    monkeypatch.setitem(suites.LEVELS, "quick", SMALL)
    monkeypatch.setattr(bench, "peaks", functools.partial(machine.peaks, size=32, entries=2**10, batch=4))
    monkeypatch.setattr(peers, "PEERS", peers.PEERS[:3])
    table = curves.CURVES["quick"]
    short = {
        "n": ("n", (4, 8), lambda n, seed: layers.dense(n, 1.0, 4, seed)),
        "tolerance": ("distance", (1e-1, 1e-2), lambda t, seed: (layers.dense(6, 1.0, 4, seed), t)),
    }
    monkeypatch.setitem(curves.CURVES, "quick", {name: short[name] for name in table if name in short})


def run(*arguments):
    return cli.main(["bench", "--runs", "2", "--threads", "1", *map(str, arguments)])


@pytest.mark.parametrize("suite", ["forward", "operators", "peers"])
def test_json_is_valid_and_says_what_was_run(suite, small, tmp_path, capsys):
    path = tmp_path / "b.json"
    assert run("--suite", suite, "--json", path) == 0
    found = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert (found["schema"], found["version"], found["suite"]) == ("implicitref-benchmark", 1, suite)
    assert (found["threads"], found["runs"], found["backend"]) == (1, 2, "numpy")
    assert found["pools"]
    assert all(pool["num_threads"] == 1 for pool in found["pools"] if pool["user_api"] == "blas")
    assert {row["state"] for row in found["rows"]} <= {"measured", "absent"}
    mine = [row for row in found["rows"] if row["side"] == "implicitref"]
    assert mine
    assert all(row["median_ms"] >= row["minimum_ms"] > 0 for row in mine)
    assert any(row["fraction"] and row["gflop"] and row["gbyte"] for row in mine)
    assert "machine, G/s: product" in capsys.readouterr().out


def test_page_and_figures(small, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    assert run("--suite", "operators", "--html", tmp_path / "b.html", "--out", tmp_path / "curves") == 0
    page = (tmp_path / "b.html").read_text(encoding="utf-8")
    assert page.count("data:image/svg+xml;base64,") == 2
    assert "http" not in page.split("</style>")[1]
    names = {path.name for path in (tmp_path / "curves").iterdir()}
    assert names == {"rows.csv"} | {f"{c}.{kind}" for c in ("n", "tolerance") for kind in ("csv", "png", "svg")}
    with (tmp_path / "curves" / "tolerance.csv").open(encoding="utf-8") as file:
        points = list(csv.DictReader(file))
    assert [int(p["iterations"]) for p in points] == sorted(int(p["iterations"]) for p in points)
    assert all(float(p["certified"]) > 0 < float(p["predicted"]) <= float(p["guaranteed"]) for p in points)
    assert all(int(p["needed"]) <= math.ceil(float(p["guaranteed"])) for p in points)
    assert all(int(p["needed"]) <= int(p["iterations"]) for p in points)


def test_the_predicted_factor_is_the_mean_over_errors_and_signs():
    rng, alpha = np.random.default_rng(0), 0.4
    G = np.eye(6) + rng.normal(size=(6, 6))
    C = np.linalg.solve(np.eye(6) + alpha * G, np.eye(6) - alpha * G)
    x, signs = rng.normal(size=(50_000, 6)), rng.choice([-1.0, 1.0], size=(50_000, 6))
    mean = math.sqrt(np.mean(np.square((signs * x) @ C.T).sum(axis=1)) / 6)
    assert curves.typical(G, alpha) == pytest.approx(mean, rel=0.02)
    assert curves.typical(np.stack([G, G]), alpha) == pytest.approx(curves.typical(G, alpha))


@pytest.mark.parametrize("m", [1.0, 0.1])
def test_iterations_of_a_large_random_layer_are_those_predicted(m):
    layer = layers.dense(384, m, 32)
    made = ("distance", (1e-2, 1e-3), lambda t, _: (layer, t), HERE, 1, 0)
    for point in curves._of_iterations("tolerance", *made).points:
        assert point.needed <= math.ceil(point.guaranteed)
        assert abs(point.needed - point.predicted) <= 1 + 0.1 * point.predicted


@pytest.mark.parametrize(
    "make", [lambda: suites.dense_step(8, HERE, 0), lambda: suites.image_step((2,), 4, HERE, 0)], ids=["dense", "conv"]
)
def test_a_training_step_of_both_sides_has_the_same_loss(make):
    pytest.importorskip("torch")
    found = measure.measure(make(), HERE, PEAKS, 1)
    assert [row.state for row in found] == [measure.MEASURED] * 2


@pytest.mark.parametrize(
    "network",
    [
        networks.mon_conv(np.random.default_rng(0), (1, 8, 8), 3),
        networks.mon_multitier(np.random.default_rng(0), (2, 28, 28), (2, 3, 4)),
    ],
    ids=["conv", "tiers larger than half"],
)
def test_gradients_of_the_published_networks_are_ours(network):
    pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    x, labels = rng.normal(size=(3, *network.input_shape)).astype(np.float32), rng.integers(10, size=3)
    params, differentiated = peers.image_gradients(network, x, labels, 0.7, 1e-6, HERE)
    loss, _ = differentiated()
    ours = network.following(x.astype(np.float64)).gradients(x.astype(np.float64), labels, tol=1e-7)
    assert loss == pytest.approx(ours.loss, rel=1e-5)
    assert set(params) == set(ours.grads)
    for name, p in params.items():
        assert_close(p.grad.numpy(), ours.grads[name], scale=1e-3 + float(np.abs(ours.grads[name]).max()), tol=1e-3)


def test_a_solve_of_ours_that_misses_its_accuracy_is_status_1(small, monkeypatch, capsys):
    monkeypatch.setattr(layers, "wanted", lambda layer, accuracy, passes: (1e-12,) * passes)
    monkeypatch.setattr(suites, "wanted", layers.wanted)
    assert run("--suite", "peers") == 1
    assert "off: dense n=6" in capsys.readouterr().out


def test_a_missing_library_is_status_2_and_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert run("--backend", "cupy") == 2
    assert "pip install cupy" in capsys.readouterr().err


@pytest.mark.gpu
def test_cupy_measures_on_the_gpu():
    cupy = pytest.importorskip("cupy")
    if not cupy.cuda.is_available():
        pytest.skip("cupy.cuda.is_available() is False: no CUDA device")
    where = machine.place("cupy")
    task = suites.solve(LAYERS[1], where, 2, 1e-3, (peers.PUBLISHED,))
    assert measure.measure(task, where, PEAKS, 2)[0].state == measure.MEASURED


def test_long_calls_take_turns_one_by_one(monkeypatch):
    # a machine that is slow for seconds must not be slow for one side alone
    order: list[str] = []
    calls = {name: functools.partial(order.append, name) for name in ("ours", "theirs")}
    found = measure._alternating(calls, 4)
    assert {len(times) for times in found.values()} == {measure.MOST * 4}  # as long as one of its moments
    assert max(len([*run]) for _, run in itertools.groupby(order)) > 2
    monkeypatch.setattr(measure, "ENOUGH", 0.0)
    assert {len(times) for times in measure._alternating(calls, 5).values()} == {5}
    order.clear()
    monkeypatch.setattr(measure, "LONG", 0.0)
    times = measure._alternating(calls, 4)
    assert {name: len(found) for name, found in times.items()} == {"ours": 4, "theirs": 4}
    assert max(len([*run]) for _, run in itertools.groupby(order)) == 2  # the first of them not counted
