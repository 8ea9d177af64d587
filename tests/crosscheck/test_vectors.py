"""Conformance vectors: the files, what is refused, and answers confirmed in 40 digits and by the checker itself."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import math
import zipfile

import numpy as np
import pytest
from oracles import assert_close, size

from implicitref import ConvergenceError
from implicitref import __main__ as cli
from implicitref.crosscheck import judge, vector_cases, vectors

mpmath = pytest.importorskip("mpmath")


def some_cases():
    """The usual ones, kinks and mistakes of small layers: what takes a second, not all."""
    small = ("fixed-point", "mon-dense")
    yield from vector_cases._usual()
    yield from itertools.islice(vector_cases._kinks(), 2)
    bases = {kind: bases for kind, bases in vector_cases.BASES.items() if kind in small}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector_cases, "BASES", bases)
        yield from vector_cases._mistakes()


@pytest.fixture(scope="module")
def cases():
    return list(some_cases())


@pytest.fixture
def folder(tmp_path, monkeypatch, cases):
    """A folder with a few of the cases, of every result."""
    few = [next(c for c in cases if c.result == result) for result in ("valid", "acceptable", "invalid")]
    monkeypatch.setattr(vector_cases, "cases", lambda: iter(few))
    vectors.write(tmp_path / "v")
    return tmp_path / "v"


def rewritten(folder, change):
    """The manifest after a change of its first entry."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest["cases"][0])
    path.write_text(json.dumps(manifest))


def complaints(folder):
    return [complaint for _, complaint in vectors.verify(folder) if complaint]


# ------------------------------------------------------------------------------------------------
# Files


def test_two_writes_are_the_same_bytes(folder, tmp_path):
    vectors.write(tmp_path / "again")
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert len(files) == 5
    assert all((folder / f).read_bytes() == (tmp_path / "again" / f).read_bytes() for f in files)
    with zipfile.ZipFile(next((folder / "cases").iterdir())) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_command_line(folder, tmp_path, capsys):
    assert cli.main(["vectors", "verify", str(folder)]) == 0
    assert "3 of 3 cases hold" in capsys.readouterr().out
    assert cli.main(["vectors", "write", str(folder)]) == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert cli.main(["vectors", "verify", str(tmp_path / "absent")]) == 2
    assert cli.main(["vectors", "write", str(tmp_path / "new")]) == 0
    file = next((folder / "cases").iterdir())
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert cli.main(["vectors", "verify", str(folder)]) == 1
    assert "SHA-256 differs" in capsys.readouterr().out
    assert cli.main(["vectors", "verify", str(folder), "--json", str(tmp_path / "r.json")]) == 1
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["cases"], len(report["wrong"])) == (3, 1)


def test_the_schema_is_a_schema_and_the_manifest_follows_it(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    assert not list(vectors.violations(manifest, vectors.schema()))
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(vectors.schema())
    jsonschema.validate(manifest, vectors.schema())


CHANGES = {
    "id": "Not An Id",
    "kind": "generic",
    "result": "maybe",
    "sha256": "0" * 63,
    "certificate": -1.0,
    "tolerance": {"state": 0.0},
    "settings": {"m": 0.5, "n": 3},
    "activation": {"name": "gelu", "parameters": [], "border": 0},
    "file": "../manifest.npz",
    "flags": "Scalar",
}


@pytest.mark.parametrize("name", CHANGES)
def test_both_validators_refuse_the_same_changes(folder, name):
    rewritten(folder, lambda entry: entry.update({name: CHANGES[name]}))
    with pytest.raises(ValueError, match=rf"cases\[0\]\.{name}"):
        list(vectors.verify(folder))
    jsonschema = pytest.importorskip("jsonschema")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads((folder / "manifest.json").read_text()), vectors.schema())


def test_what_is_no_manifest_is_refused(folder):
    path = folder / "manifest.json"
    whole = json.loads(path.read_text())
    generous = json.loads(json.dumps(whole))
    generous["cases"][0]["tolerance"]["state"] = math.inf
    changed = ({**whole, "version": 2}, {**whole, "count": 4}, generous)
    for text in ("[", "[]", "{}", *map(json.dumps, changed)):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"manifest\.json"):
            list(vectors.verify(folder))


def replace_case(folder, data):
    """Another archive for the first case, with a checksum that fits."""

    def change(entry):
        (folder / entry["file"]).write_bytes(data)
        entry["sha256"] = hashlib.sha256(data).hexdigest()

    rewritten(folder, change)


