"""Pareto Manifold Learning: weights that are a mixture of one member per task, by the user's preference."""

from mtvision.models.adapters.pareto.adapter import ParetoManifold
from mtvision.models.adapters.pareto.manifold import Manifold, calibrate_preferences, manifold_of

__all__ = ["Manifold", "ParetoManifold", "calibrate_preferences", "manifold_of"]
