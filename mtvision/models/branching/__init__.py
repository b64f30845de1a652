"""Branched encoders: groups of tasks that share the blocks of a backbone."""

from mtvision.models.branching.encoder import Branched, BranchedEncoder
from mtvision.models.branching.supernet import BranchingSearch, Supernet

__all__ = ["Branched", "BranchedEncoder", "BranchingSearch", "Supernet"]
