"""The mutator changes what it says and nothing else, and every mutant called equivalent is one that it makes."""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import json
import shutil

import pytest

from implicitref import claims

mutants = importlib.import_module(f"{claims.validation().__name__}.mutants")

SOURCE = '''
def f(A, x: int = 1 + 1) -> "a + b":
    """1 + 1 of two texts."""
    if x < 0 <= 2:
        raise ValueError("x" + "y")
    A -= namespace(A).matrix_transpose(A) @ x.conj()
    A = A @ A
    return -A.T
'''
EXPECTED = {
    "x < 0 <= 2 -> x > 0 <= 2",
    "x < 0 <= 2 -> x < 0 >= 2",
    "A -= namespace(A).matrix_transpose(A) @ x.conj() -> A += namespace(A).matrix_transpose(A) @ x.conj()",
    "namespace(A).matrix_transpose(A) @ x.conj() -> x.conj() @ namespace(A).matrix_transpose(A)",
    "namespace(A).matrix_transpose(A) -> A",
    "x.conj() -> x",
    "-A.T -> A.T",
    "A.T -> A",
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    (tmp_path / "implicitref").mkdir()
    (tmp_path / "implicitref" / "m.py").write_text(SOURCE)
    monkeypatch.setattr(mutants, "TESTS", {"m": ("tests",)})
    return tmp_path


def test_each_mutant_differs_in_one_place(root):
    found = list(mutants.mutants(root, "m"))
    assert {f"{m.old} -> {m.new}" for m, _ in found} == EXPECTED
    original = ast.unparse(ast.parse(SOURCE))
    for mutant, text in found:
        assert (mutant.function, mutant.number) == ("f", 1)
        assert text() == original.replace(mutant.old, mutant.new)
        assert text() != original
    assert [text() for _, text in found] == [text() for _, text in reversed(found)][::-1], "the tree is put back"


def test_results_are_kept_and_go_on(root, monkeypatch, capsys):
    tried = []

    def fate(folder, mutant, text, limit, server):
        tried.append(mutant.key)
        state = "survived" if mutant.old == "A.T" else "killed"
        return mutants.Result(state, "a test", 0.0)

    monkeypatch.setattr(mutants, "fate", fate)
    monkeypatch.setattr(mutants, "COPIED", ("implicitref",))
    monkeypatch.setattr(mutants, "Server", lambda *_: contextlib.nullcontext())
    options = argparse.Namespace(
        root=root, out=root / "r.json", module=None, seed=3, jobs=2, limit=1.0, check=False, sample=5
    )
    mutants.run(options)
    assert len(tried) == len(json.loads(options.out.read_text())) == 5
    options.sample = None
    assert mutants.run(options) == 1
    assert len(tried) == len(set(tried)) == len(EXPECTED)
    assert "survived: implicitref/m.py:8 m:f: A.T -> A (1)" in capsys.readouterr().out
    monkeypatch.setattr(mutants, "equivalents", lambda: {"m:f: A.T -> A (1)": "a scalar"})
    assert mutants.run(options) == 0
    assert "killed of those that are not equivalent: 100.0%" in capsys.readouterr().out


def test_equivalent_mutants_exist_and_have_reasons():
    known, reasons = mutants.equivalents(), {key.split(":")[0] for key in mutants.equivalents()}
    made = {m.key for module in reasons for m, _ in mutants.mutants(mutants.ROOT, module)}
    assert set(known) <= made, "the code has changed: look at them again"
    assert all(len(reason) > 20 for reason in known.values())


def test_every_module_and_its_tests_are_there():
    for module, tests in mutants.TESTS.items():
        assert (mutants.ROOT / "implicitref" / f"{module}.py").is_file()
        assert all((mutants.ROOT / path).exists() for path in tests)


MODULE = """
LIMIT = 1 + 1

def double(x):
    return x + x

class Pair:
    def total(self, x, y):
        return sum(part + 0 for part in (x, y)) - 0

def half(x):
    return x - x / 2
"""
TEST = """
import pytest
from implicitref.m import LIMIT, Pair, double
assert LIMIT == 2

def test_double():
    assert double(3) == 6 and Pair().total(1, 2) == 3
"""


def test_mutants_are_tried_in_forks_and_leave_nothing_behind(tmp_path, monkeypatch):
    for path, text in {"implicitref/__init__.py": "", "implicitref/m.py": MODULE, "tests/test_m.py": TEST}.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    shutil.copytree(mutants.ROOT / "validation", tmp_path / "validation")
    (tmp_path / "unshrunk.py").write_text(mutants.PROFILE)
    monkeypatch.setattr(mutants, "TESTS", {"m": ("tests/test_m.py",)})
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # an installed implicitref has one, this one has not
    with mutants.Server(tmp_path, "m", 60.0) as server:
        found = {}
        for mutant, text in mutants.mutants(tmp_path, "m"):
            code, _ = server.fate(text())
            found[mutant.function, mutant.old] = code
            result = mutants.fate(tmp_path, mutant, text, 60.0, server)
            assert result.state == ("survived" if code == 0 else "killed")
        assert server.fate(ast.unparse(ast.parse(MODULE)))[0] == "elsewhere", "nothing differs"
    assert found == {
        ("", "1 + 1"): "elsewhere",
        ("double", "x + x"): 1,
        ("Pair.total", "sum((part + 0 for part in (x, y))) - 0"): 0,
        ("Pair.total", "part + 0"): 0,
        ("half", "x - x / 2"): 0,
    }
    assert (tmp_path / "implicitref" / "m.py").read_text() == MODULE
    (tmp_path / "tests" / "test_m.py").write_text("import nothing_of_the_kind")
    with mutants.Server(tmp_path, "m", 60.0) as server, pytest.raises(RuntimeError, match="ended with status 1"):
        server.fate(MODULE)
