"""One batch to gradients; see `docs/balancing.md`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtvision.core.registry.lazy import lazy_exports

if TYPE_CHECKING:
    from mtvision.steps.bilevel import BilevelStep
    from mtvision.steps.data_map_step import DataMapStep
    from mtvision.steps.flat_regions import FlatRegionsStep, SAMOStep
    from mtvision.steps.held_out import HeldOutStep
    from mtvision.steps.pareto import ParetoStep
    from mtvision.steps.plain import PlainStep
    from mtvision.steps.problem import LossReport, StepProblem
    from mtvision.steps.sandwich import SandwichStep
    from mtvision.steps.search_step import SearchStep
    from mtvision.steps.selective_groups import SelectiveGroupsStep
    from mtvision.steps.several_batches import SeveralBatchesStep
    from mtvision.steps.sparse import SparseStep
    from mtvision.steps.step import Step
    from mtvision.steps.teachers import DistillStep
else:
    __getattr__ = lazy_exports(__name__)

__all__ = [
    "BilevelStep",
    "DataMapStep",
    "DistillStep",
    "FlatRegionsStep",
    "HeldOutStep",
    "LossReport",
    "ParetoStep",
    "PlainStep",
    "SAMOStep",
    "SandwichStep",
    "SearchStep",
    "SelectiveGroupsStep",
    "SeveralBatchesStep",
    "SparseStep",
    "Step",
    "StepProblem",
]
