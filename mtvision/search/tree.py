"""The output of branching searches; the class lives in `core` because encoders are built from it."""

from mtvision.architecture.tree import Tree

__all__ = ["Tree"]
