"""The networks of the papers' tables: injection, equilibrium, readout, loss."""

from .ends import Images, Rows
from .fpn_tables import fpn_cifar10, fpn_mnist, fpn_mnist_dense, fpn_resnet56, fpn_svhn
from .implicit import ImplicitGradients, ImplicitModel, implicit_model
from .jfb import FixedPointNetwork, LatentMap, NetworkMap, TrainingPass, jfb_network
from .jfb_tables import jfb_cifar10, jfb_mnist, jfb_svhn
from .mon import Gradients, MonNetwork, SolveOptions, mon_network
from .tables import mon_conv, mon_fc, mon_multitier

__all__ = [
    "FixedPointNetwork",
    "Gradients",
    "Images",
    "ImplicitGradients",
    "ImplicitModel",
    "LatentMap",
    "MonNetwork",
    "NetworkMap",
    "Rows",
    "SolveOptions",
    "TrainingPass",
    "fpn_cifar10",
    "fpn_mnist",
    "fpn_mnist_dense",
    "fpn_resnet56",
    "fpn_svhn",
    "implicit_model",
    "jfb_cifar10",
    "jfb_mnist",
    "jfb_network",
    "jfb_svhn",
    "mon_conv",
    "mon_fc",
    "mon_multitier",
    "mon_network",
]
