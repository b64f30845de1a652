"""Distillation of several frozen encoders into one student, beside or before the tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from mtvision.balance.balancer import Balancer
from mtvision.core.context import current_context, use_context
from mtvision.core.observer import OBSERVER, REPRESENTATIONS, Representations, Shown, observe
from mtvision.core.pyramid import Pyramid, size_of
from mtvision.core.registry import STEPS
from mtvision.core.sample import Batch
from mtvision.core.values import Count, Entry, Factor, Positive, Share
from mtvision.steps.gradients.layout import trainable
from mtvision.steps.gradients.sums import averaged_gradients
from mtvision.steps.problem import LossReport, StepProblem
from mtvision.steps.step import Step, summary
from mtvision.steps.teachers.distances import CosineOf, correlation_at_distance, representation_distance
from mtvision.steps.teachers.frozen import FrozenTeachers, whole_cells

EARLY = 2
"""Levels whose distant pixels may be kept apart."""


@STEPS.register_module()
class DistillStep(nn.Module, Step):
    """Pulls what a student shows for each teacher to that teacher's maps, with any step and balancer.

    The student is a network with the adapter `SAK` or `PRISM`, or one whose backbone shows maps by
    `mtvision.core.observer.Representations`. Teachers are any encoders. The distance is an auxiliary loss,
    which no balancer sees. With `only` it is the whole loss and no head is computed. This is the first phase
    of SAK (Lu et al., ICLR 2025) and PRISM (Tang et al., ICML 2026). The second phase has both.

    Teachers get the student's images. They stay out of checkpoints. Without weights of their own they are
    drawn from `seed`.

    Args:
        teachers: {name: entry of a backbone}. A ViT's final norm is best left out (`final_norm=False`).
        step: the step inside; None = `PlainStep`.
        only: distillation alone, without losses of tasks.
        weight: of the sum of distances over teachers and levels.
        l1: share of the smooth L1 distance; the rest is one minus the cosine similarity.
        cosine: of a whole `map`, as released, or of each `pixel`.
        decorrelation: weight of the correlation of distant pixels at the first two levels, of the first
            teacher that a batch has; PRISM has 0.5.
        sides: {teacher: longer side of its images in pixels}; SAM was trained with 1024.
        seed: of teachers without weights.

    Raises:
        ValueError: no teachers, or maps that do not compare; the message names the teacher.
    """

    def __init__(
        self,
        *,
        teachers: Mapping[str, Annotated[Mapping[str, Any], Entry("BACKBONES")]],
        step: Annotated[Mapping[str, Any], Entry("STEPS")] | None = None,
        only: bool = False,
        weight: Factor = 1.0,
        l1: Share = 0.1,
        cosine: CosineOf = "map",
        decorrelation: Factor = 0.0,
        sides: Mapping[str, Positive] | None = None,
        seed: Count = 0,
    ) -> None:
        super().__init__()
        if not teachers:
            raise ValueError("DistillStep: teachers is empty. Give {name: dict(type='TimmBackbone', ...)}.")
        self.teachers = FrozenTeachers(teachers, sides or {}, seed)
        self.inner: Step = STEPS.build(dict(step or {"type": "PlainStep"}))
        self.held_out, self.serves = self.inner.held_out, self.inner.serves
        self.divides_batches = self.inner.divides_batches
        self.only, self.weight, self.decorrelation = only, weight, decorrelation
        self._distance = partial(representation_distance, l1=l1, cosine=cosine)

    def check_balancer(self, balancer: Balancer) -> None:
        """As the step inside."""
        self.inner.check_balancer(balancer)

    def averages_gradients(self, balancer: Balancer) -> bool:
        """Always: distances are no output of the forward pass, which data-parallel hooks look at."""
        return True

    def updates(self, balancer: Balancer) -> int:
        """As the step inside."""
        return 1 if self.only else self.inner.updates(balancer)

    def follows_up(self, balancer: Balancer) -> bool:
        """As the step inside."""
        return not self.only and self.inner.follows_up(balancer)

    def after_update(self, parts: Sequence[tuple[StepProblem, Batch]]) -> None:
        """As the step inside."""
        self.inner.after_update(parts)

    def __call__(self, problem: StepProblem, batch: Batch) -> dict[str, Tensor]:
        """See `Step`."""
        forward = partial(self._forward, problem.forward)
        if not self.only and self.inner.averages_gradients(problem.balancer):
            return self.inner(replace(problem, forward=forward), batch)
        with averaged_gradients(problem, [item for _, item in trainable(problem)]):
            if not self.only:
                return self.inner(replace(problem, forward=forward), batch)
            report = forward(replace(batch, labels={}, present={}))
            total = torch.stack(list(report.auxiliary.values())).sum()
            problem.backward(total)
            return summary(report, {}, total)

    def _forward(self, forward: Any, batch: Batch) -> LossReport:
        """Losses of a pass, and the distances of what was shown in it."""
        lesson = _Lesson(self, batch.image)
        context = lesson.earlier
        extra = {**context.extra, REPRESENTATIONS: lesson.shown, OBSERVER: lesson}
        with use_context(replace(context, extra=extra)):
            report: LossReport = forward(batch)
        if not lesson.losses:
            raise ValueError(
                "DistillStep: the network shows nothing that could be compared with "
                f"{', '.join(self.teachers.encoders)}. Add model.adapters=[dict(type='SAK', teachers=...)]."
            )
        return replace(report, auxiliary={**report.auxiliary, **lesson.losses})


class _Lesson:
    """Observer of one pass that compares what a student shows with its teachers.

    Args:
        step: has the teachers.
        image: of the batch.
    """

    def __init__(self, step: DistillStep, image: Tensor) -> None:
        self.step, self.image = step, image
        self.shown = Representations(list(step.teachers.encoders))
        self.losses: dict[str, Tensor] = {}
        self.earlier = current_context()

    def __call__(self, network: Any, pyramid: Pyramid, logits: Mapping[str, Tensor]) -> None:
        """See `mtvision.core.observer`; it runs inside the forward pass, with its precision."""
        observe(self.earlier, network, pyramid, logits)
        found = {name: self._cropped(shown, pyramid.strides) for name, shown in self.shown.of_teacher.items()}
        for name, shown in found.items():
            self.losses[f"distillation/{name}"] = self.step.weight * self._distance(name, shown)
        if self.step.decorrelation and found:
            first = next(iter(found.values()))
            with torch.autocast(self.image.device.type, enabled=False):
                terms = [correlation_at_distance(item) for item in first.maps[:EARLY]]
            self.losses["decorrelation"] = self.step.decorrelation * torch.stack(terms).sum()

    def _cropped(self, shown: Shown, strides: Sequence[int]) -> Shown:
        size = size_of(self.image)
        maps = [whole_cells(item, stride, size) for item, stride in zip(shown.maps, strides, strict=True)]
        return Shown(tuple(maps), shown.samples)

    def _distance(self, name: str, shown: Shown) -> Tensor:
        """Sum over levels of the distances to one teacher."""
        image = self.image if shown.samples is None else self.image[shown.samples]
        goals = self.step.teachers(name, image)
        mine, theirs = ([int(item.shape[1]) for item in maps] for maps in (shown.maps, goals))
        if mine != theirs:
            raise ValueError(
                f"DistillStep: teacher '{name}' has levels of {theirs} channels, the student shows {mine}. "
                "Give both as many levels (`levels=`), and the student the teacher's channels (`teachers=`)."
            )
        with torch.autocast(self.image.device.type, enabled=False):
            pairs = zip(shown.maps, goals, strict=True)
            return torch.stack([self.step._distance(item, goal) for item, goal in pairs]).sum()