def saved(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def test_archives_that_hold_something_else_are_refused(folder, monkeypatch):
    entry, arrays = next(vectors.read(folder))
    replace_case(folder, saved(**{**arrays, "x": np.array([print], dtype=object)}))
    assert "never loaded" in complaints(folder)[0]
    replace_case(folder, saved(**{**arrays, "extra": np.zeros(3)}))
    assert "shapes in the manifest" in complaints(folder)[0]
    replace_case(folder, saved(**{**arrays, "x": arrays["x"].astype(np.float32)}))
    assert "float64" in complaints(folder)[0]
    replace_case(folder, saved(**{**arrays, "x": np.full_like(arrays["x"], np.nan)}))
    assert "NaN" in complaints(folder)[0]
    replace_case(folder, b"PK no archive")
    assert "no intact npz archive" in complaints(folder)[0]
    bomb = io.BytesIO()
    np.savez_compressed(bomb, x=np.zeros(2**24))
    replace_case(folder, bomb.getvalue())
    assert "declares" in complaints(folder)[0]
    (folder / entry["file"]).unlink()
    assert "FileNotFoundError" in complaints(folder)[0]


def test_links_out_of_the_folder_are_refused(folder, tmp_path):
    entry, _ = next(vectors.read(folder))
    path = folder / entry["file"]
    outside = path.rename(tmp_path / "outside.npz")
    try:
        path.symlink_to(outside)
    except OSError:
        pytest.skip("this system makes no symbolic links")
    assert "leads out of the folder" in complaints(folder)[0]


def test_a_changed_answer_is_noticed(folder):
    entry, arrays = next(vectors.read(folder))
    replace_case(folder, saved(**{**arrays, "state": arrays["state"] + 2 * entry["tolerance"]["state"]}))
    assert "state differs by" in complaints(folder)[0]


def test_an_answer_without_a_tolerance_is_noticed(folder):
    rewritten(folder, lambda entry: entry["tolerance"].pop("state"))
    assert "not for every answer" in complaints(folder)[0]


def test_problems_that_cannot_be_solved_are_reported(folder, monkeypatch):
    def short(problem):
        raise ConvergenceError("max_iter reached", None)

    monkeypatch.setattr(vector_cases, "solve", short)
    assert complaints(folder) == ["ConvergenceError: max_iter reached"] * 3


def test_an_invalid_answer_that_is_right_is_noticed(folder):
    def called_invalid(entry):
        entry["result"] = "invalid"

    rewritten(folder, called_invalid)
    assert "is right" in complaints(folder)[0]


# ------------------------------------------------------------------------------------------------
# Contents


def test_results_flags_and_mistakes(cases):
    assert len({case.id for case in cases}) == len(cases) >= 100
    assert {case.problem.kind for case in cases} == set(vector_cases.SIZES)
    assert {case.problem.activation[0] for case in cases} == set(vector_cases.activations.NAMES)
    assert {case.result for case in cases} == {"valid", "acceptable", "invalid"}
    assert {flag for case in cases for flag in case.flags} <= set(vector_cases.FLAGS)
    for case in cases:
        assert case.answer.certificate <= 1e-2 * case.tolerance["state"], case.id
        assert set(case.tolerance) == set(case.answer.values)


def test_parameters_are_short_binary_fractions(cases):
    for case in cases:
        if "Kink" not in case.flags:
            numbers = np.concatenate([a.ravel() for a in vectors.arrays(case.problem).values()])
            assert np.array_equal(numbers * 4096, np.round(numbers * 4096)), case.id


def test_invalid_answers_are_far_off(cases):
    for case in cases[::4]:
        truth = vector_cases.answer(vector_cases.solve(case.problem)).values
        entry = {"tolerance": case.tolerance}
        far = vectors.mismatches(entry, truth, case.answer.values)
        assert (max((ratio for _, ratio in far), default=0) > 1e4) == (case.result == "invalid" or bool(far)), case.id
        assert bool(far) == (case.variant != "" or case.result == "invalid"), case.id


def test_the_checker_accepts_and_names(cases):
    """Some of the cases, judged by what the checker judges layers by."""
    for case in cases[1::4]:
        names = named_by_the_checker(case)
        if case.result == "valid":
            assert names == [], case.id
        elif case.variant != vector_cases.CLARKE:
            assert case.variant in names, (case.id, names)


def named_by_the_checker(case):
    problem, values = case.problem, case.answer.values
    layer = problem.equation()
    solved, y = layer.solve(problem.x), values["state"]
    state = judge.judge_state(layer, problem.x, y, solved, 1e-8, 2.0**-52)
    if state.verdict != "solved":
        return [e.mistake.name for e in judge.explain_forward(layer, problem.x, y, solved, state.allowed)] or ["?"]
    factor = judge.amplification(layer, solved, problem.x)
    ground = judge.ground(
        layer, problem.x, problem.dz, solved.z, solved.bound, factor, 1e-8, 2.0**-52, "implicit"
    )  # fmt: skip
    seen = {name.removeprefix("gradient."): value for name, value in values.items() if name != "state"}
    if all(block.verdict == "right" for block in judge.compared(ground, seen)):
        return []
    return [e.mistake.name for e in judge.explain(ground, seen)] or ["?"]


SIGMAS = {
    "tanh": (mpmath.tanh, lambda p: 1 - mpmath.tanh(p) ** 2),
    "sigmoid": (lambda p: 1 / (1 + mpmath.exp(-p)), lambda p: mpmath.exp(-p) / (1 + mpmath.exp(-p)) ** 2),
    "softplus": (lambda p: mpmath.log(1 + mpmath.exp(p)), lambda p: 1 / (1 + mpmath.exp(-p))),
    "arctan": (mpmath.atan, lambda p: 1 / (1 + p * p)),
    "elu": (lambda p: p if p > 0 else mpmath.expm1(p), lambda p: mpmath.mpf(1) if p > 0 else mpmath.exp(p)),
    "relu": (lambda p: max(p, mpmath.mpf(0)), lambda p: mpmath.mpf(p > 0)),
    "leaky_relu": (lambda p: p if p > 0 else p / 8, lambda p: mpmath.mpf(1) if p > 0 else mpmath.mpf(1) / 8),
    "hardtanh": (lambda p: max(min(p, mpmath.mpf(1)), mpmath.mpf(-1)), lambda p: mpmath.mpf(abs(p) < 1)),
    "soft_threshold": (lambda p: mpmath.sign(p) * max(abs(p) - 1, mpmath.mpf(0)), lambda p: mpmath.mpf(abs(p) > 1)),
}


def confirmed(case):
    """State and gradient of the first sample in 40 digits: Newton's iteration and a dense adjoint by mpmath."""
    problem, matrix = case.problem, mpmath.matrix
    p = {name: matrix(np.atleast_2d(value).tolist()) for name, value in problem.params.items()}
    n = problem.params["b"].size
    if problem.kind == "mon-dense":
        A, B = (
            p[name] * (root(p[scale][0]) / mpmath.norm(p[name], 2) if scale in p else 1)
            for name, scale, root in (("A", "g", mpmath.sqrt), ("B", "h", lambda h: h))
        )
        W = (1 - mpmath.mpf(problem.settings["m"])) * mpmath.eye(n) - A.T * A + B - B.T
    else:
        W = p["W"]
    x, dz = (matrix(a[0].tolist()) for a in (problem.x, problem.dz))
    v, (sigma, slope) = p["U"] * x + p["b"].T, SIGMAS[problem.activation[0]]
    z = matrix(case.answer.values["state"][0].tolist())
    for _ in range(3):
        pre = W * z + v
        J = mpmath.diag([slope(t) for t in pre])
        z += mpmath.lu_solve(mpmath.eye(n) - J * W, matrix([sigma(t) for t in pre]) - z)
    pre = W * z + v
    residual = mpmath.norm(matrix([sigma(t) for t in pre]) - z)
    J = mpmath.diag([slope(t) for t in pre])
    dpre = mpmath.lu_solve(mpmath.eye(n) - J * W.T, J * dz)
    return residual, z, p["U"].T * dpre


def test_answers_are_confirmed_in_forty_digits(cases):
    # with every activation; W here is a matrix of mpmath, products and solves share nothing with the package
    seen = set()
    for case in cases:
        name = case.problem.activation[0]
        if name in seen or case.result != "valid" or case.problem.kind not in ("mon-dense", "fixed-point"):
            continue
        with mpmath.workdps(40):
            residual, z, dx = confirmed(case)
            assert residual < mpmath.mpf(10) ** -30, case.id
        seen.add(name)
        for name, found in (("state", z), ("gradient.x", dx)):
            exact, stored = np.array([float(t) for t in found]), case.answer.values[name][0]
            assert_close(stored, exact, scale=size(exact) + 1.0, tol=1e-12)
    assert seen == set(SIGMAS)


def test_a_wrong_digit_is_not_confirmed(cases):
    case = next(c for c in cases if c.result == "valid" and c.problem.kind == "fixed-point")
    with mpmath.workdps(40):
        _, z, _ = confirmed(case)
    shifted = case.answer.values["state"][0] + 1e-9
    assert abs(float(z[0]) - shifted[0]) > 1e-10
