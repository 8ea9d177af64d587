"""The pytest plugin: a fixture ``crosscheck`` that fails a test with the report of a layer that does not pass."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

pytest: Any = importlib.import_module("pytest")  # whoever loads this module has it; the package does not need it


@pytest.fixture  # type: ignore[untyped-decorator]
def crosscheck() -> Callable[..., Any]:
    """`implicitref.crosscheck.assert_correct`: give it a target, get the report of a layer that passes."""
    from . import assert_correct

    return assert_correct


def pytest_runtest_makereport(item: Any, call: Any) -> None:
    """Beside a failure of a cross-check the report is shown as it is, as a section of its own."""
    error = call.excinfo.value if call.excinfo is not None else None
    report = getattr(error, "report", None)
    if report is not None and hasattr(report, "to_text"):
        item.add_report_section(call.when, "crosscheck", report.to_text())
