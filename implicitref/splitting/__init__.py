"""Operator splitting: problems, iterations, rates, certificates, and the driver."""

from . import certificates, rates
from .inclusion import Inclusion, State
from .iterations import douglas_rachford, forward_backward, peaceman_rachford, picard
from .solve import Solution, solve

__all__ = [
    "Inclusion",
    "Solution",
    "State",
    "certificates",
    "douglas_rachford",
    "forward_backward",
    "peaceman_rachford",
    "picard",
    "rates",
    "solve",
]
