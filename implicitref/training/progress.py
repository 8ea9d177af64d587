"""What a person sees while a network trains: a live bar on a terminal with rich, plain lines otherwise."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from typing import IO, Any, NamedTuple

from .loop import Record, Step

__all__ = ["Display", "display", "line"]


class Display(NamedTuple):
    """Two functions to call, after a minibatch and after an epoch."""

    step: Callable[[Step], object]
    epoch: Callable[[Record], object]


def line(record: Record, epochs: int) -> str:
    """One epoch in one line of text."""
    return (
        f"epoch {record.epoch:3d}/{epochs}  loss {record.loss:.4f}  train {100 * record.train_accuracy:6.2f} %  "
        f"test {100 * record.test_accuracy:6.2f} %  iterations {record.forward_iterations:.1f} + "
        f"{record.backward_iterations:.1f}  {_certified(record)}{record.seconds:.2f} s"
    )


def _certified(record: Record) -> str:
    if record.certified_error is None or record.alpha is None:
        return ""
    return f"certified error {record.certified_error:.1e}  alpha {record.alpha:.3g}  "


@contextlib.contextmanager
def display(epochs: int, steps: int, done: float = 0, stream: IO[str] | None = None) -> Iterator[Display]:
    """A `Display` for `epochs` epochs of `steps` minibatches, of which `done` epochs are behind us.

    The bar needs rich and a terminal; rich obeys NO_COLOR. Without them one line an epoch is written.
    """
    stream = sys.stdout if stream is None else stream
    if not (stream.isatty() and importlib.util.find_spec("rich")):
        yield Display(lambda step: None, lambda record: print(line(record, epochs), file=stream, flush=True))
        return
    with _bar(stream) as bar:
        yield _live(bar, bar.add_task("", total=epochs * steps, completed=round(done * steps), status=""), epochs)


def _bar(stream: IO[str]) -> Any:
    from rich import console, progress

    # all of it fits into 80 columns
    columns = (progress.BarColumn(12), progress.TaskProgressColumn(), progress.TextColumn("{task.fields[status]}"))
    return progress.Progress(*columns, console=console.Console(file=stream))


def _live(bar: Any, task: Any, epochs: int) -> Display:
    seen, right, count = 0, 0, 0

    def step(step: Step) -> None:
        nonlocal seen, right, count
        seen, right, count = (0, 0, 0) if step.minibatch == 0 else (seen, right, count)
        seen, right, count = seen + 1, right + step.correct, count + step.size
        status = (
            f"loss {step.loss:.3f}  accuracy {100 * right / count:.1f} %  iterations {step.forward_iterations}+"
            f"{step.backward_iterations}"
        )
        error = "" if step.certified_error is None else f"  error <= {step.certified_error:.0e}"
        bar.update(task, advance=1, status=status + error)

    def epoch(record: Record) -> None:
        bar.console.print(line(record, epochs), highlight=False, soft_wrap=True)

    return Display(step, epoch)
