"""The networks of the papers' tables: injection, equilibrium, readout, loss."""

from .ends import Images, Rows
from .jfb import FixedPointNetwork, LatentMap, NetworkMap, TrainingPass, jfb_network
from .jfb_tables import jfb_mnist, jfb_svhn
from .mon import Gradients, MonNetwork, SolveOptions, mon_network
from .tables import mon_conv, mon_fc, mon_multitier

__all__ = [
    "FixedPointNetwork",
    "Gradients",
    "Images",
    "LatentMap",
    "MonNetwork",
    "NetworkMap",
    "Rows",
    "SolveOptions",
    "TrainingPass",
    "jfb_mnist",
    "jfb_network",
    "jfb_svhn",
    "mon_conv",
    "mon_fc",
    "mon_multitier",
    "mon_network",
]
