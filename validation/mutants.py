"""Mutation testing of the numeric modules: one operator or transpose changed at a time, and does a test fail?

    python validation/mutants.py --sample 60 --seed 0 --jobs 2 --out mutants.json

Every mutant runs the tests of its module, with -x and a time limit, on a copy of the tree: in a fork of a process that
has imported them (`mutant_server`), or, where it lies outside of functions, in one of its own. What is finished is kept
in the file of results, and the same command goes on from there. Mutants that change no value for any input allowed are
listed with the reason in equivalent_mutants.toml. See docs/evidence-mutants.md.
"""

from __future__ import annotations

import argparse
import ast
import collections
import functools
import json
import os
import queue
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("implicitref", "validation", "tests", "pyproject.toml", "README.md")
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.toml")
THREADS = {name: "1" for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}
PROFILE = """
import hypothesis
hypothesis.settings.register_profile(
    "unshrunk", max_examples=20, deadline=None, database=None, derandomize=True,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
)
"""  # a failure is enough, the smallest example of it takes minutes
ELSEWHERE = "elsewhere"  # what `mutant_server` says of a change outside of functions
KILLED, SURVIVED, IDENTICAL, UNDECIDED = "killed", "survived", "equivalent", "out of time"

_SOLVING = ("tests/test_mon.py", "tests/splitting", "tests/test_mon_conv.py")
_TIERS = ("tests/operators/test_multitier.py", "tests/operators/test_cascade.py", "tests/test_image_networks.py")
_FIXED = ("tests/fixed_point", "tests/test_jfb_network.py")
_ENDS = ("tests/test_networks.py", "tests/test_image_networks.py")
TESTS = {  # module: the tests that know it best, quick ones first
    "activations": ("tests/test_activations.py", "tests/test_bad_input.py", *_SOLVING),
    "arrays": ("tests/test_arrays.py", "tests/test_bad_input.py", "tests/operators/test_operators.py", *_SOLVING),
    "losses": ("tests/test_losses.py",),
    "optimisers": ("tests/training/test_optimisers.py",),
    "mon": ("tests/test_mon.py", "tests/test_bad_input.py", *_SOLVING[1:], *_ENDS),
    "well_posed": (
        "tests/test_well_posed.py", "tests/test_implicit_model.py", "tests/validation/test_well_posed_controls.py"),
    "operators/linear": ("tests/operators/test_operators.py", *_SOLVING),
    "operators/scales": ("tests/operators/test_operators.py", "tests/operators/test_conv.py"),
    "operators/dense": ("tests/operators/test_operators.py", *_SOLVING),
    "operators/dft": ("tests/operators/test_fourier.py", "tests/operators/test_conv.py", *_TIERS),
    "operators/fourier": (
        "tests/operators/test_fourier.py", "tests/operators/test_conv.py", "tests/test_mon_conv.py", *_TIERS),
    "operators/conv": ("tests/operators/test_conv.py", "tests/operators/test_operators.py", "tests/test_mon_conv.py"),
    "operators/strided": ("tests/operators/test_strided.py", *_TIERS),
    "operators/cascade": ("tests/operators/test_cascade.py", *_TIERS),
    "operators/multitier": _TIERS,
    "splitting/inclusion": _SOLVING,
    "splitting/iterations": ("tests/splitting/test_iterations.py", "tests/splitting/test_solve.py", *_SOLVING),
    "splitting/rates": ("tests/splitting/test_rates.py", "tests/test_mon_conv.py", "tests/validation/test_controls.py"),
    "splitting/certificates": ("tests/splitting/test_certificates.py", *_SOLVING),
    "splitting/solve": ("tests/splitting/test_solve.py", *_SOLVING, *_ENDS),
    "fixed_point/iteration": ("tests/fixed_point/test_driver.py", "tests/fixed_point/test_iteration.py", *_FIXED),
    "fixed_point/driver": ("tests/fixed_point/test_driver.py", "tests/fixed_point/test_iteration.py", *_FIXED),
    "fixed_point/rules": ("tests/fixed_point/test_rules.py", *_FIXED),
    "fixed_point/maps": ("tests/fixed_point/test_maps.py", *_FIXED),
    "fixed_point/theory": ("tests/fixed_point/test_theory.py", *_FIXED),
    "fixed_point/examples": ("tests/fixed_point/test_examples.py", *_FIXED),
    "layers/affine": ("tests/layers",),
    "layers/conv": ("tests/layers",),
    "layers/norm": ("tests/layers", "tests/test_jfb_network.py"),
    "layers/pool": ("tests/layers",),
    "layers/rearrange": ("tests/layers", "tests/test_fpn_networks.py"),
    "layers/windows": ("tests/layers",),
    "layers/records": ("tests/layers", "tests/test_jfb_network.py"),
    "sequential/model": ("tests/sequential/test_model.py", "tests/sequential/test_training.py"),
    "sequential/conversions": ("tests/sequential/test_model.py",),
    "sequential/counts": ("tests/sequential/test_model.py", "tests/sequential/test_training.py"),
    "sequential/theorems": ("tests/sequential/test_theorems.py", "tests/sequential/test_non_strict.py"),
    "sequential/problem": ("tests/sequential/test_training.py", "tests/validation/test_greedy_controls.py"),
    "sequential/least_squares": ("tests/sequential/test_training.py",),
    "sequential/solvers": ("tests/sequential/test_training.py", "tests/sequential/test_non_strict.py"),
    "sequential/convex": ("tests/sequential/test_convex.py", "tests/validation/test_greedy_controls.py"),
    "sequential/refinement": ("tests/sequential/test_refinement.py",),
    "sequential/inputs": ("tests/sequential/test_training.py", "tests/sequential/test_refinement.py"),
    "sequential/non_strict": ("tests/sequential/test_non_strict.py",),
    "sequential/training": ("tests/sequential/test_training.py", "tests/sequential/test_non_strict.py"),
    "networks/ends": _ENDS,
    "networks/mon": _ENDS,
    "networks/implicit": ("tests/test_implicit_model.py",),
    "networks/jfb": ("tests/test_jfb_network.py", "tests/test_fpn_networks.py"),
    "training/alpha": ("tests/training/test_alpha.py",),
    "training/schedules": ("tests/training/test_optimisers.py",),
}  # fmt: skip


