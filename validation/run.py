"""``implicitref verify``: every registered claim checked on this machine, a table, and a report as JSON and HTML."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import json
import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from ..archives import unwritable, write_atomically
from ..claims import Claim
from . import backend, cluster, journal
from .record import as_json, environment, verdict_entry
from .table import conclusion, number, plain, progress, show
from .tasks import (
    DISAGREES,
    INCONCLUSIVE,
    LEVELS,
    Outcome,
    Refused,
    Settings,
    WorkersLost,
    check,
    checked_here,
    checked_there,
    everything,
    one_thread,
    selected,
)  # fmt: skip

__all__ = [
    "Outcome", "as_json", "check", "environment", "main", "number", "one_thread", "plain", "selected", "verdict_entry",
]  # fmt: skip

OK, FAILED, USAGE, UNDECIDED, INTERRUPTED = 0, 1, 2, 3, 130
DEFAULTS = {"paper": None, "level": "quick", "backend": "numpy", "jobs": 1, "scheduler": None, "resume": False}
EXTRA = "pip install 'implicitref[report]'"


@dataclasses.dataclass(frozen=True)
class Request:
    """One call of the command."""

    settings: Settings
    claims: tuple[Claim, ...]
    paths: dict[str, str]
    paper: str | None
    claim: str | None
    page: bool  # asked for, not only written where it can be
    resume: bool
    jobs: int

    @property
    def journal(self) -> Path | None:
        """Where finished outcomes are kept: beside the first report."""
        return Path(f"{next(iter(self.paths.values()))}.journal") if self.paths else None

    @property
    def identity(self) -> dict[str, Any]:
        """What two runs must share so that one goes on with the other."""
        chosen = {"paper": self.paper, "claim": self.claim}
        library = importlib.import_module(self.settings.backend).__version__
        return dataclasses.asdict(self.settings) | chosen | environment() | {"version of the backend": library}


def main(namespace: Namespace) -> int:
    """Check, print, write. 0: all as registered; 1: something disagrees; 2: usage; 3: a check could not be decided."""
    options = Namespace(**DEFAULTS | vars(namespace))
    request = _request(options)
    complaint = _usage(request)
    if complaint:
        return _complain(complaint, USAGE)
    try:
        kept = _kept(request)
        with cluster.connected(options.scheduler) as client:
            return _run(request, kept, client)
    except Refused as error:
        return _complain(str(error), USAGE)


def _request(options: Namespace) -> Request:
    size = getattr(options, "size", LEVELS[options.level])
    settings = Settings(options.seed, size, options.level, options.backend)
    # checking a few claims does not replace the whole report, unless asked
    default = {} if options.claim or options.paper else {"json": "report.json", "html": "report.html"}
    paths = default | {kind: path for kind in ("json", "html") if (path := getattr(options, kind)) is not None}
    claims = tuple(selected(options.claim, options.paper))
    page, resume, jobs = options.html is not None, options.resume, options.jobs
    return Request(settings, claims, paths, options.paper, options.claim, page, resume, jobs)


def _usage(request: Request) -> str:
    if request.settings.seed < 0:
        return f"--seed must be >= 0; got {request.settings.seed}."
    if not request.claims:
        return _nothing(request)
    return backend.missing(request.settings.backend) or _usage_of_paths(request)


def _nothing(request: Request) -> str:
    if selected(request.claim):
        return f"{request.claim} is no entry about --paper {request.paper}."
    known = [i for c in everything() for i in c.ids]
    close = difflib.get_close_matches(str(request.claim), known, 3, 0.4) or known[:3]
    return f"no claim {request.claim!r} in the register. Did you mean {', '.join(close)}?"


def _usage_of_paths(request: Request) -> str:
    paths = request.paths
    missing = _missing_for_page() if request.page else ""
    if missing:
        return f"--html needs {missing}. Install it with: {EXTRA}"
    if request.resume and not paths:
        return "--resume goes on from the journal beside a report; name the report with --json or --html."
    if len({os.path.realpath(path) for path in paths.values()}) < len(paths):
        return f"--json and --html must name two files; got {paths['json']!r} for both."
    return next(filter(None, map(unwritable, paths.values())), "")


def _complain(message: str, status: int) -> int:
    print(f"implicitref verify: {message}", file=sys.stderr)
    return status


# ------------------------------------------------------------------------------------------------
# the run and its journal


def _kept(request: Request) -> list[Outcome]:
    """The outcomes of an interrupted run of the same request, where they are asked for."""
    path = request.journal
    if path is None or not path.exists():
        return []
    if not request.resume:
        _complain(f"starts anew; {path} of an interrupted run is dropped (--resume would go on with it).", OK)
        return []
    try:
        identity, outcomes = journal.read(path)
    except (ValueError, OSError) as error:
        raise Refused(f"--resume: {error}") from None
    if identity != request.identity:
        told = journal.differences(identity, request.identity)
        raise Refused(f"--resume: {path} belongs to another run: {told}.")
    _complain(f"goes on after {len(outcomes)} entries of {path}.", OK)
    return outcomes


def _run(request: Request, kept: list[Outcome], client: Any) -> int:
    began, outcomes, add = time.perf_counter(), {o.claim.id: o for o in kept}, _adding(request, kept)
    try:
        with closing(_rest(request, outcomes, client)) as finished:
            for outcome in finished:
                outcomes[outcome.claim.id] = outcome
                add(outcome)
    except (KeyboardInterrupt, WorkersLost) as error:
        return _stopped(request, outcomes, error)
    return _finish(request, _ordered(request, outcomes), time.perf_counter() - began)


def _adding(request: Request, kept: list[Outcome]) -> Callable[[Outcome], None]:
    """What keeps an outcome in the journal; a disk that fills up ends the journal, not the run."""
    path = request.journal
    if path is None:
        return lambda outcome: None
    try:
        journal.begin(path, request.identity, kept)
    except OSError as error:
        raise Refused(f"the journal beside the report could not be written: {error}.") from None
    broken: list[OSError] = []

    def add(outcome: Outcome) -> None:
        try:
            if not broken:
                journal.add(path, outcome)
        except OSError as error:
            broken.append(error)
            _complain(f"the journal could not be written: {error}. The run goes on without it.", OK)

    return add


def _rest(request: Request, kept: dict[str, Outcome], client: Any) -> Iterator[Outcome]:
    """What is not kept yet, as it finishes, under the bar."""
    claims, known = [c for c in request.claims if c.id not in kept], len(kept)
    bar = progress(len(request.claims), known)
    try:
        for done, outcome in enumerate(_checked(request, claims, client, bar.begin), known + 1):
            bar.finished(done)
            yield outcome
    finally:
        bar.close()


def _checked(request: Request, claims: list[Claim], client: Any, begin: Callable[[str], None]) -> Iterator[Outcome]:
    if client is None and request.jobs == 1:
        return checked_here(claims, request.settings, begin)
    begin(f"{request.jobs} processes" if client is None else "on the cluster")
    return checked_there(claims, request.settings, request.jobs, client)


def _ordered(request: Request, outcomes: dict[str, Outcome]) -> list[Outcome]:
    return [outcomes[claim.id] for claim in request.claims if claim.id in outcomes]


def _stopped(request: Request, outcomes: dict[str, Outcome], error: BaseException) -> int:
    show(_ordered(request, outcomes), request.claim is not None)
    lost = isinstance(error, WorkersLost)
    reason = f"the workers are lost ({error})" if lost else "stopped"
    kept = f"they are kept in {request.journal}, and --resume goes on" if request.journal else "no report is written"
    return _complain(f"{reason} after {len(outcomes)} entries; {kept}.", UNDECIDED if lost else INTERRUPTED)


# ------------------------------------------------------------------------------------------------
# the end


def _finish(request: Request, outcomes: list[Outcome], seconds: float) -> int:
    s = request.settings
    report = as_json(outcomes, s.seed, s.size, seconds, level=s.level, backend=s.backend)
    show(outcomes, request.claim is not None)
    conclusion(outcomes, s, seconds)
    states = {outcome.state for outcome in outcomes}
    status = FAILED if DISAGREES in states else UNDECIDED if INCONCLUSIVE in states else OK
    try:
        _write(request.paths, report)
    except OSError as error:
        return _complain(f"the report could not be written: {error}", status or USAGE)
    if request.journal is not None:
        request.journal.unlink(missing_ok=True)
    return status


def _missing_for_page() -> str:
    """The first library that the page needs and that is not there."""
    for name in ("jinja2", "matplotlib", "latex2mathml"):
        try:
            importlib.import_module(name)
        except ImportError:
            return name
    return ""


def _write(paths: dict[str, str], report: dict[str, Any]) -> None:
    if "json" in paths:
        _replace(paths["json"], json.dumps(report, indent=1, allow_nan=False) + "\n")
    missing = _missing_for_page() if "html" in paths else ""
    if missing:
        print(f"no HTML report: {missing} is missing. Install it with: {EXTRA}", file=sys.stderr)
    elif "html" in paths:
        from .report import render

        _replace(paths["html"], render(report))


def _replace(path: str, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))  # a killed run leaves the former report whole
    print(f"wrote {path}")
