"""Training that also records the network's confidence in every image, each time the image is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from mtvision.balance.balancer import Balancer
from mtvision.core.registry import STEPS
from mtvision.core.sample import Batch
from mtvision.core.values import Entry
from mtvision.steps.confidence import true_confidence
from mtvision.steps.data_map import DataMap
from mtvision.steps.problem import LossReport, StepProblem
from mtvision.steps.step import Step

Seen = list[tuple[str, str, float]]
"""(task, image id, confidence) of one batch."""


@STEPS.register_module()
class DataMapStep(nn.Module, Step):
    """Runs another step and records the data maps of STG-MTL (Sherif et al., 2023).

    Gradients are those of the step inside, bit for bit. Confidences are those of its forward passes, that is
    of training images with their augmentation (`mtvision.steps.confidence`). Every pass over an image counts
    once, so a step with one pass per batch counts epochs. All processes hold the whole map, which is part of
    the checkpoint; `GroupingSearcher(affinity="data_maps")` reads it there.

    Args:
        step: config of the step inside; None = `PlainStep`.
    """

    def __init__(self, step: Annotated[Mapping[str, Any], Entry("STEPS")] | None = None) -> None:
        super().__init__()
        self.inner: Step = STEPS.build(dict(step or {"type": "PlainStep"}))
        self.held_out = self.inner.held_out
        self.divides_batches = self.inner.divides_batches
        self.serves = self.inner.serves
        self.data_map = DataMap()

    def averages_gradients(self, balancer: Balancer) -> bool:
        """As the step inside."""
        return self.inner.averages_gradients(balancer)

    def check_balancer(self, balancer: Balancer) -> None:
        """As the step inside."""
        self.inner.check_balancer(balancer)

    def updates(self, balancer: Balancer) -> int:
        """As the step inside."""
        return self.inner.updates(balancer)

    def follows_up(self, balancer: Balancer) -> bool:
        """As the step inside."""
        return self.inner.follows_up(balancer)

    def after_update(self, parts: Sequence[tuple[StepProblem, Batch]]) -> None:
        """As the step inside; this pass is not recorded."""
        self.inner.after_update(parts)

    def __call__(self, problem: StepProblem, batch: Batch) -> dict[str, Tensor]:
        """See `Step`.

        Raises:
            ValueError: a task without a confidence (instances), or a problem that offers no logits.
        """
        seen: Seen = []

        def forward(part: Batch) -> LossReport:
            report = problem.forward(part)
            seen.extend(_confidences(problem, report, part))
            return report

        logs = self.inner(replace(problem, forward=forward), batch)
        for entries in problem.gather(seen):
            for entry in entries:
                self.data_map.add(*entry)
        return logs

    def get_extra_state(self) -> dict[str, Any]:
        """The map, for the checkpoint."""
        return self.data_map.state()

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Go on with a checkpoint's map."""
        self.data_map = DataMap.from_state(state)


@torch.no_grad()
def _confidences(problem: StepProblem, report: LossReport, batch: Batch) -> Seen:
    if report.losses and not report.logits:
        raise ValueError(
            "DataMapStep: this problem's LossReport holds no logits to take confidences from; fill "
            "LossReport.logits and StepProblem.tasks."
        )
    found: Seen = []
    for task in problem.tasks:
        if task.name in report.logits and task.name in batch.labels:
            values = true_confidence(task, report.logits[task.name], batch.labels[task.name])
            found += [
                (task.name, name, value) for name, value in zip(batch.ids, values.tolist(), strict=True)
            ]
    return found
