"""Explicit layers: forward and its vjp, side by side."""

from .affine import affine, affine_vjp

__all__ = ["affine", "affine_vjp"]