class Mutant(NamedTuple):
    """One change: in which function of which module, what stood there and what is put there, which of its kind."""

    module: str
    function: str
    old: str
    new: str
    number: int
    line: int

    @property
    def key(self) -> str:
        """What it is called in the file of results; lines of code above it may move."""
        return f"{self.module}:{self.function}: {self.old} -> {self.new} ({self.number})"


# ------------------------------------------------------------------------------------------------
# what is changed

TURNED: dict[type, Any] = {ast.Lt: ast.Gt, ast.Gt: ast.Lt, ast.LtE: ast.GtE, ast.GtE: ast.LtE}
SIGNS: dict[type, Any] = {ast.Add: ast.Sub, ast.Sub: ast.Add}
DROPPED = {"matrix_transpose", "adjoint", "_adjoint", "_transpose", "conj"}


def changed(node: ast.AST) -> Iterator[ast.AST]:
    """What an expression or statement can be turned into."""
    match node:
        case ast.Attribute(value=value, attr="T" | "mT", ctx=ast.Load()):
            yield value
        case ast.Call(func=ast.Attribute(value=value, attr="conj"), args=[]):
            yield value
        case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name), args=[value], keywords=[]) if name in DROPPED:
            yield value
        case ast.BinOp(left=left, op=ast.MatMult(), right=right) if ast.dump(left) != ast.dump(right):
            yield ast.BinOp(right, ast.MatMult(), left)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in SIGNS:
            yield ast.BinOp(left, SIGNS[type(op)](), right)
        case ast.AugAssign(target=target, op=op, value=value) if type(op) in SIGNS:
            yield ast.AugAssign(target, SIGNS[type(op)](), value)
        case ast.UnaryOp(op=ast.USub(), operand=value):
            yield value
        case ast.Compare(left=left, ops=ops, comparators=right):
            for i, relation in enumerate(ops):
                if type(relation) in TURNED:
                    yield ast.Compare(left, [*ops[:i], TURNED[type(relation)](), *ops[i + 1 :]], right)


def sites(tree: ast.AST, function: str = "") -> Iterator[tuple[str, ast.AST, str, Any]]:
    """Function, parent, field and place of everything that is computed: no annotations, messages or decorators."""
    for field, value in ast.iter_fields(tree):
        if field in ("annotation", "returns", "decorator_list", "args", "msg") and not isinstance(tree, ast.Call):
            continue
        for place, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(child, ast.AST) or isinstance(child, ast.Raise | ast.JoinedStr):
                continue
            named = isinstance(child, ast.FunctionDef | ast.ClassDef)
            inner = f"{function}.{child.name}".lstrip(".") if named else function  # type: ignore[attr-defined]
            yield inner, tree, field, place
            yield from sites(child, inner)


def mutants(root: Path, module: str) -> Iterator[tuple[Mutant, Callable[[], str]]]:
    """Every mutant of a module, and a function that gives the text of the module with it."""
    tree = ast.parse((root / "implicitref" / f"{module}.py").read_text(encoding="utf-8"))
    seen: collections.Counter[tuple[str, str, str]] = collections.Counter()
    for function, parent, field, place in list(sites(tree)):
        held = getattr(parent, field)
        old = held if place is None else held[place]
        for new in changed(old):
            ast.copy_location(new, old)
            names = function, ast.unparse(old), ast.unparse(new)
            seen[names] += 1
            mutant = Mutant(module, *names, seen[names], old.lineno)
            yield mutant, functools.partial(_with, tree, (parent, field, place), old, new)


