"""Training of slimmable networks: several widths per batch, the smaller ones taught by the largest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from mtvision.architecture.widths import WidthConfig
from mtvision.balance.balancer import Balancer
from mtvision.core.context import current_context, use_context
from mtvision.core.naming import look_up
from mtvision.core.observer import OBSERVER
from mtvision.core.random import generator
from mtvision.core.registry import STEPS
from mtvision.core.sample import Batch
from mtvision.core.values import Count, Factor, Positive, Share
from mtvision.steps.distillation import FEATURE_DISTANCES, Seen, feature_distance, output_distances
from mtvision.steps.gradients.jacobian import JacobianGradients
from mtvision.steps.gradients.scalar import combined
from mtvision.steps.gradients.sums import average_over_processes, set_aside
from mtvision.steps.problem import LossReport, StepProblem
from mtvision.steps.step import Step, refuse_empty, summary


@STEPS.register_module()
class SandwichStep(nn.Module, Step):
    """Gradients of the largest, the smallest and some random configurations of a slimmable network, added up.

    The sandwich rule of universally slimmable networks (Yu and Huang, ICCV 2019). Encoder and decoders are
    drawn independently. The features of every smaller configuration are pulled towards those of the largest
    one. It suffers least from conflicts between tasks (Aich et al., ICCV 2023, part A).

    Draws depend on `seed` and the number of calls so far, which is in the checkpoint: resumed runs draw the
    same. All processes draw alike.

    Args:
        encoder: widths of the encoder to draw from; the smallest is part of every step.
        decoders: widths of decoders likewise.
        stages: draw one width per stage of the encoder, for a search over stages; 0 = one for all.
        passes: configurations per batch, at least 2; 4 as in universally slimmable networks.
        distillation: distance of features, see `mtvision.steps.distillation`; None = labels only.
            `projector` needs `Slimmable(projectors=True)`.
        beta: weight of the distance.
        warmup: calls over which the weight rises linearly from 0; about a tenth of training.
        output_distillation: smaller configurations learn the outputs of the largest instead of the labels.
        seed: of the draws.

    Raises:
        ValueError: an option out of range.
        UnknownNameError: unknown distance.
    """

    calls: Tensor

    def __init__(
        self,
        *,
        encoder: Sequence[Share] = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
        decoders: Sequence[Share] = (0.25, 0.4, 0.55, 0.7, 0.85, 1.0),
        stages: Count = 0,
        passes: Positive = 4,
        distillation: Literal["nested", "attention", "projector"] | None = "nested",
        beta: Factor = 1.0,
        warmup: Count = 0,
        output_distillation: bool = False,
        seed: Count = 0,
    ) -> None:
        super().__init__()
        if passes < 2 or not encoder or not decoders:
            raise ValueError("SandwichStep: passes must be at least 2, encoder and decoders not empty.")
        if distillation is not None:
            look_up("distillation", distillation, FEATURE_DISTANCES)
        self.encoder, self.decoders, self.stages = tuple(encoder), tuple(decoders), stages
        self.passes, self.seed = passes, seed
        self.distillation, self.beta, self.warmup = distillation, beta, warmup
        self.output_distillation = output_distillation
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self._jacobian = JacobianGradients()

    def averages_gradients(self, balancer: Balancer) -> bool:
        """Always: data-parallel hooks expect one forward and one backward pass, here are several."""
        return True

    def configurations(self, tasks: Sequence[str], call: int) -> list[WidthConfig]:
        """What is run in a call: the largest, the smallest, and the random ones."""
        rng = generator(self.seed, 0, call)
        smallest = WidthConfig(min(self.encoder), dict.fromkeys(tasks, min(self.decoders)))
        drawn = []
        for _ in range(self.passes - 2):
            ratios = tuple(float(item) for item in rng.choice(self.encoder, max(self.stages, 1)))
            decoders = {name: float(rng.choice(self.decoders)) for name in tasks}
            drawn.append(WidthConfig(ratios if self.stages else ratios[0], decoders))
        return [WidthConfig(1.0, dict.fromkeys(tasks, 1.0)), smallest, *drawn]

    def __call__(self, problem: StepProblem, batch: Batch) -> dict[str, Tensor]:
        """See `Step`. Logged: losses of the largest configuration and, as `smallest/…`, of the smallest."""
        call = int(self.calls)
        self.calls += 1
        weight = self.beta * min(1.0, call / self.warmup if self.warmup else 1.0)
        self.check_balancer(problem.balancer)
        by_hand = not problem.balancer.combines
        owners = [item for _, item in problem.parameters] + list(problem.balancer.parameters())
        earlier = [] if by_hand else set_aside(owners)
        logs: dict[str, Tensor] = {}
        teacher = Seen()
        for index, widths in enumerate(self.configurations(problem.balancer.tasks, call)):
            seen = Seen(project=index > 0 and self.distillation == "projector")
            context = current_context()
            extra = {**context.extra, OBSERVER: seen}
            with use_context(replace(context, widths=widths.to_plain(), extra=extra)):
                report = problem.forward(batch)
                if not report.losses and not by_hand:
                    raise refuse_empty(batch)
                if index:
                    report = self._taught(report, seen, teacher, batch, weight)
                total, weights = self._gradients(problem, batch, report)
            if index == 0:
                teacher, logs = seen, summary(report, weights, total)
            elif index == 1:
                logs |= {f"smallest/{name}": item.detach() for name, item in report.losses.items()}
                logs |= {f"smallest/{name}": item.detach() for name, item in report.auxiliary.items()}
        if not by_hand:
            average_over_processes(problem, owners, earlier)
        return logs

    def _gradients(
        self, problem: StepProblem, batch: Batch, report: LossReport
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if not problem.balancer.combines:
            return self._jacobian(problem, batch, report)
        total = combined(problem, report.losses)
        for loss in report.auxiliary.values():
            total = total + loss
        problem.backward(total)
        return total, problem.balancer.weights()

    def _taught(
        self, report: LossReport, seen: Seen, teacher: Seen, batch: Batch, weight: float
    ) -> LossReport:
        """The losses of a smaller configuration, with what the largest teaches it."""
        losses, auxiliary = dict(report.losses), dict(report.auxiliary)
        if self.output_distillation:
            classes = {name: not label.is_floating_point() for name, label in batch.labels.items()}
            kept = {name: item for name, item in seen.logits.items() if name in classes}
            seen.logits = kept
            losses = output_distances(seen, teacher, classes)
        if self.distillation is not None:
            auxiliary["distillation"] = weight * feature_distance(self.distillation, seen, teacher)
        return LossReport(losses, auxiliary)
