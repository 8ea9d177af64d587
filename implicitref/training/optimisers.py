"""The optimisers of ``implicitref.optimisers`` under the name that belongs to training."""

from ..optimisers import AdamState, SgdState, adam_init, adam_step, sgd_init, sgd_step

__all__ = ["AdamState", "SgdState", "adam_init", "adam_step", "sgd_init", "sgd_step"]
