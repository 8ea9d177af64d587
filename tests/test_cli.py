"""The command line: statuses, messages without tracebacks, resuming, and death at any moment."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest

from implicitref import __main__ as cli
from implicitref import __version__, datasets, networks
from implicitref.training import checkpoints

QUICK = ["train", "mon-fc", "--data", "digits", "--hidden", "12", "--epochs", "2", "--batch", "100"]


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def arrays_of(path):
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive if name != "header"}


def test_version_and_help(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out == f"implicitref {__version__}\n"
    for command in ([], ["train"], ["verify"]):
        assert run(*command, "--help") == 0
        assert f"implicitref {' '.join(command)}".strip() in capsys.readouterr().out.split("example")[1]


def test_digits_with_defaults_reach_95_percent(tmp_path, capsys):
    assert run("train", "mon-fc", "--data", "digits", "--json", tmp_path / "r.json") == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["history"][-1]["test_accuracy"] >= 0.95
    assert report["parameters"] == 64 * 87 + 87 + 2 * 87**2 + 870 + 10
    assert report["schema"] == "implicitref-training"
    assert len(report["history"]) == report["config"]["epochs"]
    assert capsys.readouterr().out.count("certified error") == report["config"]["epochs"]


def test_the_papers_recipe_can_be_varied(tmp_path):
    assert run(*QUICK[:4], "--recipe", "paper", "--epochs", "1", "--hidden", "5", "--json", tmp_path / "r.json") == 0
    config = json.loads((tmp_path / "r.json").read_text())["config"]
    desired = {"epochs": 1, "batch": 128, "learning_rate": 1e-3, "schedule": "step", "tol": 1e-2, "weight_decay": 0.0}
    desired |= {"stop": "relative-change", "alpha": "tuned"}
    assert {name: config[name] for name in desired} == desired


def test_resuming_gives_the_uninterrupted_training(tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole.npz", tmp_path / "parts.npz"
    assert run(*QUICK, "--checkpoint", whole) == 0

    def interrupted(*arguments, saved=checkpoints.save):
        saved(*arguments)
        if len(arguments[1].history) == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", interrupted)
        assert run(*QUICK, "--checkpoint", parts) == 130
    assert run(*QUICK, "--checkpoint", parts, "--resume") == 0
    a, b = arrays_of(whole), arrays_of(parts)
    assert set(a) == set(b)
    assert all(np.array_equal(a[name], b[name]) for name in a)


IMAGES = {
    "mon-conv": ["train", "mon-conv", "--channels", "4", "--epochs", "2", "--batch", "500", "--augment", "crop"],
    "mon-multitier": ["train", "mon-multitier", "--channels", "2,3", "--epochs", "2", "--batch", "500"],
}


JFB = ["train", "jfb-mnist", "--data", "digits", "--batch", "500", "--epochs", "2", "--tol", "1"]


@pytest.mark.parametrize(("rule", "products"), [("jfb", 0), ("neumann:2", 2), ("implicit", None)])
@pytest.mark.claim("JFB-Tab2")
def test_fixed_point_networks_train_by_every_rule_and_in_pieces(rule, products, tmp_path, capsys):
    whole, parts, command = tmp_path / "whole.npz", tmp_path / "parts.npz", [*JFB, "--rule", rule, "--blocks", "1"]
    assert run(*command, "--checkpoint", whole, "--json", tmp_path / "r.json") == 0
    report = json.loads((tmp_path / "r.json").read_text())
    first, last = report["history"]
    assert last["loss"] < first["loss"]
    assert last["backward_iterations"] == products if products is not None else last["backward_iterations"] > 2
    assert (report["config"]["rule"], report["config"]["gamma"], first["certified_error"]) == (rule, 0.5, None)
    assert "certified" not in capsys.readouterr().out
    status = run(*command, "--checkpoint", parts, "--minutes", "1e-9")
    while status == 3:
        status = run(*command, "--checkpoint", parts, "--resume", "--minutes", "1e-9")
    assert status == 0
    a, b = arrays_of(whole), arrays_of(parts)
    assert any(name.endswith("bn_1.running_mean") for name in a)
    assert set(a) == set(b)
    assert all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("model", IMAGES)
def test_networks_on_images_train_in_pieces(model, tmp_path, capsys, monkeypatch):
    whole, parts, pieces = tmp_path / "whole.npz", tmp_path / "parts.npz", 0
    assert run(*IMAGES[model], "--checkpoint", whole, "--json", tmp_path / "r.json") == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["config"]["channels"] == ([4] if model == "mon-conv" else [2, 3])
    assert report["history"][1]["loss"] < report["history"][0]["loss"]
    status = run(*IMAGES[model], "--checkpoint", parts, "--minutes", "1e-9")
    assert status == 3
    assert "in epoch 1, after 1 of 3 minibatches" in capsys.readouterr().err
    while status == 3:
        pieces, status = pieces + 1, run(*IMAGES[model], "--checkpoint", parts, "--resume", "--minutes", "1e-9")
    assert status == 0
    assert pieces == 5
    a, b = arrays_of(whole), arrays_of(parts)
    assert set(a) == set(b)
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_the_papers_recipe_serves_networks_on_images(tmp_path):
    assert run(*IMAGES["mon-conv"][:4], "--recipe", "paper", "--epochs", "1", "--json", tmp_path / "r.json") == 0
    config = json.loads((tmp_path / "r.json").read_text())["config"]
    assert (config["learning_rate"], config["schedule"], config["alpha"]) == (1e-3, "step", "tuned")


def test_a_gpu_that_is_not_there_is_said_so(capsys):
    try:
        import cupy

        if cupy.cuda.is_available():
            pytest.skip("there is a GPU")
    except ImportError:
        pass
    assert run(*IMAGES["mon-conv"], "--device", "gpu") == 2
    assert "--device gpu" in capsys.readouterr().err


def test_an_existing_checkpoint_is_not_overwritten(tmp_path, capsys):
    path = tmp_path / "c.npz"
    assert run(*QUICK, "--checkpoint", path) == 0
    before = path.read_bytes()
    assert run(*QUICK, "--checkpoint", path) == 2
    assert "--resume" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_resuming_with_other_settings_names_them(tmp_path, capsys):
    path = tmp_path / "c.npz"
    assert run(*QUICK, "--checkpoint", path) == 0
    assert run(*QUICK, "--checkpoint", path, "--resume", "--batch", "50", "--seed", "3") == 2
    assert "batch = 100 (now 50), seed = 0 (now 3)" in capsys.readouterr().err
    assert run(*QUICK, "--checkpoint", path, "--resume") == 0  # complete: nothing left to do


def bad_inputs(folder):
    (folder / "text.npz").write_text("no archive")
    np.savez(folder / "objects.npz", **dict.fromkeys(("x_train", "y_train", "x_test", "y_test"), np.array([None])))
    np.savez(folder / "foreign.npz", x=np.ones(2))
    rows, labels = np.arange(24, dtype=np.uint8).reshape(4, 6), np.arange(4) % 2
    np.savez(folder / "rows.npz", x_train=rows, y_train=labels, x_test=rows, y_test=labels)
    (folder / "empty").mkdir()
    train = ["train", "mon-fc"]
    return {
        "no command": [],
        "command": ["fly"],
        "model": ["train", "resnet"],
        "option": [*train, "--wings", "2"],
        "missing data": [*train, "--data", folder / "none.npz"],
        "text": [*train, "--data", folder / "text.npz"],
        "objects": [*train, "--data", folder / "objects.npz"],
        "lacking": [*train, "--data", folder / "foreign.npz"],
        "empty folder": [*train, "--data", folder / "empty"],
        "activation": [*train, "--activation", "gelu"],
        "parameter": [*train, "--activation", "relu:1"],
        "number": [*train, "--activation", "leaky_relu:x"],
        "m": [*train, "--m", "0"],
        "m nan": [*train, "--m", "nan"],
        "epochs": [*train, "--epochs", "0"],
        "hidden": [*train, "--hidden", "many"],
        "rate": [*train, "--learning-rate", "-1"],
        "decay": [*train, "--weight-decay", "-1"],
        "decay inf": [*train, "--weight-decay", "inf"],
        "rate text": [*train, "--learning-rate", "fast"],
        "colon": [*train, "--activation", "elu:"],
        "too large": [*train, "--hidden", "10000000000000"],
        "json is a folder": [*train, "--json", folder],
        "json empty": [*train, "--json", ""],
        "json in no folder": [*train, "--json", folder / "none" / "r.json"],
        "checkpoint is a folder": [*train, "--checkpoint", folder],
        "schedule": [*train, "--schedule", "cosine"],
        "channels of mon-fc": [*train, "--channels", "3"],
        "hidden of mon-conv": ["train", "mon-conv", "--hidden", "3"],
        "two channels": ["train", "mon-conv", "--channels", "3,4"],
        "no channels": ["train", "mon-conv", "--channels", "0"],
        "comma": ["train", "mon-multitier", "--channels", "3,,4"],
        "too many tiers": ["train", "mon-multitier", "--channels", "2,2,2,2,2"],
        "rows": ["train", "mon-conv", "--data", folder / "rows.npz"],
        "augmented rows": [*train, "--augment", "crop"],
        "rule": [*JFB, "--rule", "neumann"],
        "rule of mon-fc": [*train, "--rule", "jfb"],
        "stop of jfb-mnist": [*JFB, "--stop", "certificate"],
        "gamma": [*JFB, "--gamma", "1"],
        "jfb-mnist on rows": ["train", "jfb-mnist", "--data", folder / "rows.npz"],
        "resume of another gamma": [*JFB, "--gamma", "0.4", "--resume", "--checkpoint", folder / "foreign.npz"],
        "minutes alone": [*train, "--minutes", "8"],
        "minutes": [*train, "--minutes", "0", "--checkpoint", folder / "d.npz"],
        "seed": [*train, "--seed", "-1"],
        "resume alone": [*train, "--resume"],
        "resume nothing": [*train, "--resume", "--checkpoint", folder / "none.npz"],
        "resume foreign": [*train, "--resume", "--checkpoint", folder / "foreign.npz"],
        "resume text": [*train, "--resume", "--checkpoint", folder / "text.npz"],
        "checkpoint folder": [*train, "--checkpoint", folder / "none" / "c.npz"],
    }


def test_bad_input_is_status_2_with_a_message(tmp_path, capsys):
    for name, arguments in bad_inputs(tmp_path).items():
        assert run(*arguments) == 2, name
        message = capsys.readouterr().err
        assert "implicitref" in message, name
        assert "Traceback" not in message
        assert "invalid _" not in message, name
        assert "could not convert" not in message, name


def test_a_failed_training_is_status_1_and_keeps_the_checkpoint(tmp_path, capsys):
    path = tmp_path / "c.npz"
    assert run(*QUICK, "--tol", "1e-12", "--checkpoint", path) == 1
    message = capsys.readouterr().err
    assert "training failed in epoch 1" in message
    assert "floor of float32" in message
    assert f"{path} is kept" in message
    checkpoints.load(path, networks.mon_fc(np.random.default_rng(0), 64, hidden=12))


@pytest.mark.parametrize("rate", ["1e30", "1e300"])
def test_a_diverging_training_is_status_1(rate, capsys):
    assert run(*QUICK, "--learning-rate", rate, "--schedule", "constant") == 1
    message = capsys.readouterr().err
    assert "training failed" in message
    assert "a smaller --learning-rate helps" in message


def test_an_interrupt_before_the_first_epoch_is_130_without_a_traceback(capsys, monkeypatch):
    def interrupted(source):
        raise KeyboardInterrupt

    monkeypatch.setattr(datasets, "load", interrupted)
    assert run(*QUICK) == 130
    assert capsys.readouterr().err == "implicitref: interrupted\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_output_that_cannot_be_written_is_status_1_without_a_traceback():
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    for command in ([*QUICK, "--epochs", "1"], ["verify", "--claim", "MON-Eq9"]):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "implicitref", *command], env=environment, stdout=full, stderr=subprocess.PIPE
            )
        assert done.returncode == 1
        assert b"No space left" in done.stderr
        assert b"Traceback" not in done.stderr


def test_verify_hands_its_arguments_on(monkeypatch):
    seen = []
    fake = types.ModuleType("a_validation")
    fake.run = types.ModuleType("a_validation.run")
    fake.__path__ = []
    fake.run.main = lambda arguments: seen.append(arguments) or 1
    monkeypatch.setitem(sys.modules, "a_validation", fake)
    monkeypatch.setitem(sys.modules, "a_validation.run", fake.run)
    monkeypatch.setattr("implicitref.claims.validation", lambda: fake)
    assert run("verify", "--json", "r.json", "--seed", "4", "--claim", "MON-Alg2") == 1
    assert isinstance(seen[0], argparse.Namespace)
    assert (seen[0].json, seen[0].html, seen[0].seed, seen[0].claim) == ("r.json", None, 4, "MON-Alg2")


def test_killing_the_command_leaves_a_checkpoint_that_resumes(tmp_path):
    path, rng = tmp_path / "c.npz", random.Random(1)
    command = [sys.executable, "-m", "implicitref", *QUICK, "--epochs", "60", "--batch", "300", "--checkpoint", path]
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    epochs = []
    for attempt in range(3):
        resume = ["--resume"] if attempt else []
        process = subprocess.Popen([*command, *resume], env=environment, stdout=subprocess.DEVNULL)
        while process.poll() is None and not path.exists():
            time.sleep(0.01)
        time.sleep(rng.uniform(0.2, 1.0) + (1.0 if attempt else 0.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
        network = networks.mon_fc(np.random.default_rng(0), 64, hidden=12)
        epochs.append(len(checkpoints.load(path, network)[0].history))
    assert epochs == sorted(epochs)
    assert epochs[-1] > 0


@pytest.mark.data
@pytest.mark.slow
def test_an_epoch_of_mnist_within_its_budget(tmp_path):
    data = Path(os.environ.get("IMPLICITREF_DATA", "")) / "mnist.npz"
    if not os.environ.get("IMPLICITREF_DATA") or not data.exists():
        pytest.skip("IMPLICITREF_DATA does not name a folder with mnist.npz")
    assert run("train", "mon-fc", "--data", data, "--epochs", "1", "--json", tmp_path / "r.json") == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["parameters"] == 84_313
    assert report["history"][0]["test_accuracy"] > 0.93
