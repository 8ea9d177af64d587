"""All commands alike: help with examples that work, one meaning a flag; doctor, evaluate, completion."""

from __future__ import annotations

import argparse
import importlib.util
import json
import shlex

import numpy as np
import pytest

import implicitref as ir
from implicitref import __main__ as cli
from implicitref import datasets, networks, training
from implicitref.commands import COMMANDS, doctor


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def parsers(parser=None):
    """Every parser that takes arguments, by the words of its command."""
    for action in (parser or cli._parser())._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, part in action.choices.items():
                yield name, part
                yield from ((f"{name} {inner}", deeper) for inner, deeper in parsers(part))


TOP = {name: parser for name, parser in parsers() if " " not in name}
LEAVES = {name: parser for name, parser in parsers() if not any(other.startswith(f"{name} ") for other, _ in parsers())}


def test_every_command_is_there():
    named = {"verify", "train", "evaluate", "crosscheck", "vectors", "reproduce", "explore", "bench", "doctor"}
    assert named <= set(TOP)
    assert len(TOP) == len(COMMANDS)


@pytest.mark.parametrize("name", TOP)
def test_help_has_examples_that_parse_and_the_statuses(name):
    epilog = TOP[name].epilog
    examples = [line.strip() for line in epilog.splitlines() if line.strip().startswith("implicitref ")]
    assert examples
    assert "exit status: 0 " in epilog
    for example in examples:
        arguments = cli._parser().parse_args(shlex.split(example)[1:])
        assert callable(arguments.run)
    assert TOP[name].description.endswith(".")


# a flag that several commands have means the same, looks the same and defaults to the same
MEANINGS = {
    "--json": {"metavar": "F", "default": None},
    "--html": {"metavar": "F", "default": None},
    "--checkpoint": {"metavar": "F", "default": None},
    "--seed": {"metavar": "N", "default": 0, "type": int},
}


@pytest.mark.parametrize("name", LEAVES)
def test_flags_mean_the_same_everywhere(name):
    flags = {flag: action for action in LEAVES[name]._actions for flag in action.option_strings}
    for flag, meaning in MEANINGS.items():
        if flag in flags:
            assert {key: getattr(flags[flag], key) for key in meaning} == meaning, flag
    for flag, action in flags.items():
        assert flag in ("-h", "--help") or (action.help and flag == flag.lower() and "_" not in flag)
    if name not in ("explore", "vectors write"):  # which find nothing that could be written down
        assert "--json" in flags


@pytest.mark.parametrize("name", LEAVES)
def test_a_json_file_in_no_folder_is_status_2(name, tmp_path, capsys):
    positional = {"train": ["mon-fc"], "evaluate": ["f.npz"], "crosscheck": ["f.py:g"], "reproduce": ["jfb-table-1"]}
    if any("--json" in action.option_strings for action in LEAVES[name]._actions):
        further = positional.get(name, [tmp_path] if "vectors" in name else [])
        assert run(*name.split(), *further, "--json", tmp_path / "none" / "r.json") == 2
        assert "Traceback" not in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------
# doctor


