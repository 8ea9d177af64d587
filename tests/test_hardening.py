"""Bad input by the hundred, extreme conditioning, threads with one operator, files of others, death while writing."""

from __future__ import annotations

import csv
import gzip
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import implicitref as ir
from implicitref import claims, datasets
from implicitref.operators import MonotoneConv, MonotoneDense, MonotoneMultiTier

fuzz = __import__(f"{claims.validation().__name__}.fuzz", fromlist=["fuzz"])
RNG = np.random.default_rng(0)


# ------------------------------------------------------------------------------------------------
# Fuzzing


def test_a_slice_of_the_fuzzing_finds_no_fault():
    found = fuzz.run(3 * len(fuzz.TARGETS), seed=0)
    assert found.faults == []
    assert found.total["calls"] >= 3 * len(fuzz.TARGETS)


def forever(d):
    while True:  # of Python's own instructions: a loop inside compiled code hears no signal before it ends
        pass


FAULTY = {
    "another exception": lambda d: {}["key"],
    "a warning": lambda d: np.float64(1e308) * 10,
    "a NaN": lambda d: fuzz.sound({"a": [np.array([np.nan])]}),
    "TypeError of NumPy": lambda d: np.ones(2) + "x",
    "ValueError of NumPy": lambda d: np.ones(2) @ np.ones(3),
    "no end": forever,
    "no message": lambda d: (_ for _ in ()).throw(ir.ShapeError()),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_the_fuzzing_sees_every_kind_of_fault(fault, monkeypatch):
    monkeypatch.setattr(fuzz, "SECONDS", 0.2)
    monkeypatch.setitem(fuzz.TARGETS, "faulty", FAULTY[fault])
    found = fuzz.run(1, seed=0, only=("faulty",))
    assert len(found.faults) == 1


# ------------------------------------------------------------------------------------------------
# Conditioning: L/m up to 1e12


def conditioned(m, ratio):
    """G = I - W = Q diag(m ... ratio m) Q' plus a rotation, and its operator."""
    n = 6
    Q = np.linalg.qr(np.random.default_rng(1).normal(size=(n, n)))[0]
    G = Q @ np.diag(m * np.geomspace(1, ratio, n)) @ Q.T
    K = np.random.default_rng(2).normal(size=(n, n))
    G = G + m * (K - K.T)
    return MonotoneDense.from_weight(np.eye(n) - G, m * (1 - 1e-6) if ratio < 1e6 else m * 1e-1), G


@pytest.mark.parametrize("method", ["peaceman-rachford", "forward-backward"])
@pytest.mark.parametrize("ratio", [1.0, 1e3, 1e6, 1e12])
@pytest.mark.parametrize("m", [1e-8, 1e-3, 1.0, 1e3, 1e8])
def test_ill_conditioned_equations_are_solved_with_a_true_certificate_or_honestly_not(m, ratio, method):
    try:
        W, _ = conditioned(m, ratio)
    except ir.HypothesisError:
        return  # the rounding of G ate m, and that is said
    b = np.random.default_rng(3).normal(size=(2, 6))
    G = np.eye(6) - W.to_dense()
    identity = ir.activations.leaky_relu(1.0)  # so that the truth is a linear solve
    truth = precise_solve(G, b)
    try:
        solution = ir.mon.equilibrium(W, b, identity, method=method, tol=1e-6 / m, max_iter=300)
    except ir.ConvergenceError as error:
        solution = error.solution
    assert (solution.converged == (solution.bound <= 1e-6 / m)).all()
    assert (np.linalg.norm(solution.z - truth, axis=1) <= solution.bound * (1 + 1e-9)).all()


def precise_solve(G, b):
    """G z = b with fifty digits."""
    mpmath = pytest.importorskip("mpmath", reason="mpmath is not installed")
    with mpmath.workdps(50):
        return np.array([[float(v) for v in mpmath.lu_solve(mpmath.matrix(G), mpmath.matrix(row))] for row in b])


# ------------------------------------------------------------------------------------------------
# Threads


def shared_operators():
    A, B = RNG.normal(size=(2, 2, 3, 3, 3)) / 6, RNG.normal(size=(2, 2, 3, 3, 3)) / 6
    square = RNG.normal(size=(2, 12, 12)) / 4
    tiers = MonotoneMultiTier(
        [A[0, :1, :1], A[1, :, :2]], [B[0, :1, :1], B[1, :, :2]], [A[0, :, :1]], 1.0, [(4, 4), (2, 2)]
    )
    return {
        "dense": MonotoneDense(*square, 1.0),
        "conv": MonotoneConv(A[0, :, :2], B[0, :, :2], 1.0, (4, 4)),
        "multitier": tiers,
    }


@pytest.mark.parametrize("kind", ["dense", "conv", "multitier"])
def test_eight_threads_with_one_operator_give_the_same_bits(kind):
    W = shared_operators()[kind]
    injections = [np.random.default_rng(i).normal(size=(2, *W.state_shape)) for i in range(8)]

    def work(operator, b):
        solution = ir.mon.equilibrium(operator, b, ir.activations.tanh, tol=1e-9)
        grads, _ = ir.mon.equilibrium_vjp(operator, b, ir.activations.tanh, solution.z, b, tol=1e-9)
        return [solution.z, solution.bound, *(g for value in grads.values() for g in ir.arrays.leaves(value))]

    together = threading.Barrier(8)

    def with_the_others(b):
        together.wait()  # all ask for the first factors at once
        return work(W, b)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(with_the_others, injections))
    alone = W.replace(m=W.m)  # an operator that has computed nothing yet
    for b, results in zip(injections, found, strict=True):
        for result, desired in zip(results, work(alone, b), strict=True):
            np.testing.assert_array_equal(result, desired)


