"""The workers of a Dask cluster that compute with the same versions as this process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ..commands import verify
from .record import environment
from .tasks import Refused

__all__ = ["connected"]

SAME = ("implicitref", "python", "numpy", "scipy")  # of the report's environment, what the last digits depend on


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """A client of the scheduler at this address, or None where there is none.

    Raises
    ------
    Refused
        dask.distributed is not installed, nobody answers, or a worker has another version of something.
    """
    if address is None:
        yield None
        return
    with _client(address) as client:
        _check_versions(client)
        yield client


def _client(address: str) -> Any:
    try:
        from distributed import Client
        from distributed.comm import get_address_host_port
    except ImportError:
        raise Refused(
            "--scheduler needs dask.distributed. Install it with: pip install 'implicitref[distributed]'"
        ) from None
    try:
        get_address_host_port(address)  # a client of what is no address complains twenty seconds after its end
        return Client(address, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise Refused(f"--scheduler {address}: no Dask scheduler answers there ({error}).") from None


def _check_versions(client: Any) -> None:
    ours = environment()
    try:
        found = client.run(verify.environment)
    except Exception as error:
        raise Refused(f"the workers cannot run implicitref: {type(error).__name__}: {error}") from None
    for worker, theirs in found.items():
        for name in SAME:
            if theirs[name] != ours[name]:
                raise Refused(f"the worker {worker} has {name} {theirs[name]}; here it is {ours[name]}.")