def _with(tree: ast.AST, where: tuple[Any, str, int | None], old: ast.AST, new: ast.AST) -> str:
    with _WRITING:  # the tree is that of all mutants of its module
        _put(*where, new)
        text = ast.unparse(ast.fix_missing_locations(tree))
        _put(*where, old)
    return text


_WRITING = threading.Lock()


def _put(parent: Any, field: str, place: int | None, node: ast.AST) -> None:
    if place is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[place] = node


# ------------------------------------------------------------------------------------------------
# what happens


class Result(NamedTuple):
    """What became of a mutant: killed and by which test, survived, or out of time, to be tried again."""

    state: str
    by: str
    seconds: float


def fate(folder: Path, mutant: Mutant, text: Callable[[], str], limit: float, server: Server | None = None) -> Result:
    """Run the tests of its module with this mutant: in a fork of the server, or a process of its own on the copy."""
    began = time.perf_counter()
    code, out = server.fate(text()) if server else (ELSEWHERE, "")
    if code == ELSEWHERE:
        code, out = _on_disk(folder, mutant, text(), limit)
    seconds = round(time.perf_counter() - began, 1)
    if code not in (None, 0, 1, 2, 4) and (code or 0) > 0:  # 2, 4: the tests could not even be imported
        raise RuntimeError(f"pytest ended with {code} on {mutant.key}:\n{out[-2000:]}")
    failed = [line.split(" - ")[0] for line in out.splitlines() if line.startswith(("FAILED", "ERROR "))]
    state = {None: UNDECIDED, 0: SURVIVED}.get(code, KILLED)
    return Result(state, (failed or ["import" if code > 0 else "crash"])[0] if state == KILLED else "", seconds)


def _on_disk(folder: Path, mutant: Mutant, text: str, limit: float) -> tuple[int | None, str]:
    path = folder / "implicitref" / f"{mutant.module}.py"
    original = path.read_text(encoding="utf-8")
    _write(path, text)
    try:
        return tested(folder, mutant.module, limit)
    finally:
        _write(path, original)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):  # of a text as long, written in the same second
        compiled.unlink()


def tested(folder: Path, module: str, limit: float) -> tuple[int | None, str]:
    """Exit status (None: out of time) and output of the tests of a module: the first file, then the others."""
    first, *others = dict.fromkeys(TESTS[module])
    code, out = _tested(folder, [f"implicitref/{module}.py", first], limit)
    return _tested(folder, others, limit) if code == 0 and others else (code, out)


def arguments(paths: Iterable[str]) -> list[str]:
    """What pytest is called with."""
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "unshrunk", "--tb=no", "-rfE"]
    options += ["-o", "addopts=--import-mode=importlib --doctest-modules"]
    return [
        *options,
        "-k",
        "not [torch and not -torch and not [jax and not -jax",
        *paths,
    ]  # NumPy, strict arrays decide


def environment(folder: Path) -> dict[str, str]:
    """Of the processes that run tests on this copy of the tree."""
    return {**os.environ, **THREADS, "PYTHONPATH": str(folder), "HYPOTHESIS_PROFILE": "unshrunk"}


def _tested(folder: Path, paths: list[str], limit: float) -> tuple[int | None, str]:
    command, how = [sys.executable, "-m", "pytest", *arguments(paths)], {"cwd": folder, "env": environment(folder)}
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=limit, **how)
    except subprocess.TimeoutExpired:
        return None, ""
    return run.returncode, run.stdout


