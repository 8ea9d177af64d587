"""The PyTorch sides of the convolutional benchmark against one dense matrix, and the benchmark end to end, small."""

from __future__ import annotations

import functools
import importlib
import json
import math
import sys
import time

import numpy as np
import pytest
import scipy.ndimage
from oracles import assert_close, size

from implicitref import claims

torch = pytest.importorskip("torch")
sys.path.append(claims.validation().__path__[0])  # the benchmark is a script, with its layers beside it

bench_conv = importlib.import_module("bench_conv")
torch_conv = importlib.import_module("torch_conv")

ALPHA, BORDER, BATCH = 0.37, 1, 3
CASES = [bench_conv.Case((3,), 6), bench_conv.Case((2, 3), 8), bench_conv.Case((2, 3, 4), 16)]


def matrix(kernel, shape, stride=1):
    """The strided circular correlation as a matrix, column by column, by scipy.ndimage."""
    columns = []
    for unit in np.eye(math.prod(shape)).reshape(-1, *shape):
        images = [sum(map(lambda k, x: scipy.ndimage.correlate(x, k, mode="wrap"), row, unit)) for row in kernel]
        columns.append(np.array(images)[:, ::stride, ::stride].ravel())
    return np.array(columns).T


def dense(p):
    """W of (C1) to (C5) with the scales of D.2, from the definition."""
    w, shapes = p.weights, p.case.shapes

    def scaled(name, i, by, stride=1):
        K = w[name][i].astype(np.float64)
        return by * matrix(K / np.linalg.norm(K), shapes[i], stride)

    A = [scaled("A", i, math.sqrt(w["g"][i])) for i in range(len(shapes))]
    B = [scaled("B", i, w["h"][i]) for i in range(len(shapes))]
    S = [scaled("S", i, math.sqrt(w["gs"][i]), 2) for i in range(len(shapes) - 1)]
    rows = [[np.zeros((len(a), len(b))) for b in A] for a in A]
    for i, (a, b) in enumerate(zip(A, B, strict=True)):
        rows[i][i] = -a.T @ a + b - b.T - (S[i].T @ S[i] if i < len(S) else 0)
        if i:
            rows[i][i - 1] = -2 * a.T @ S[i - 1]
    return np.block(rows)  # m = 1


def flat(tiers):
    return np.concatenate([np.asarray(t).reshape(len(t), -1) for t in tiers], axis=1)


@pytest.fixture(params=CASES, ids=lambda case: f"{len(case.channels)} tiers")
def p(request):
    return bench_conv.problem(request.param, BATCH)


@pytest.fixture
def tiers(p):
    return tuple(map(torch.tensor, p.injection)), tuple(map(torch.tensor, p.dz))


@torch.no_grad()
def test_products_are_the_dense_matrix(p, tiers):
    W, w, (x, _) = dense(p), bench_conv.torch_weights(p), tiers
    for product, M in ((torch_conv.matvec, W), (torch_conv.rmatvec, W.T)):
        expected = flat(x) @ M.T
        assert_close(flat(product(w, x)), expected, scale=size(expected), tol=1e-5)


@torch.no_grad()
def test_published_resolvents_are_the_dense_inverse_and_its_transpose(p, tiers):
    layer, (x, _) = torch_conv.Published(bench_conv.torch_weights(p), ALPHA, BORDER), tiers
    W = dense(p)
    V = np.linalg.inv(np.eye(len(W)) + ALPHA * (np.eye(len(W)) - W))
    assert_close(flat(layer.resolvent(x)), flat(x) @ V.T, scale=size(flat(x)), tol=1e-5)
    assert_close(flat(layer.resolvent_transpose(x)), flat(x) @ V, scale=size(flat(x)), tol=1e-5)


@pytest.mark.parametrize("form", [torch_conv.Reflected, torch_conv.RealProducts])
@torch.no_grad()
def test_fast_steps_are_the_published_step(p, tiers, form):
    w, (u, injection) = bench_conv.torch_weights(p), tiers
    published, reflected, fast = (make(w, ALPHA, BORDER) for make in (torch_conv.Published, torch_conv.Reflected, form))
    z = tuple(torch.relu(x) * inside for x, inside in zip(u, published.masks, strict=True))
    _, expected = published.step(z, u, injection)
    constant = reflected.constant(injection, ALPHA)
    if form is torch_conv.RealProducts:
        found = fast.leave(fast.step(fast.enter(u), fast.enter(constant)))
    else:
        found = fast.step(u, constant)
    assert_close(flat(found), flat(expected), scale=size(flat(expected)), tol=1e-5)


