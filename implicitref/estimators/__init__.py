"""scikit-learn estimators: monotone operator networks, fixed point networks, implicit models.

Importing this package imports scikit-learn; `import implicitref` does not import this package.
"""

from .certificates import CertifiedClasses, CertifiedValues
from .implicit import ImplicitClassifier
from .jfb import JFBClassifier
from .mon import MONClassifier, MONRegressor
from .sequential import SequentialImplicitClassifier, SequentialImplicitRegressor

__all__ = [
    "CertifiedClasses",
    "CertifiedValues",
    "ImplicitClassifier",
    "JFBClassifier",
    "MONClassifier",
    "MONRegressor",
    "SequentialImplicitClassifier",
    "SequentialImplicitRegressor",
]