# ------------------------------------------------------------------------------------------------
# Files of others


def idx_files(folder, images, labels):
    for stem, array in ((s, images if "idx3" in s else labels) for s in datasets.IDX.values()):
        head = bytes((0, 0, 8, array.ndim)) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
        (folder / stem).write_bytes(head + array.astype(np.uint8).tobytes())


def damaged(content, rng):
    content = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        kind, at = rng.integers(3), int(rng.integers(len(content)))
        if kind == 0:
            content[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del content[at : at + int(rng.integers(1, 200))]
        else:
            content[at:at] = rng.integers(256, size=int(rng.integers(1, 9)), dtype=np.uint8).tobytes()
        content = content or bytearray(b"x")
    return bytes(content)


@pytest.mark.parametrize("form", ["idx", "idx.gz", "npz", "saved"])
def test_damaged_files_are_read_right_or_refused(tmp_path, form):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(256, size=(6, 3, 3)), np.arange(6) % 2
    arrays = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
    idx_files(tmp_path, images, labels)
    victim, read = tmp_path / datasets.IDX["x_train"], lambda: datasets.load(tmp_path)
    if form == "idx.gz":
        packed = victim.with_name(victim.name + ".gz")
        packed.write_bytes(gzip.compress(victim.read_bytes()))
        victim.unlink()
        victim = packed
    elif form == "npz":
        victim = tmp_path / "d.npz"
        np.savez_compressed(victim, **{k: v.astype(np.uint8) for k, v in arrays.items()})
        read = lambda: datasets.load(victim)  # noqa: E731
    elif form == "saved":
        victim = tmp_path / "s.npz"
        ir.save(victim, shared_operators()["dense"])
        read = lambda: ir.load(victim)  # noqa: E731
    whole, refused = victim.read_bytes(), 0
    read()
    for _ in range(100):
        victim.write_bytes(damaged(whole, rng))
        try:
            read()
        except (ir.HypothesisError, ir.ShapeError):
            refused += 1
    assert refused >= 20


# ------------------------------------------------------------------------------------------------
# Death


WRITERS = {
    "save": "ir.save(path, np.full(2**18, float(i)))",
    "checkpoint": "checkpoints.save(path, np.full(2**18, float(i)), {'i': i})",
    "json": "write_json(pathlib.Path(path), {'values': [i] * 100_000})",
}
WRITING = """
    import itertools, pathlib, sys
    import numpy as np
    import implicitref as ir
    from implicitref.commands.common import write_json
    from implicitref.training import checkpoints

    path = sys.argv[1]
    for i in itertools.count():
        {call}
        if i == 0:
            print("writing", flush=True)
"""


def is_whole(kind, path):
    if kind == "json":
        values = json.loads(path.read_text())["values"]
        return len(values) == 100_000 and len(set(values)) == 1
    loaded = ir.load(path)
    array = loaded.state if kind == "checkpoint" else loaded
    return array.shape == (2**18,) and np.unique(array).size == 1


@pytest.mark.parametrize("kind", WRITERS)
def test_sigkill_in_the_middle_of_a_writer_leaves_the_old_or_the_new_file(tmp_path, kind):
    path, rng = tmp_path / "f.npz", np.random.default_rng(0)
    code = textwrap.dedent(WRITING).format(call=WRITERS[kind])
    environment = {**os.environ, "PYTHONPATH": str(Path(ir.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "writing\n"
    for _ in range(20):  # a reader meanwhile
        assert is_whole(kind, path)
        time.sleep(float(rng.uniform(0, 0.01)))
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert is_whole(kind, path)


COMMANDS = {
    "vectors": ("vectors", "write", "{folder}"),
    "verify": ("verify", "--claim", "MON-Thm1", "--json", "{folder}/r.json", "--html", "{folder}/r.html"),
    "reproduce": ("reproduce", "mon-table-d1", "--out", "{folder}", "--json", "{folder}/t.json"),
}


def is_complete(path):
    """Nothing of a file is missing, by what its format ends with."""
    content = path.read_bytes()
    match path.suffix:
        case ".json":
            return isinstance(json.loads(content), dict)
        case ".npz":
            return bool(np.load(path, allow_pickle=False).files)
        case ".png":
            return content.endswith(b"IEND\xaeB`\x82")
        case ".csv":
            return len({len(row) for row in csv.reader(content.decode().splitlines())}) == 1 and content.endswith(b"\n")
    return content.rstrip().endswith({".svg": b"</svg>", ".html": b"</html>"}[path.suffix])


def finished(folder):
    """What a command has put in place: unfinished files have names that begin with a dot, a journal grows by lines."""
    return {path for path in folder.rglob("[!.]*") if path.is_file() and path.suffix != ".journal"}


@pytest.mark.parametrize(("name", "count"), [("vectors", 20), ("verify", 1), ("reproduce", 1)])
def test_sigkill_of_a_command_leaves_whole_files(tmp_path, name, count):
    """Killed as soon as so many files are there, when it is writing the next."""
    command = [sys.executable, "-m", "implicitref", *(part.format(folder=tmp_path) for part in COMMANDS[name])]
    environment = {**os.environ, "PYTHONPATH": str(Path(ir.__file__).parents[1])}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(finished(tmp_path)) < count and process.poll() is None:
        time.sleep(1e-3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(found := finished(tmp_path)) >= count
    assert [path for path in found if not is_complete(path)] == []
