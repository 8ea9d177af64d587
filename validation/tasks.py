"""One entry of the register checked, and many of them: one after another, in processes, or on a cluster."""

from __future__ import annotations

import dataclasses
import importlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

from ..claims import Claim, entries
from ..commands import verify
from ..errors import ConvergenceError
from . import backend as backends
from .verdict import Verdict

__all__ = [
    "AGREES", "DEFINITION", "DISAGREES", "INCONCLUSIVE", "LEVELS", "PAPERS", "Outcome", "Refused", "Settings",
    "WorkersLost", "check", "checked_here", "checked_there", "everything", "one_thread", "papers", "selected",
]  # fmt: skip

AGREES, DISAGREES, INCONCLUSIVE, DEFINITION = "as registered", "disagrees", "inconclusive", "definition"
PAPERS = ("mon", "sequential", "fpn", "jfb", "ours")
LEVELS = {"quick": 1.0, "full": 10.0, "thorough": 60.0}  # trials, in units of the quick level
_NAMES = {"MON": "mon", "GREEDY": "sequential", "FPN": "fpn", "JFB": "jfb", "this project": "ours"}

REAL_INPUT = Claim(
    id="digits",
    title="Real input: digits",
    source="this project: the images embedded in scikit-learn; no claim of the papers",
    status="holds",
    as_implemented="A dense MON (n = 40, m = 1, relu) trained for twelve epochs; every test image solved to a "
    "certified 1e-6 in float64 by both splittings; the gradient of every parameter differenced.",
    hypotheses="",
    code=("implicitref.networks.MonNetwork", "implicitref.training.train"),
    validation="digits:real_input",
)

_ALONE = threading.Lock()


class Refused(Exception):
    """What was asked for cannot be done; the message says why and what to do."""


class WorkersLost(Exception):
    """The processes that check died."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the verdicts depend on, beside the versions of the libraries."""

    seed: int = 0
    size: float = 1.0
    level: str = "quick"
    backend: str = "numpy"

    def command(self, identifier: str = "") -> str:
        """The command that checks this entry, or all of them, once more."""
        parts = ["implicitref verify", *([f"--claim {identifier}"] if identifier else []), f"--seed {self.seed}"]
        parts += [f"--level {self.level}"] if self.level != "quick" else []
        parts += [f"--backend {self.backend}"] if self.backend != "numpy" else []
        return " ".join(parts)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What checking one claim gave, and the library it ran on: NumPy where its validation knows no other."""

    claim: Claim
    verdicts: tuple[Verdict, ...]
    state: str
    message: str = ""
    seconds: float = 0.0
    backend: str = "numpy"


def everything() -> tuple[Claim, ...]:
    """Every entry of the register, and the real input."""
    return (*entries(), REAL_INPUT)


def papers(claim: Claim) -> tuple[str, ...]:
    """The papers that this entry is about, by its ids and its source; "ours" first where it is no statement of them."""
    named = [
        _NAMES[name] for name in _NAMES if name in claim.source or any(i.startswith(f"{name}-") for i in claim.ids)
    ]
    first = "ours" if "ours" in named else _NAMES.get(claim.id.split("-")[0], "ours")
    return (first, *(name for name in named if name != first))


def selected(only: str | None = None, paper: str | None = None) -> list[Claim]:
    """The entry that answers for this id, those about a paper, or all of them."""
    found = [c for c in everything() if only is None or only in c.ids]
    return [c for c in found if paper is None or paper in papers(c)]


def one_thread() -> AbstractContextManager[Any]:
    """BLAS in one thread, where that can be asked for."""
    # small products: a second BLAS thread costs more than it gives, and changes the last digits
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return nullcontext()
    return threadpool_limits(1)


def check(claim: Claim, seed: int, size: float, backend: str = "numpy") -> Outcome:
    """Run the validation of one claim; a solver that falls short makes it inconclusive, any other error disagrees."""
    if not claim.validation:
        return Outcome(claim, (), DEFINITION)
    # one at a time in a process: some checks count calls of the package, and the limit on BLAS is the process's
    with _ALONE:
        began = time.perf_counter()
        verdicts, state, message, place = _attempt(claim, seed, size, backend)
        return Outcome(claim, verdicts, state, message, time.perf_counter() - began, place)


def _attempt(claim: Claim, seed: int, size: float, backend: str) -> tuple[tuple[Verdict, ...], str, str, str]:
    module, name = claim.validation.split(":")
    try:
        validation = getattr(importlib.import_module(f".{module}", __package__), name)
        with backends.on(backend) as border, one_thread():  # both reach what is loaded: after the import
            verdicts = tuple(validation(seed, size))
    except ConvergenceError as error:
        return (), INCONCLUSIVE, str(error), backend
    except Exception as error:
        return (), DISAGREES, f"{type(error).__name__}: {error}", backend
    agrees = bool(verdicts) and all(v.as_registered for v in verdicts)
    return verdicts, AGREES if agrees else DISAGREES, "", backend if border.crossed else "numpy"


# ------------------------------------------------------------------------------------------------
# many


def checked_here(claims: Sequence[Claim], settings: Settings, begin: Callable[[str], None]) -> Iterator[Outcome]:
    """One after another; `begin` hears of each before it is checked."""
    for claim in claims:
        begin(claim.id)
        yield check(claim, settings.seed, settings.size, settings.backend)


def checked_there(
    claims: Sequence[Claim], settings: Settings, jobs: int, client: Any | None = None
) -> Iterator[Outcome]:
    """In processes of this machine, or on the workers of a Dask client; in the order in which they finish.

    Raises
    ------
    WorkersLost
        The processes died, or could not start; what a check itself raises is part of its outcome.
    """
    import joblib

    given = settings.seed, settings.size, settings.backend
    with ExitStack() as stack:
        if client is not None:
            stack.enter_context(joblib.parallel_config("dask", client=client))
        # one entry a dispatch: what is dispatched together comes back, or is lost, together
        pool = joblib.Parallel(
            jobs if client is None else -1, batch_size=1, pre_dispatch="all", return_as="generator_unordered"
        )
        try:
            yield from pool(joblib.delayed(verify.check)(claim.id, *given) for claim in claims)
        except Exception as error:
            raise WorkersLost(f"{type(error).__name__}: {error}") from error
