"""The house of DESIGN: floors, lazy imports, import cost, small functions with docstrings; checked from the source."""

from __future__ import annotations

import ast
import itertools
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import implicitref

ROOT = Path(implicitref.__file__).parent

# Each floor imports only from floors below it; inside a floor only what is written before it.
FLOORS = [
    ["errors", "arrays", "archives"],
    ["activations", "losses", "optimisers", "operators", "layers"],
    ["splitting"],
    ["mon", "fixed_point", "well_posed", "sequential"],
    ["networks", "persistence", "training"],
    ["datasets", "estimators", "crosscheck", "claims", "plotting"],
    ["validation", "commands", "__main__"],
    ["__init__"],
]
STRANGERS = {"mon", "fixed_point", "well_posed", "sequential"}  # of floor 3: no two import each other
INSIDE = {
    "operators": ["linear", "scales", "dense", "dft", "fourier", "conv", "strided", "cascade", "multitier", "__init__"],
    "layers": ["windows", "affine", "winograd", "conv", "norm", "pool", "rearrange", "records", "__init__"],
    "splitting": ["inclusion", "iterations", "rates", "certificates", "solve", "__init__"],
    "fixed_point": ["theory", "maps", "driver", "iteration", "rules", "examples", "__init__"],
    "estimators": ["targets", "certificates", "base", "mon", "jfb", "implicit", "sequential", "__init__"],
}
LAZY = {"sklearn", "matplotlib", "jinja2", "rich"}
BUILT_ON = {"estimators": {"sklearn"}}  # its classes inherit from scikit-learn's; it is itself loaded on demand
NEVER = {"torch", "jax", "cupy", "tensorflow"}
MAY_PRINT = {"commands", "progress", "report"}

SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(ROOT.rglob("*.py"))
    if "validation" not in path.relative_to(ROOT).parts
}
RANK = {name: (floor, place) for floor, names in enumerate(FLOORS) for place, name in enumerate(names)}


def imports(module: str, tree: ast.AST | None = None) -> list[str]:
    """Absolute names of everything that a module imports, "implicitref." in front of its own."""
    package = ["implicitref", *module.split(".")[:-1]]
    found = []
    for node in ast.walk(tree or SOURCES[module]):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            # "from . import rates" imports a module, "from .rates import gap" a name of one
            found += [stem] if node.module else [f"{stem}.{alias.name}" for alias in node.names]
    return found


def own(module: str) -> list[str]:
    """Modules of the package that `module` imports, without the "implicitref."."""
    return [name.removeprefix("implicitref.") for name in imports(module) if name.startswith("implicitref.")]


