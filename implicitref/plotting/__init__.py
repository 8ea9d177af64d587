"""Figures as Display objects: computed from a result by ``from_...``, drawn by ``plot``, matplotlib imported lazily.

A display holds what it shows as plain data, so that a figure can be checked without being looked at; after `plot` it
holds ``ax_`` and ``figure_`` as well, as the displays of scikit-learn do. Markers and line styles tell apart what
colours tell apart, so that every figure can be read in grey.
"""

from .evidence import ClaimDisplay, GradientBlockDisplay, Measurement
from .features import EquilibriumDisplay, SequentialDisplay
from .graph import COLOURS, ModelGraphDisplay
from .iterations import ConvergenceDisplay, IterateDisplay, SpectrumDisplay

__all__ = [
    "COLOURS",
    "ClaimDisplay",
    "ConvergenceDisplay",
    "EquilibriumDisplay",
    "GradientBlockDisplay",
    "IterateDisplay",
    "Measurement",
    "ModelGraphDisplay",
    "SequentialDisplay",
    "SpectrumDisplay",
]
