"""PASCAL-Context: the loader and the labels that are computed from other files."""

from mtvision.data.pascal_context.dataset import PascalContext

__all__ = ["PascalContext"]
