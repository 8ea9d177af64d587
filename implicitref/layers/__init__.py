"""Explicit layers: forward and its vjp, side by side."""

from .affine import affine, affine_vjp, affine_vjp_params

__all__ = ["affine", "affine_vjp", "affine_vjp_params"]