def test_doctor_finds_this_installation_well(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert run("doctor", "--json", tmp_path / "d.json") == 0
    out, report = capsys.readouterr().out, json.loads((tmp_path / "d.json").read_text())
    assert f"numpy             {np.__version__}" in out
    assert "self test: well" in out
    assert "\x1b" not in out
    assert report["versions"]["numpy"] == np.__version__
    assert report["self test"]["faults"] == []
    assert report["self test"]["seconds"] < 60  # 0.01 on a quiet machine
    assert any(pool["user_api"] == "blas" for pool in report["pools"])


def test_doctor_notices_a_wrong_equilibrium(monkeypatch, capsys):
    solve = ir.mon.equilibrium

    def wrong(*arguments, **options):
        solution = solve(*arguments, **options)
        solution.z[0, 0] += 1e-6
        return solution

    monkeypatch.setattr(ir.mon, "equilibrium", wrong)
    assert run("doctor") == 1
    assert "self test: the equilibrium of a random network is off by" in capsys.readouterr().out


def test_doctor_says_what_gets_in_the_way_and_what_it_cannot_write(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "warnings_about", lambda *_: ["two libraries quarrel"])
    monkeypatch.setattr(doctor, "write_json", lambda *_: 1)
    assert run("doctor", "--json", tmp_path / "d.json") == 1
    assert "warning: two libraries quarrel" in capsys.readouterr().out


def pool(threads, api="blas", name="openblas"):
    return {"user_api": api, "internal_api": name, "version": "0.3", "num_threads": threads}


@pytest.mark.parametrize(
    ("pools", "cores", "expected"),
    [
        ([pool(1), pool(1)], 4, []),
        ([pool(2), pool(2)], 2, ["2 BLAS libraries have threads of their own"]),
        ([pool(4)], 4, ["dense networks gain nothing"]),
        ([pool(1), pool(8, "openmp", "openmp")], 4, ["more threads than there are processors, 4"]),
        ([pool(1)], 1, []),
    ],
)
def test_doctor_warns_of_pools_that_get_in_each_others_way(pools, cores, expected):
    found = doctor.warnings_about(pools, cores)
    assert len(found) == len(expected)
    assert all(text in warning for text, warning in zip(expected, found, strict=True))


# ------------------------------------------------------------------------------------------------
# evaluate


def network(features=64):
    return networks.mon_fc(np.random.default_rng(0), features, hidden=10)


def test_evaluate_agrees_with_the_network_and_its_certificates_are_true(tmp_path, capsys):
    ir.save(tmp_path / "n.npz", network())
    assert run("evaluate", tmp_path / "n.npz", "--tol", "0.05", "--json", tmp_path / "e.json") == 0
    report, data = json.loads((tmp_path / "e.json").read_text()), datasets.digits()
    exact = network().logits(data.x_test.astype(np.float64), tol=1e-9)
    found = network().solve(data.x_test, tol=0.05, max_iter=5000)
    loose = network().readout(found.z).argmax(axis=1)
    assert report["accuracy"] == (loose == data.y_test).mean()
    assert report["largest certified error"] == found.bound.max() <= 0.05
    # certain: by hand, from the distance of two rows of the readout
    margins, weight = np.sort(exact, axis=1), network().readout_weight
    spread = max(np.linalg.norm(a - b) for a in weight for b in weight)
    surely = int((margins[:, -1] - margins[:, -2] > 2 * spread * 0.05).sum())
    assert surely <= report["certain"] < len(loose)
    assert (loose == exact.argmax(axis=1)).sum() >= report["certain"]
    assert f"{100 * report['accuracy']:.2f} % of 360 test images" in capsys.readouterr().out


def test_evaluate_reads_checkpoints_and_says_which_data(tmp_path, capsys):
    config = {"data": datasets.digits().fingerprint()}
    state = training.start(networks.jfb_mnist(np.random.default_rng(0), (1, 8, 8), blocks=1), np.random.default_rng(1))
    training.checkpoints.save(tmp_path / "c.npz", state, config)
    assert run("evaluate", tmp_path / "c.npz", "--tol", "0.1") == 0
    assert "no error is certified" in capsys.readouterr().out
    training.checkpoints.save(tmp_path / "c.npz", training.start(network(), np.random.default_rng(1)), {"data": 3})
    assert run("evaluate", tmp_path / "c.npz", "--tol", "0.1") == 0
    assert "not the data that the network was trained on" in capsys.readouterr().out


def test_evaluate_of_an_implicit_model_bounds_every_logit(tmp_path, capsys):
    ir.save(tmp_path / "i.npz", networks.implicit_model(np.random.default_rng(0), 5, 64, 10))
    assert run("evaluate", tmp_path / "i.npz", "--json", tmp_path / "e.json") == 0
    report = json.loads((tmp_path / "e.json").read_text())
    assert 300 < report["certain"] <= 360
    assert "ImplicitModel on digits" in capsys.readouterr().out


def test_evaluate_of_a_proven_contraction_with_a_linear_readout(tmp_path):
    contraction = networks.fpn_mnist_dense(np.random.default_rng(0), (1, 8, 8), hidden=9, latent=7, gamma=0.5)
    ir.save(tmp_path / "f.npz", contraction)
    assert run("evaluate", tmp_path / "f.npz", "--json", tmp_path / "e.json") == 0
    report, data = json.loads((tmp_path / "e.json").read_text()), datasets.digits()
    logits = np.sort(contraction.logits(data.x_test.reshape(-1, 1, 8, 8).astype(np.float64), tol=1e-9), axis=1)
    assert 300 < report["certain"] <= ((logits[:, -1] - logits[:, -2]) > 0).sum()


def test_evaluate_refuses_what_it_cannot_evaluate(tmp_path, capsys):
    things = {
        "holds a MonotoneDense": network().W,
        r"takes inputs (5,); those of digits are (1, 8, 8)": network(5),
        "holds a dict": {"a": 1},
    }
    for message, thing in things.items():
        ir.save(tmp_path / "n.npz", thing)
        assert run("evaluate", tmp_path / "n.npz") == 2
        assert message in capsys.readouterr().err
    assert run("evaluate", tmp_path / "none.npz") == 2
    ir.save(tmp_path / "n.npz", network())
    assert run("evaluate", tmp_path / "n.npz", "--max-iter", "1") == 1
    assert "did not reach --tol 0.0001" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------
# completion


@pytest.mark.skipif(importlib.util.find_spec("shtab") is None, reason="shtab is not installed")
@pytest.mark.parametrize("shell", cli.SHELLS)
def test_completion_knows_every_command(shell, capsys):
    assert run("--print-completion", shell) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in TOP)


def test_completion_without_its_package_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "shtab", None)
    assert run("--print-completion", "bash") == 2
    assert "pip install 'implicitref[completion]'" in capsys.readouterr().err