def test_published_layer_solves_both_inclusions(p, tiers):
    W, (injection, dz) = dense(p), tiers
    found = torch_conv.Published(bench_conv.torch_weights(p), ALPHA, BORDER).forward_backward(injection, dz, 1e-6)
    inside = flat([np.broadcast_to(torch_conv.mask(s[1:], BORDER), (1, *s)) for s in p.case.shapes])
    z, v = flat(found.z), flat(dz)
    pre = z @ W.T + flat(injection)
    assert_close(z, np.maximum(pre, 0) * inside, scale=size(z), tol=1e-4)
    jac = (z > 0).astype(float)
    u = flat([(a + ALPHA * b) for a, b in zip(found.u[1], dz, strict=True)]) * jac
    assert_close(u, jac * (v + u @ W), scale=float(np.abs(v).max()), tol=1e-4)


def test_comparison_end_to_end(p):
    alpha = bench_conv.ir.splitting.rates.best_alpha(p.W, "peaceman-rachford")
    found = bench_conv.solves(p, alpha, 1)
    assert max(found["gradient_difference"].values()) < 2e-2
    for ours, theirs in zip(*(found["certified_distance"][side] for side in ("implicitref", "published")), strict=True):
        assert 0 < ours <= theirs * 1.001
    for run in bench_conv.iterations(p, alpha).values():
        run()


def test_all_sides_walk_the_same_path(p):
    """After the same number of steps from 0, the sides' states agree."""
    steps, states = bench_conv.iterations(p, ALPHA), {}
    for name, run in steps.items():
        for _ in range(3):
            run()
        state = next(c.cell_contents for c in run.__closure__ if not callable(c.cell_contents))
        states[name] = state[1] if name == bench_conv.PUBLISHED else state
    expected = flat(states[bench_conv.PUBLISHED])
    assert_close(flat(states[bench_conv.BEST]), expected, scale=size(expected), tol=1e-5)
    for ours in (states[bench_conv.WHOLE], np.concatenate(states[bench_conv.OURS])):
        assert_close(ours.reshape(BATCH, -1), expected, scale=size(expected), tol=1e-5)


def test_calls_soon_after_the_other_side_are_not_counted():
    began, calls = time.perf_counter(), []
    sides = {name: functools.partial(calls.append, name) for name in ("ours", "theirs")}
    times = bench_conv.interleaved(sides, 4, block=2, settle=1, rest=0.01)
    assert time.perf_counter() - began >= 4 * 0.01  # two blocks a side
    assert {name: len(found) for name, found in times.items()} == {"ours": 4, "theirs": 4}
    assert len(calls) > 4 * (2 + 1)
    calls.clear()
    bench_conv.interleaved({"ours": sides["ours"]}, 4, block=2, settle=1, rest=0.01)
    assert len(calls) == 2 * (2 + 1)  # alone it has nobody to wait for


def test_counts_by_hand():
    n, h, w = 3, 4, 4
    need = bench_conv.counts(bench_conv.Case((n,), h), batch=5)
    assert need["blocks_gflop"] == pytest.approx(1e-9 * 8 * 5 * (h // 2 + 1) * w * n**2)
    assert need["fft_gflop"] == pytest.approx(1e-9 * 2 * 2.5 * 5 * n * 16 * 4)
    # (2 x 3, 4) by (4, 4), and for each of 3 rows (8, 8) by (8,), there and back
    assert need["transform_gflop"] == pytest.approx(1e-9 * 2 * 5 * n * (2 * 6 * 4 * 4 + 3 * 2 * 64))


@pytest.mark.parametrize("case", CASES[:2])
def test_memory_does_not_grow(case):
    few, many = (bench_conv.memory(case, tol, batch=64) for tol in (2e-2, 4e-3))
    assert many["peak"] <= 1.05 * few["peak"]
    assert many["iterations"] > 3 * few["iterations"]
    assert few["state"] >= 64 * 4e-6 * case.entries  # tiers of networks may be larger than halves


def test_command_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(bench_conv.CASES, "small", CASES[1])
    monkeypatch.setattr(bench_conv, "compare", functools.partial(bench_conv.compare, batch=2))
    path = tmp_path / "found.json"
    arguments = ["--threads", "1", "--runs", "1", "--cases", "small", "--json", str(path)]
    monkeypatch.setattr(sys, "argv", ["bench_conv", *arguments])
    bench_conv.main()
    assert "bound: " in capsys.readouterr().out
    found = json.loads(path.read_text(encoding="utf-8"))["small"]
    ratios = {"published", "rfft2 + complex bmm", "products only", "implicitref, batch whole"}
    assert set(found["iteration"]["ratio"]) == ratios