class Server:
    """`mutant_server` for one module, on one copy of the tree."""

    def __init__(self, folder: Path, module: str, limit: float) -> None:
        first, *others = dict.fromkeys(TESTS[module])
        runs = [arguments([f"implicitref/{module}.py", first]), *([arguments(others)] if others else [])]
        command = [
            sys.executable,
            str(folder / "validation" / "mutant_server.py"),
            module,
            str(limit),
            json.dumps(runs),
        ]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, cwd=folder, env=environment(folder), **pipes)
        self.folder = folder

    def fate(self, text: str) -> tuple[Any, str]:
        """Exit status and output of the tests with that text; "elsewhere" where it cannot be tried by a fork."""
        path = self.folder / "mutant.py"
        path.write_text(text, encoding="utf-8")
        with suppress(BrokenPipeError):
            print(path, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()  # type: ignore[union-attr]
        if not answer:
            raise RuntimeError(f"mutant_server ended with status {self.process.wait()}; what it said stands above")
        code, out = json.loads(answer)
        return code, out

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def copied(root: Path, folder: Path) -> Path:
    """A copy of the tree that mutants may write to."""
    for name in COPIED:
        if (root / name).is_dir():
            shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(root / name, folder / name)
    (folder / "unshrunk.py").write_text(PROFILE, encoding="utf-8")
    return folder


# ------------------------------------------------------------------------------------------------
# many of them


def equivalents() -> dict[str, str]:
    """Key of every mutant known to change nothing, and the reason."""
    entries = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8")).get("mutant", [])
    return {f"{e['module']}:{e['function']}: {e['mutation']} ({e.get('number', 1)})": e["reason"] for e in entries}


def chosen(root: Path, modules: list[str], sample: int | None, seed: int) -> list[tuple[Mutant, Callable[[], str]]]:
    """All mutants of these modules, or a random sample of them."""
    found = [pair for module in modules for pair in mutants(root, module)]
    return found if sample is None or sample >= len(found) else random.Random(seed).sample(found, sample)


def run(options: argparse.Namespace) -> int:
    """Try the mutants that are not in the file of results yet, and say how many are killed."""
    wanted = chosen(options.root, options.module or list(TESTS), options.sample, options.seed)
    results: dict[str, Any] = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {}
    reasons = equivalents()
    settled = {*reasons, *(key for key, result in results.items() if result["state"] != UNDECIDED)}
    left = [pair for pair in wanted if pair[0].key not in settled]
    folders: queue.SimpleQueue[Path] = queue.SimpleQueue()
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(options.jobs) as pool:
        for i in range(options.jobs):
            folders.put(copied(options.root, Path(place, str(i)).resolve()))

        def of_module(module: str) -> Iterator[tuple[Mutant, Result]]:
            folder = folders.get()
            try:
                with Server(folder, module, options.limit) as server:
                    for mutant, text in left:
                        if mutant.module == module:
                            yield mutant, fate(folder, mutant, text, options.limit, server)
            finally:
                folders.put(folder)

        def keep(module: str) -> None:
            for mutant, result in of_module(module):
                with _WRITING:
                    results[mutant.key] = {**mutant._asdict(), **result._asdict()}
                    kept = options.out.with_name(f".{options.out.name}.part")  # whoever dies leaves the former whole
                    kept.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
                    os.replace(kept, options.out)
                print(f"[{len(results)}] {result.state} {result.by} {result.seconds} s  {mutant.key}", flush=True)

        if left:
            sound(folders, {mutant.module for mutant, _ in left}, options)
        [*pool.map(keep, dict.fromkeys(mutant.module for mutant, _ in left))]
    return conclusion([mutant for mutant, _ in wanted], results, reasons)


def sound(folders: queue.SimpleQueue[Path], modules: set[str], options: argparse.Namespace) -> None:
    """Without a mutant all tests pass, or killing says nothing."""
    folder = folders.get()
    for module in sorted(modules) if options.check else ():
        code, out = tested(folder, module, options.limit)
        if code != 0:
            raise SystemExit(f"the tests of {module} fail without a mutant:\n{out[-2000:]}")
    folders.put(folder)


def conclusion(wanted: list[Mutant], results: dict[str, Any], reasons: dict[str, str]) -> int:
    """The counts, and 1 where a mutant is neither killed nor known to be equivalent."""
    states = [IDENTICAL if m.key in reasons else results[m.key]["state"] for m in wanted]
    count = collections.Counter(states)
    for mutant, state in zip(wanted, states, strict=True):
        if state in (SURVIVED, UNDECIDED):
            print(f"{state}: implicitref/{mutant.module}.py:{mutant.line} {mutant.key}")
    print(f"{len(wanted)} mutants: " + ", ".join(f"{count[s]} {s}" for s in (KILLED, IDENTICAL, SURVIVED, UNDECIDED)))
    others = len(wanted) - count[IDENTICAL]
    print(f"killed of those that are not equivalent: {count[KILLED] / max(1, others):.1%}")
    return int(count[KILLED] < others)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--module", action="append", choices=TESTS, metavar="M", help="such as operators/conv; repeatable"
    )
    parser.add_argument("--sample", type=int, metavar="N", help="so many at random; all without it")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default 0)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="mutants at a time (default 1)")
    parser.add_argument("--limit", type=float, default=600, metavar="S", help="seconds for one mutant (default 600)")
    parser.add_argument("--check", action="store_true", help="first run all tests without a mutant")
    parser.add_argument("--out", type=Path, default=Path("mutants.json"), help="results, read and continued")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout (default: this one)")
    parser.add_argument("--list", action="store_true", help="only count the mutants of every module")
    options = parser.parse_args()
    if options.list:
        for module in options.module or TESTS:
            print(f"{module:24}{sum(1 for _ in mutants(options.root, module)):6}")
        return 0
    return run(options)


if __name__ == "__main__":
    sys.exit(main())
