"""The networks of the papers' tables: injection, equilibrium, readout, loss."""

from .ends import Images, Rows
from .mon import Gradients, MonNetwork, SolveOptions, mon_network
from .tables import mon_conv, mon_fc, mon_multitier

__all__ = [
    "Gradients",
    "Images",
    "MonNetwork",
    "Rows",
    "SolveOptions",
    "mon_conv",
    "mon_fc",
    "mon_multitier",
    "mon_network",
]
