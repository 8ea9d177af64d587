"""One BLAS thread, Hypothesis profiles, and the backends that every test of the core can ask for."""

# ruff: noqa: E402  (the environment is set before NumPy is imported)

from __future__ import annotations

import os

# Before NumPy is imported: small products on two threads wait for each other far longer than they compute.
for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import sys
from pathlib import Path

import hypothesis
import pytest

# laws, oracles, strategies and backends are imported by name from every folder of tests
sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("laws", "oracles")

import backends

hypothesis.settings.register_profile("dev", max_examples=20, deadline=None)
hypothesis.settings.register_profile(
    "ci", parent=hypothesis.settings.get_profile("ci"), max_examples=100, derandomize=True, deadline=None
)
hypothesis.settings.register_profile("thorough", max_examples=1000, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.gpu if name == "cupy" else ()) for name in backends.MAKERS]
)
def backend(request: pytest.FixtureRequest) -> backends.Backend:
    """Each array library in turn; one that is not installed is skipped with the reason."""
    try:
        return backends.make(request.param)
    except backends.Unavailable as reason:
        pytest.skip(str(reason))
