r"""One training step in several processes: each has a part of the batch, and all find the gradient of the whole.

What the images of a batch share in training mode are sums: the moments of batch norm and their cotangents, the length
of the residual, the loss and the gradient. The members of a `Group` gather each other's parts of every sum and add them
up in the same order, so that all go on with the same bits and stop at the same iteration. The results are those of one
process up to the rounding of these sums.

Processes, not threads: a pass over a part takes 20 microseconds, less than handing on the interpreter's lock.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import combinations, pairwise
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import numpy as np
from threadpoolctl import threadpool_limits

from ..arrays import Array, count
from ..errors import HypothesisError
from ..networks import FixedPointNetwork
from ..networks.jfb import TrainingPass

__all__ = ["Group", "Team", "keep_memory", "shareable"]


class Group:
    """A member's connections to the others, by their numbers; its own is `rank`."""

    def __init__(self, rank: int, others: Mapping[int, Connection]) -> None:
        self.rank, self.others = rank, dict(others)

    def gather(self, values: np.ndarray) -> np.ndarray:
        """(k,) of every member, (members, k) in the order of their numbers; all must call it together, k the same.

        Raises
        ------
        EOFError, OSError
            Another member is gone.
        """
        own = np.asarray(values, dtype=np.float64)
        for other in self.others.values():
            other.send_bytes(own.tobytes())
        found = {rank: np.frombuffer(_awaited(other)) for rank, other in self.others.items()}
        return np.stack([{self.rank: own, **found}[rank] for rank in range(len(found) + 1)])

    def close(self) -> None:
        """What the others gather from now on fails."""
        for other in self.others.values():
            other.close()


def _awaited(other: Connection) -> bytes:
    while not other.poll():  # asleep, a process takes longer to wake than the answer takes to come
        pass
    return other.recv_bytes()


def shareable(rule: str) -> bool:
    """Whether a team can apply the rule: an implicit one stops by norms that its solver takes of one member's part."""
    return rule.partition(":")[0] in ("jfb", "neumann")


class Team:
    r"""`FixedPointNetwork.training_pass` by several processes, one BLAS thread each; a context manager.

    The script that makes one must be importable: ``if __name__ == "__main__":``, as `multiprocessing` asks.

    Parameters
    ----------
    network : FixedPointNetwork
        NumPy arrays; what it is made of is handed over once, its arrays with every step.
    members : int, >= 2

    Raises
    ------
    HypothesisError
    """

    def __init__(self, network: FixedPointNetwork, members: int) -> None:
        self.members, self.closed = count("members", members, 2), False
        context = multiprocessing.get_context("spawn")
        ties: list[dict[int, Connection]] = [{} for _ in range(members)]
        for a, b in combinations(range(members), 2):
            ties[a][b], ties[b][a] = context.Pipe()
        self.group, self.lines, self.processes = Group(0, ties[0]), list[Connection](), []
        # the ends that the children get are closed here with this function's names: an end that stays open would hide
        # that its process is gone
        for rank in range(1, members):
            ours, theirs = context.Pipe()
            process = context.Process(target=_member, args=(theirs, Group(rank, ties[rank]), network), daemon=True)
            process.start()
            self.lines.append(ours)
            self.processes.append(process)

    def training_pass(
        self, network: FixedPointNetwork, x: Array, labels: Array, rule: str, *, tol: float = 1e-1, max_iter: int = 50
    ) -> TrainingPass:
        """As the network's own, of a batch with at least one image a member; the solution holds this process' images.

        Raises
        ------
        HypothesisError, ConvergenceError
            As the network's own, and for an implicit rule.
        RuntimeError
            A process is gone. The team is closed.
        """
        if self.closed:
            raise RuntimeError("the team is closed, as it is after any error; make another.")
        if not shareable(rule):
            raise HypothesisError(f"rule must be jfb or neumann:k for several processes; got {rule!r}.")
        parts = list(_parts(x.shape[0], self.members))
        how: dict[str, Any] = {"tol": tol, "max_iter": max_iter}
        try:
            for line, part in zip(self.lines, parts[1:], strict=True):
                line.send(({**network.params, **network.buffers}, x[part], labels[part], rule, how))
            own = network.training_pass(x[parts[0]], labels[parts[0]], rule, **how, gather=self.group.gather)
            return _whole(own, [_unless_error(line.recv()) for line in self.lines])
        except (EOFError, OSError):
            with self:
                self._explain()
        except BaseException:
            self.close()
            raise

    def _explain(self) -> NoReturn:
        # by what a process sent before it left, or that it left without a word
        for line in self.lines:
            with suppress(EOFError, OSError):
                while line.poll():
                    _unless_error(line.recv())
        raise RuntimeError("a process of the team is gone; the system may have ended it for memory.")

    def close(self) -> None:
        """End the processes."""
        self.closed = True
        self.group.close()
        for line in self.lines:
            line.close()
        for process in self.processes:
            process.join(timeout=10)
            process.kill()

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _unless_error(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer


def _parts(batch: int, members: int) -> Iterator[slice]:
    if batch < members:
        raise HypothesisError(f"x must hold at least one image for each of {members} processes; got {batch}.")
    return (slice(*ends) for ends in pairwise(batch * i // members for i in range(members + 1)))


def _member(line: Connection, group: Group, network: FixedPointNetwork) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interruption of the terminal is the first process' to handle
    keep_memory()
    with threadpool_limits(1, "blas"), suppress(EOFError, OSError):
        while True:
            arrays, x, labels, rule, how = line.recv()
            try:
                found = network.replace(**arrays).training_pass(x, labels, rule, **how, gather=group.gather)
            except Exception as error:
                line.send(error)
                return
            line.send((found.loss, found.logits, found.grads))


def _whole(own: TrainingPass, others: list[tuple[float, Array, dict[str, Array]]]) -> TrainingPass:
    losses, logits, grads = zip(*others, strict=True)
    return own._replace(
        loss=own.loss + sum(losses),
        logits=np.concatenate([own.logits, *logits]),
        grads={name: sum((other[name] for other in grads), start=g) for name, g in own.grads.items()},
    )


def keep_memory() -> None:
    """Where the C library is that of Linux, let this process keep what large arrays leave behind.

    Given back to the system, memory comes back as new pages, cleared for every step anew: a tenth of the step's time.
    """
    with suppress(AttributeError, OSError, TypeError):
        mallopt, trim_threshold, mmap_threshold = ctypes.CDLL(None).mallopt, -1, -3
        mallopt(trim_threshold, 2**30)
        mallopt(mmap_threshold, 2**25)
