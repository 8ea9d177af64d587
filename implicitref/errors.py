"""The three errors of the package. Each message names what was required, by which claim, and what was found."""

from __future__ import annotations

from typing import Any


class ShapeError(ValueError):
    """An array has the wrong number of axes or the wrong length along one of them."""


class HypothesisError(ValueError):
    """An argument violates a hypothesis of the theorem that the function implements."""


class ConvergenceError(RuntimeError):
    """An iteration ended without reaching its tolerance.

    Attributes
    ----------
    solution : Solution
        Everything that was computed: the last state, its certified bound, the history.
    """

    def __init__(self, message: str, solution: Any) -> None:
        super().__init__(message)
        self.solution = solution

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.args[0], self.solution))
