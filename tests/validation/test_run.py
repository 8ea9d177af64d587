"""How ``implicitref verify`` runs: journal and --resume, processes, a Dask cluster, backends, papers."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from implicitref import claims

NAME = claims.validation().__name__
run = importlib.import_module(f"{NAME}.run")
tasks = importlib.import_module(f"{NAME}.tasks")
table = importlib.import_module(f"{NAME}.table")
journal = importlib.import_module(f"{NAME}.journal")
cluster = importlib.import_module(f"{NAME}.cluster")
backend = importlib.import_module(f"{NAME}.backend")
verdict = importlib.import_module(f"{NAME}.verdict")
SOURCE = Path(claims.__file__).parents[2]
PLAIN = {"seed": 0, "claim": None, "paper": "fpn", "html": None, "size": 0.02}


def verify(path, **changes):
    return run.main(Namespace(**PLAIN | {"json": str(path)} | changes))


def report(path):
    found = json.loads(path.read_text(encoding="utf-8"))
    del found["times"]
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    path = tmp_path_factory.mktemp("alone") / "r.json"
    assert verify(path) == 0
    return path


# ------------------------------------------------------------------------------------------------
# which entries


def test_every_entry_is_about_a_paper_and_every_paper_has_entries():
    found = {claim.id: tasks.papers(claim) for claim in tasks.everything()}
    assert set().union(*found.values()) == set(tasks.PAPERS)
    assert found["MON-Alg2"] == ("mon",)
    assert found["JFB-Alg1"] == ("jfb", "fpn")
    assert found["NEW-stopping-fooled"] == ("ours", "mon")
    assert found["digits"] == ("ours",)
    assert all((paper[0] == "ours") == name.startswith(("NEW", "digits")) for name, paper in found.items())


def test_a_paper_selects_its_entries_and_writes_no_report_unasked(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tasks, "check", lambda claim, *rest: tasks.Outcome(claim, (), tasks.DEFINITION))
    assert verify("", json=None, paper="sequential") == 0
    shown = capsys.readouterr().out
    assert "GREEDY-Thm1" in shown
    assert "MON-" not in shown
    assert list(tmp_path.iterdir()) == []


def test_the_report_names_paper_level_backend_and_the_command_of_each_entry(alone):
    found = report(alone)
    assert (found["level"], found["backend"], found["size"]) == ("quick", "numpy", 0.02)
    for claim in found["claims"]:
        assert claim["paper"] == claim["papers"][0]
        assert "fpn" in claim["papers"]
        assert claim["backend"] == "numpy"
        command = f"implicitref verify --claim {claim['id']} --seed 0"
        assert claim["command"] == (command if claim["verdicts"] else "")


def test_the_command_repeats_seed_level_and_backend():
    settings = tasks.Settings(3, 10.0, "full", "torch")
    assert settings.command("A") == "implicitref verify --claim A --seed 3 --level full --backend torch"


# ------------------------------------------------------------------------------------------------
# the journal


def outcome(measured=1.0):
    found = verdict.compare("MON-Alg2", "x", measured, "<=", math.inf, worst="here")
    return tasks.Outcome(claims.load()["MON-Alg2"], (found,), tasks.DISAGREES, "message", 0.1 + 0.2, "torch")


def test_a_journal_gives_back_what_was_put_in(tmp_path):
    path = tmp_path / "j"
    journal.begin(path, {"seed": 0}, [outcome(0.1)])
    definition = tasks.Outcome(claims.load()["MON-Eq1"], (), tasks.DEFINITION)
    journal.add(path, definition)
    assert journal.read(path) == ({"seed": 0}, [outcome(0.1), definition])
    journal.begin(path, {"seed": 1}, [outcome(math.nan), outcome(-math.inf)])
    first, second = (found.verdicts[0].measured for found in journal.read(path)[1])
    assert math.isnan(first)
    assert second == -math.inf


@pytest.mark.parametrize("torn", ['{"claim": "MON-Eq1", "ver', "null\n", "{}\n", '{"claim": "no such"}\n'])
def test_a_torn_line_is_left_out(tmp_path, torn):
    path = tmp_path / "j"
    journal.begin(path, {"seed": 0}, [outcome()])
    with path.open("a") as file:
        file.write(torn)
    assert journal.read(path)[1] == [outcome()]


def test_what_is_no_journal_is_refused(tmp_path, capsys):
    (tmp_path / "r.json.journal").write_text("hello\n")
    assert verify(tmp_path / "r.json", resume=True) == 2
    assert "is no journal of a verification" in capsys.readouterr().err
    entry = {"claim": "MON-Alg2", "verdicts": [{"colour": "red"}]}
    (tmp_path / "r.json.journal").write_text('{"seed": 0}\n' + json.dumps(entry) + "\n")
    assert verify(tmp_path / "r.json", resume=True) == 2
    assert "was written by another version" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"seed": 1}, "seed was 0, is 1"), ({"size": 0.03}, "size was 0.02"), ({"paper": "jfb"}, "paper was fpn, is jfb")],
)
def test_resume_names_what_differs(tmp_path, capsys, monkeypatch, changes, named):
    path = tmp_path / "r.json"
    stop_after(2, monkeypatch)
    assert verify(path) == 130
    assert verify(path, resume=True, **changes) == 2
    assert named in capsys.readouterr().err
    assert (tmp_path / "r.json.journal").exists()


def stop_after(count, monkeypatch):
    """Ctrl-C at the entry after that many; the names of what is checked."""
    names = []

    def check(claim, *rest, whole=tasks.check):
        if len(names) == count:
            raise KeyboardInterrupt
        names.append(claim.id)
        return whole(claim, *rest)

    monkeypatch.setattr(tasks, "check", check)
    return names


def test_without_resume_a_run_starts_anew_and_says_so(tmp_path, capsys, monkeypatch, alone):
    path = tmp_path / "r.json"
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        assert verify(path) == 130
    names = stop_after(1000, monkeypatch)
    assert verify(path) == 0
    assert "starts anew" in capsys.readouterr().err
    assert names == [claim["id"] for claim in report(alone)["claims"]]
    assert report(path) == report(alone)


def test_resume_without_a_report_is_refused_and_without_a_journal_starts(tmp_path, capsys, alone):
    assert verify("", json=None, resume=True) == 2
    assert "name the report" in capsys.readouterr().err
    assert verify(tmp_path / "r.json", resume=True) == 0
    assert report(tmp_path / "r.json") == report(alone)


CHILD = f"""
from argparse import Namespace
import importlib, sys
from implicitref import claims
run = importlib.import_module(claims.validation().__name__ + ".run")
sys.exit(run.main(Namespace(**{PLAIN!r}, json=sys.argv[1])))
"""


def test_a_killed_run_is_resumed_to_the_same_report(tmp_path, capsys, monkeypatch, alone):
    path, kept = tmp_path / "r.json", tmp_path / "r.json.journal"
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], env=environment, stdout=subprocess.DEVNULL)
    while process.poll() is None and (not kept.exists() or kept.read_text().count("\n") < 6):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it must be killed before it ends"
    assert not path.exists()
    finished = [found.claim.id for found in journal.read(kept)[1]]
    names = stop_after(1000, monkeypatch)
    assert verify(path, resume=True) == 0
    assert f"goes on after {len(finished)} entries" in capsys.readouterr().err
    assert len(finished) >= 5
    assert sorted([*finished, *names]) == sorted(claim["id"] for claim in report(alone)["claims"])
    assert report(path) == report(alone)
    assert not kept.exists()


def test_a_journal_that_breaks_does_not_end_the_run(tmp_path, capsys, monkeypatch, alone):
    def full(*args):
        raise OSError("no space left")

    monkeypatch.setattr(journal, "add", full)
    assert verify(tmp_path / "r.json") == 0
    assert capsys.readouterr().err.count("the journal could not be written: no space left") == 1
    assert report(tmp_path / "r.json") == report(alone)
    monkeypatch.setattr(journal, "begin", full)
    assert verify(tmp_path / "r.json") == 2


# ------------------------------------------------------------------------------------------------
# processes and cluster


def test_workers_that_die_leave_the_journal_and_are_status_3(tmp_path, capsys, monkeypatch):
    def dying(claims, settings, *rest):
        yield tasks.check(claims[0], settings.seed, settings.size)
        raise tasks.WorkersLost("a worker was killed")

    monkeypatch.setattr(run, "checked_there", dying)
    assert verify(tmp_path / "r.json", jobs=2) == 3
    assert "the workers are lost (a worker was killed) after 1 entries; they are kept in" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["r.json.journal"]


@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_loses_a_worker_gives_the_verdicts_of_the_serial_run(tmp_path, monkeypatch, alone):
    distributed = pytest.importorskip("distributed", reason="the extra distributed is not installed")
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=60
    ) as local:
        killed = []

        def add(path, found, whole=journal.add):
            whole(path, found)
            if not killed:
                killed.append(local.workers[1].pid)
                os.kill(killed[0], signal.SIGKILL)

        monkeypatch.setattr(journal, "add", add)
        monkeypatch.delattr(tasks, "check")  # this process checks nothing
        assert verify(tmp_path / "r.json", scheduler=local.scheduler_address) == 0
    assert len(killed) == 1
    assert report(tmp_path / "r.json") == report(alone)


def test_a_cluster_that_cannot_be_used_is_2(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert verify(tmp_path / "r.json", scheduler="tcp://127.0.0.1:1") == 2
    assert "pip install 'implicitref[distributed]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_worker_of_another_version_is_refused():
    found = run.environment()
    workers = Namespace(run=lambda function: {"tcp://a": found, "tcp://b": found | {"numpy": "1.0"}})
    with pytest.raises(tasks.Refused, match=r"the worker tcp://b has numpy 1\.0; here it is 2"):
        cluster._check_versions(workers)
    cluster._check_versions(Namespace(run=lambda function: {"tcp://a": function()}))


def test_a_cluster_that_does_not_know_the_package_is_refused():
    def unknown(function):
        raise ModuleNotFoundError("No module named 'implicitref'")

    with pytest.raises(tasks.Refused, match="cannot run implicitref: ModuleNotFoundError"):
        cluster._check_versions(Namespace(run=unknown))


# ------------------------------------------------------------------------------------------------
# backends


@pytest.fixture
def strict(monkeypatch):
    """array_api_strict as one more backend: it refuses whatever is not in the standard, NumPy arrays first."""
    library = pytest.importorskip("array_api_strict")
    monkeypatch.setitem(backend._MOVES, "strict", lambda: library.asarray)
    return library


def test_numpy_scalars_have_crossed_nothing():
    border = backend.Border(np.asarray)
    border.inward((np.float64(2.0), np.zeros(3)))
    assert border.crossed == 0


def test_a_report_is_replaced_in_one_instant(tmp_path, monkeypatch):
    path = tmp_path / "r.json"
    path.write_text("the former report")
    monkeypatch.setattr("os.replace", lambda *names: (_ for _ in ()).throw(OSError(5, "killed")))
    with pytest.raises(OSError, match="killed"):
        run._write({"json": str(path)}, {"claims": []})
    assert path.read_text() == "the former report"


@pytest.mark.parametrize(
    "claim",
    ["MON-Alg3", "MON-Thm2", "NEW-cert-C2", "MON-Sec4.1-cost", "MON-Eq28", "JFB-Eq13", "GREEDY-Asm3"],
)
def test_the_package_runs_on_the_library_and_the_validation_on_the_host(strict, claim):
    here, there = (tasks.check(claims.load()[claim], 0, 0.02, name) for name in ("numpy", "strict"))
    assert (here.state, here.backend) == ("as registered", "numpy")
    assert (there.state, there.backend, there.message) == ("as registered", "strict", "")
    assert [v.trials for v in there.verdicts] == [v.trials for v in here.verdicts], "the same problems"
    again = tasks.check(claims.load()[claim], 0, 0.02)
    assert dataclasses.replace(again, seconds=here.seconds) == here, "nothing of the border stays behind"


def test_a_bug_of_one_library_alone_is_noticed(strict, monkeypatch):
    certificates = importlib.import_module("implicitref.splitting.certificates")

    @functools.wraps(certificates.sensitivity)
    def wrong(m, db, whole=certificates.sensitivity):
        return whole(m, db) if type(db) is np.ndarray else whole(m, db) / 2

    monkeypatch.setattr(certificates, "sensitivity", wrong)
    entry = claims.load()["NEW-sensitivity"]
    assert tasks.check(entry, 0, 0.02).state == "as registered"
    assert tasks.check(entry, 0, 0.02, "strict").state == "disagrees"


def test_what_knows_only_numpy_says_so_and_is_counted(strict, capsys):
    outcomes = [tasks.check(claims.load()[name], 0, 0.02, "strict") for name in ("MON-Eq24", "MON-EqC23", "MON-Eq1")]
    assert [found.backend for found in outcomes] == ["strict", "numpy", "numpy"]
    table.conclusion(outcomes, tasks.Settings(backend="strict"), 0.0)
    assert "1 entries ran on strict, 1 on NumPy only: MON-EqC23" in capsys.readouterr().out


def test_a_library_that_is_not_there_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert verify(tmp_path / "r.json", backend="cupy") == 2
    assert "pip install cupy-cuda12x" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_torch_and_jax(name):
    pytest.importorskip(name)
    found = tasks.check(claims.load()["MON-Eq24"], 0, 0.02, name)
    assert (found.state, found.backend) == ("as registered", name)
