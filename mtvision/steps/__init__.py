"""One batch to gradients; see `docs/balancing.md`. Importing this package fills `STEPS`."""

from mtvision.steps.data_map_step import DataMapStep
from mtvision.steps.plain import PlainStep
from mtvision.steps.problem import LossReport, StepProblem
from mtvision.steps.sandwich import SandwichStep
from mtvision.steps.search_step import SearchStep
from mtvision.steps.step import Step

__all__ = ["DataMapStep", "LossReport", "PlainStep", "SandwichStep", "SearchStep", "Step", "StepProblem"]
