"""``implicitref doctor``."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__, activations, mon
from ..archives import unwritable
from ..operators import MonotoneDense
from .common import FAILED, OK, RAW, USAGE, complain, processors, write_json

__all__ = ["add"]

PACKAGES = ("numpy", "scipy", "scikit-learn", "array-api-compat", "threadpoolctl", "matplotlib", "jinja2", "rich")
BACKENDS = {"torch": "torch", "jax": "jax", "cupy": "cupy", "array_api_strict": "array-api-strict"}


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "doctor",
        help="versions, threads, array libraries, and a self test",
        description="What this installation is made of, what may slow it down, and whether it computes right.",
        epilog="example:\n  implicitref doctor --json doctor.json\n\n"
        "exit status: 0 all well (warnings included), 1 the self test fails, 2 usage",
        formatter_class=RAW,
    )
    parser.add_argument("--json", type=Path, metavar="F", help="write everything as JSON")
    parser.set_defaults(run=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    if complaint := unwritable(arguments.json) if arguments.json else "":
        return complain(complaint, USAGE)
    pools = _pools()
    report: dict[str, Any] = {
        "implicitref": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": processors(),
        "versions": {name: _version(name) for name in PACKAGES},
        "backends": {name: _version(package) for name, package in BACKENDS.items() if importlib.util.find_spec(name)},
        "gpu": _gpu(),
        "pools": pools,
        "warnings": warnings_about(pools, processors()),
        "self test": self_test(),
    }
    _say(report)
    if arguments.json and write_json(arguments.json, {"schema": "implicitref-doctor", "version": 1, **report}) != OK:
        return FAILED
    return OK if not report["self test"]["faults"] else FAILED


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _pools() -> list[dict[str, Any]]:
    from threadpoolctl import threadpool_info

    for library in ("scipy.linalg", "sklearn.utils"):  # each may bring a BLAS or an OpenMP of its own
        importlib.import_module(library)
    kept = ("user_api", "internal_api", "version", "num_threads", "prefix")
    return [{key: pool.get(key) for key in kept} for pool in threadpool_info()]


def warnings_about(pools: list[dict[str, Any]], cores: int) -> list[str]:
    """What about these thread pools may slow the package down."""
    blas = [pool for pool in pools if pool["user_api"] == "blas"]
    busy, found = [pool for pool in blas if pool["num_threads"] > 1], []
    if len(busy) > 1:
        shown = ", ".join(f"{pool['internal_api']} {pool['version']} with {pool['num_threads']}" for pool in busy)
        found.append(
            f"{len(busy)} BLAS libraries have threads of their own ({shown}) on {cores} processors: where both are at "
            "work they wait for each other. Set OPENBLAS_NUM_THREADS=1."
        )
    if any(pool["num_threads"] > cores for pool in pools):
        found.append(f"a pool has more threads than there are processors, {cores}. Set OMP_NUM_THREADS={cores}.")
    if len(busy) == 1 and cores > 1:
        found.append("dense networks gain nothing from several threads; OPENBLAS_NUM_THREADS=1 is often faster.")
    return found


def _gpu() -> bool:
    try:
        return bool(importlib.import_module("cupy").cuda.is_available())
    except Exception:  # without CuPy, or with one that its driver does not fit
        return False


def self_test() -> dict[str, Any]:
    """A random equilibrium and its gradient, each against a second way to compute it."""
    began, rng, faults = time.perf_counter(), np.random.default_rng(0), list[str]()
    A, B = rng.normal(size=(2, 20, 20)) / 20**0.5
    W, b, dz, tanh = MonotoneDense(A, B, 1.0), rng.normal(size=(3, 20)), rng.normal(size=(3, 20)), activations.tanh
    one, two = (mon.equilibrium(W, b, tanh, method=m, tol=1e-10) for m in ("peaceman-rachford", "forward-backward"))
    off = float(np.abs(one.z - np.tanh(one.z @ W.to_dense().T + b)).max())
    if not off < 1e-9 or not np.abs(one.z - two.z).max() < 1e-9:
        faults.append(f"the equilibrium of a random network is off by {off:.2g}")
    grads, _ = mon.equilibrium_vjp(W, b, tanh, one.z, dz, tol=1e-12)
    jac = 1 - one.z**2
    exact = [np.linalg.solve((np.eye(20) - j[:, None] * W.to_dense()).T, v) * j for j, v in zip(jac, dz, strict=True)]
    if not np.abs(grads["injection"] - exact).max() < 1e-9:
        faults.append("the gradient of a random network differs from a direct solve")
    return {"faults": faults, "seconds": time.perf_counter() - began}


def _say(report: dict[str, Any]) -> None:
    print(f"implicitref {report['implicitref']}, Python {report['python']}, {report['platform']}")
    print("\n".join(f"  {name:18}{version or 'not installed'}" for name, version in report["versions"].items()))
    others = ", ".join(f"{name} {version}" for name, version in report["backends"].items())
    print(f"array libraries: numpy{', ' + others if others else ''}; GPU for CuPy: {'yes' if report['gpu'] else 'no'}")
    for pool in report["pools"]:
        print(f"threads: {pool['num_threads']} of {pool['internal_api']} {pool['version'] or ''} ({pool['user_api']})")
    set_by = {name: os.environ[name] for name in os.environ if name.endswith("_NUM_THREADS")}
    print(f"processors: {report['processors']}; set by the environment: {set_by or 'nothing'}")
    for warning in report["warnings"]:
        print(f"warning: {warning}")
    test = report["self test"]
    print("\n".join(f"self test: {fault}" for fault in test["faults"]) or f"self test: well, {test['seconds']:.2f} s")
