"""Cross-checking the implicit layers of other people and frameworks: is it right, and if not, which line is wrong?

`check` judges a `Target`, made by `from_callable`, `from_torch` or `from_jax`: the forward pass first, by certificates,
then every block of the gradient apart, and names what explains a wrong one out of a library of mistakes.
"""

from .check import CrosscheckError, assert_correct, check
from .forward import FORWARD
from .jax_functions import from_jax
from .mistakes import LIBRARY
from .pytorch import from_torch
from .report import Report
from .targets import Target, from_callable

__all__ = [
    "FORWARD",
    "LIBRARY",
    "CrosscheckError",
    "Report",
    "Target",
    "assert_correct",
    "check",
    "from_callable",
    "from_jax",
    "from_torch",
]