def at_module_level(tree: ast.Module) -> ast.Module:
    """The statements that run on import: everything outside functions and `if TYPE_CHECKING`."""

    class Prune(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            return None

        visit_AsyncFunctionDef = visit_Lambda = visit_FunctionDef

        def visit_If(self, node: ast.If) -> ast.AST | None:
            return None if "TYPE_CHECKING" in ast.unparse(node.test) else self.generic_visit(node)

    return Prune().visit(ast.parse(ast.unparse(tree)))


def test_helper_sees_what_it_should():
    lines = ["import torch.nn", "from . import rates", "from ..arrays import norm"]
    lines += ["if TYPE_CHECKING:", "    import rich", "def f():", "    import sklearn"]
    tree = ast.parse("\n".join(lines))
    assert imports("splitting.solve", tree) == [
        "torch.nn",
        "implicitref.splitting.rates",
        "implicitref.arrays",
        "rich",
        "sklearn",
    ]
    assert imports("splitting.solve", at_module_level(tree)) == imports("splitting.solve", tree)[:3]


def test_every_module_has_its_floor():
    assert {module.split(".")[0] for module in SOURCES} <= set(RANK)


@pytest.mark.parametrize("module", SOURCES)
def test_floors(module):
    here = module.split(".")[0]
    for name in own(module):
        there = name.split(".")[0]
        if there == here or there not in RANK:
            continue  # a name of implicitref itself, such as __version__
        assert RANK[there] < RANK[here], f"{module} imports {name}, which is not below it"
        assert not {here, there} <= STRANGERS, f"{module} imports {name}: modules of floor 3 know nothing of each other"


@pytest.mark.parametrize("package", INSIDE)
def test_order_inside_a_package(package):
    order = INSIDE[package]
    for module in (m for m in SOURCES if m.startswith(package + ".")):
        here = module.split(".")[1]
        for name in own(module):
            if name.startswith(package + ".") and (there := name.split(".")[1]) in order:
                assert order.index(there) < order.index(here), f"{module} imports {name}"


def test_splitting_knows_nothing_of_networks():
    used = {name.split(".")[0] for module in SOURCES if module.startswith("splitting") for name in own(module)}
    assert used <= {"arrays", "errors", "splitting"}


def test_no_cycles():
    graph = {module: {n for n in own(module) if n in SOURCES} for module in SOURCES if not module.endswith("__init__")}
    done: set[str] = set()
    while len(done) < len(graph):
        free = {module for module, needs in graph.items() if module not in done and not (needs & graph.keys()) - done}
        assert free, f"import cycle among {sorted(graph.keys() - done)}"
        done |= free


@pytest.mark.parametrize("module", SOURCES)
def test_who_may_import_what(module):
    tops = {name.split(".")[0] for name in imports(module)}
    eager = {name.split(".")[0] for name in imports(module, at_module_level(SOURCES[module]))}
    assert "array_api_compat" not in tops or module == "arrays"
    lazy = LAZY - BUILT_ON.get(module.split(".")[0], set())
    assert not eager & lazy, f"{module} imports {eager & lazy} when it is imported"
    if module.split(".")[0] == "crosscheck":
        assert not eager & NEVER
    else:
        assert not tops & NEVER
    assert (
        tops
        <= sys.stdlib_module_names
        | {"implicitref", "numpy", "scipy", "array_api_compat", "threadpoolctl"}
        | LAZY
        | NEVER
    )


@pytest.mark.parametrize("module", SOURCES)
def test_the_library_does_not_print(module):
    if MAY_PRINT & set(module.split(".")):
        pytest.skip("talks to the user: printing is its job")
    calls = [n for n in ast.walk(SOURCES[module]) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    assert not [call.lineno for call in calls if call.func.id == "print"]


@pytest.mark.parametrize("module", SOURCES)
def test_public_functions_have_docstrings(module):
    for scope in itertools.chain([SOURCES[module]], (n for n in SOURCES[module].body if isinstance(n, ast.ClassDef))):
        if getattr(scope, "name", "").startswith("_"):
            continue
        for node in scope.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{module}.{node.name} has no docstring"


WRITES = {"write_text", "write_bytes", "savez", "savez_compressed", "tofile", "dump"}
MAY_WRITE = {  # what else opens a file to write: the journal appends whole lines, the rest is for developers
    "archives", "__main__", "validation.journal", "validation.mutants", "validation.mutant_server",
    "validation.bench_conv", "validation.training_curves",
}  # fmt: skip


def _opens_to_write(call: ast.Call) -> bool:
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    modes = [a.value for a in (*call.args, *(k.value for k in call.keywords)) if isinstance(a, ast.Constant)]
    return name in WRITES or (name == "open" and any(str(mode).rstrip("bt+") in {"w", "a", "x"} for mode in modes))


def test_files_are_written_in_one_step_only():
    """Everything that users keep goes through `archives.write_atomically`: the old file or the new one, never half."""
    from implicitref.claims import validation

    beside = Path(validation().__file__).parent
    trees = SOURCES | {
        ".".join(["validation", *path.relative_to(beside).with_suffix("").parts]): ast.parse(path.read_text("utf-8"))
        for path in beside.rglob("*.py")
    }
    writing = {
        name
        for name, tree in trees.items()
        if any(isinstance(node, ast.Call) and _opens_to_write(node) for node in ast.walk(tree))
    }
    assert writing <= MAY_WRITE
    assert "archives" in writing


def test_median_function_is_short():
    lengths = {}
    for module, tree in SOURCES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lengths[f"{module}.{node.name}"] = body[-1].end_lineno - body[0].lineno + 1 if body else 0
    assert statistics.median(lengths.values()) <= 5
    long = {name: length for name, length in lengths.items() if length > 25}
    assert len(long) <= max(1, len(lengths) // 50), f"longer than 25 lines: {long}"


def test_docstrings_are_not_too_long():
    for module, tree in SOURCES.items():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                lines = (ast.get_docstring(node) or "").count("\n") + 1
                assert lines <= 45, f"{module}.{node.name}: a docstring of {lines} lines"


def share_of_import(ours: str, byte_code: Path) -> float:
    """What `ours` adds to the import of NumPy and SciPy, in processor time of one fresh interpreter.

    It keeps byte code, as an installed package does.  Both are timed in one process: what else the machine does
    slows both.
    """
    code = (
        "from time import process_time as t; start = t(); import numpy, scipy.linalg, scipy.fft; base = t() - start\n"
        f"start = t(); import {ours}; print((t() - start) / base)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(byte_code)
    return float(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment).stdout
    )


@pytest.mark.parametrize("ours", ["implicitref", "implicitref.mon"])
def test_import_costs_little_more_than_numpy_and_scipy(ours, tmp_path):
    share = min(share_of_import(ours, tmp_path) for _ in range(6))
    assert share <= 0.3, f"import {ours} adds {share:.0%} to the import of NumPy and SciPy"


def test_import_loads_nothing_heavy():
    code = "import sys, implicitref; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not loaded & (LAZY | NEVER | {"pandas", "tkinter", "IPython"})
