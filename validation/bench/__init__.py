"""``implicitref bench``: how fast, measured beside the machine's peaks and other implementations, at one accuracy.

`layers` has the cases with their counts and their certificate, `measure` times sides against each other, `ours` and
`peers` are the sides, `suites` what is measured, `curves` how it grows, `machine` the peaks.
"""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...archives import unwritable, write_atomically
from .. import backend, bench_conv, table
from ..record import environment
from . import peers, report
from .curves import Curve, curves
from .machine import Place, peaks, place
from .measure import FAILED as SIDE_FAILED
from .measure import OFF, OURS, Row, measure
from .suites import LEVELS, SUITES

__all__ = ["main"]

OK, FAILED, USAGE = 0, 1, 2


def main(namespace: Namespace) -> int:
    """Measure, print, write. 0: done; 1: a solve of ours is not certified, or a file could not be written; 2: usage."""
    complaint = _usage(namespace)
    if complaint:
        return _complain(complaint, USAGE)
    began = time.perf_counter()
    with bench_conv.limited(namespace.threads):
        where = place(namespace.backend)._replace(threads=namespace.threads)
        machine = peaks(where, namespace.threads)
        rows = [row for rows in _measured(namespace, where, machine) for row in rows]
        drawn = namespace.out is not None or namespace.html is not None
        found = [*curves(namespace.level, where, namespace.runs, namespace.seed)] if drawn else []
        facts = _facts(namespace, where, machine)
    facts["seconds"] = time.perf_counter() - began
    table.plain([report.HEADER, *map(report.cells, rows)])
    print(_said(facts, rows))
    try:
        _write(namespace, report.document(rows, found, facts), rows, found)
    except OSError as error:
        return _complain(f"the files could not be written: {error}", FAILED)
    return FAILED if any(row.side.startswith(OURS) and row.state in (OFF, SIDE_FAILED) for row in rows) else OK


def _usage(namespace: Namespace) -> str:
    if namespace.seed < 0:
        return f"--seed must be >= 0; got {namespace.seed}."
    if namespace.out is not None and namespace.out.exists() and not namespace.out.is_dir():
        return f"--out must be a folder; {str(namespace.out)!r} is a file."
    paths = [path for path in (namespace.json, namespace.html) if path is not None]
    if namespace.html is not None and (lacking := report.missing_for_page()):
        return f"--html needs {lacking}. Install it with: pip install 'implicitref[report]'"
    return backend.missing(namespace.backend) or next(filter(None, map(unwritable, paths)), "")


def _complain(message: str, status: int) -> int:
    print(f"implicitref bench: {message}", file=sys.stderr)
    return status


def _measured(namespace: Namespace, where: Place, machine: dict[str, float]) -> Iterator[list[Row]]:
    """The rows of one task after another, under a bar."""
    makes = [*SUITES[namespace.suite](LEVELS[namespace.level], where, namespace.seed)]
    bar = table.progress(len(makes))
    try:
        for done, make in enumerate(makes, 1):
            task = make()
            bar.begin(f"{task.case}: {task.name}")
            try:
                yield measure(task, where, machine, namespace.runs)
            finally:
                task.end()
            bar.finished(done)
    finally:
        bar.close()


def _facts(namespace: Namespace, where: Place, machine: dict[str, float]) -> dict[str, Any]:
    """What the numbers depend on."""
    from threadpoolctl import threadpool_info

    kept = ("user_api", "internal_api", "version", "num_threads")
    return {
        "environment": environment(),
        "suite": namespace.suite,
        "backend": where.backend,
        "device": where.device,
        "level": namespace.level,
        "runs": namespace.runs,
        "seed": namespace.seed,
        "threads": namespace.threads,
        "pools": [{key: pool.get(key) for key in kept} for pool in threadpool_info()],
        "machine": machine,
        "peers": peers.versions(),
    }


def _said(facts: dict[str, Any], rows: list[Row]) -> str:
    peak = ", ".join(f"{name} {facts['machine'][name]:.3g}" for name in facts["machine"])
    absent = sorted({row.note for row in rows if row.state == "absent"})
    lines = [f"machine, G/s: {peak}", *(f"absent: {note}" for note in absent)]
    wrong = [row for row in rows if row.state in (OFF, SIDE_FAILED)]
    lines += [f"{row.state}: {row.case}, {row.task}, {row.side}: {row.note}" for row in wrong]
    done = f"{len(rows)} rows in {facts['seconds']:.1f} s, {facts['threads']} threads, {facts['runs']} runs"
    return "\n".join([*lines, done])


def _write(namespace: Namespace, found: dict[str, Any], rows: list[Row], drawn: list[Curve]) -> None:

    texts = {namespace.json: lambda: json.dumps(found, indent=1, allow_nan=False) + "\n"}
    texts |= {namespace.html: lambda: report.as_page(found, rows, drawn)}
    for path, text in texts.items():
        if path is not None:
            write_atomically(Path(path), lambda file, text=text: file.write(text().encode()))  # type: ignore[misc]
            print(f"wrote {path}")
    if namespace.out is not None:
        print(
            f"wrote {', '.join(path.name for path in report.save_all(namespace.out, rows, drawn))} in {namespace.out}"
        )
