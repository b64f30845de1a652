"""Architecture search: held-out images train the logits of the architecture, the others the weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from mtvision.balance.balancer import Balancer
from mtvision.core.context import Context, current_context, use_context
from mtvision.core.random import HELD_OUT_SHARE, is_held_out
from mtvision.core.registry import STEPS
from mtvision.core.roles import is_architecture
from mtvision.core.sample import Batch
from mtvision.core.values import Rate, Share
from mtvision.steps.gradients.jacobian import JacobianGradients
from mtvision.steps.gradients.sums import averaged_gradients, somewhere
from mtvision.steps.problem import LossReport, StepProblem
from mtvision.steps.step import Step, add_to_grad, refuse_empty, summary
from mtvision.steps.unrolled import unrolled_gradients


@STEPS.register_module()
class SearchStep(nn.Module, Step):
    """Two passes per batch: one over images that are not held out, one over those that are.

    The first gives gradients to all parameters but the architecture's, the second to these alone. The
    architecture is thus chosen on images that its weights were not fitted to. BMTAS does the same, but
    alternates epochs instead of parts of a batch. A batch without images of one kind skips that pass.
    `Context.extra["search_pass"]` is (number of the call, 0 or 1), the same on all processes. With
    `held_out=0` both get gradients from one pass over all images (as in Learning to Branch).

    Gradients for the architecture are those of the weighted sum of losses of a `scalar` balancer, and of the
    plain sum under a `jacobian` one.

    With `look_ahead` the architecture descends the held-out loss of the weights after one more step on the
    others, w - α ∇L. This is second-order DARTS (Liu et al., ICLR 2019), and the bi-level training of gates
    in Deep Safe Multi-Task Learning. Losses are plain sums there. It costs three further passes with
    gradients.

    Args:
        held_out: share of the training images, by id; must equal `search.held_out`.
        look_ahead: α, e.g. the learning rate; None = no such step.

    Raises:
        ValueError: `look_ahead` without held-out images.
    """

    calls: Tensor
    held_out: Share
    divides_batches = True

    def __init__(self, held_out: Share = HELD_OUT_SHARE, look_ahead: Rate | None = None) -> None:
        super().__init__()
        is_held_out("", held_out)  # refuses a share out of range
        if look_ahead is not None and not held_out:
            raise ValueError(
                f"SearchStep: look_ahead={look_ahead} with held_out=0; it needs held-out images to judge the "
                "step. Give held_out a share such as 0.2, or leave look_ahead out."
            )
        self.held_out, self.look_ahead = held_out, look_ahead
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self._jacobian = JacobianGradients()

    def averages_gradients(self, balancer: Balancer) -> bool:
        """Always: data-parallel hooks expect one forward and one backward pass."""
        return True

    def check_balancer(self, balancer: Balancer) -> None:
        """See `Step`; a process may skip a pass, so rules over losses of all processes cannot be served."""
        super().check_balancer(balancer)
        if balancer.combines and balancer.common_losses:
            raise ValueError(
                f"SearchStep: {type(balancer).__name__} reads the losses of all processes, of which some may "
                "have no images for a pass. Use FixedWeights, LogSum, Uncertainty or a rule over gradients."
            )

    def __call__(self, problem: StepProblem, batch: Batch) -> dict[str, Tensor]:
        """See `Step`. Losses on held-out images are logged as `held_out/<task>`."""
        self.check_balancer(problem.balancer)
        call = int(self.calls)
        self.calls += 1
        named = [(name, item) for name, item in problem.parameters if item.requires_grad]
        chosen = [item for name, item in named if is_architecture(name)]
        weights = [item for name, item in named if not is_architecture(name)]
        weights += [item for item in problem.balancer.parameters() if item.requires_grad]
        flags = [is_held_out(name, self.held_out) for name in batch.ids]
        rest = [index for index, held in enumerate(flags) if not held]
        held = [index for index, is_held in enumerate(flags) if is_held]
        if not somewhere(problem, bool(batch.labels)):
            raise refuse_empty(batch)
        logs: dict[str, Tensor] = {}
        if self.look_ahead is not None:
            logs |= self._look_ahead(problem, batch.part(held), batch.part(rest), (call, 1))
        with averaged_gradients(problem, [*weights, *chosen]):
            with _frozen(chosen if self.held_out else []):
                logs |= self._pass(problem, batch.part(rest), (call, 0))
            if self.held_out and self.look_ahead is None:
                with _frozen(weights):
                    found = self._pass(problem, batch.part(held), (call, 1), plain=True)
                logs |= {
                    name.replace("loss/", "held_out/"): value
                    for name, value in found.items()
                    if name.startswith(("loss/", "auxiliary/"))
                }
        logs.setdefault("total", torch.zeros((), device=batch.image.device))
        return logs

    def _look_ahead(
        self, problem: StepProblem, held: Batch, rest: Batch, number: tuple[int, int]
    ) -> dict[str, Tensor]:
        """Add gradients of the architecture through a step of the weights; returns losses on `held`."""
        if not somewhere(problem, bool(held.labels)):
            return {}
        with use_context(_numbered(number)):
            found, losses = unrolled_gradients(problem, held, rest, float(self.look_ahead or 0.0))
        factor = problem.scale(torch.ones((), device=held.image.device))
        for index, gradient in found.items():
            add_to_grad(problem.parameters[index][1], factor * gradient)
        return {f"held_out/{name}": loss for name, loss in losses.items()}

    def _pass(
        self, problem: StepProblem, batch: Batch, number: tuple[int, int], *, plain: bool = False
    ) -> dict[str, Tensor]:
        jacobian = not problem.balancer.combines and not plain
        labelled = bool(batch.labels)
        # A Jacobian is averaged over processes: all of them compute it as soon as one has a label.
        if not (somewhere(problem, labelled) if jacobian else labelled):
            return {}
        report = LossReport({})
        if labelled:
            with use_context(_numbered(number)):
                report = problem.forward(batch)
        if jacobian:
            total, weights = self._jacobian(problem, batch, report)
            return summary(report, weights, total)
        if not report.losses:
            return {}
        total = _combined(problem, report)
        if total.requires_grad:
            problem.backward(total)
        return summary(report, {} if plain else problem.balancer.weights(), total)


def _numbered(number: tuple[int, int]) -> Context:
    """The context of a pass."""
    context = current_context()
    return replace(context, extra={**context.extra, "search_pass": number})


def _combined(problem: StepProblem, report: LossReport) -> Tensor:
    if not problem.balancer.combines:
        total = torch.stack(list(report.losses.values())).sum()
    else:
        total = problem.balancer.combine(report.losses)
    for loss in report.auxiliary.values():
        total = total + loss
    return total


@contextmanager
def _frozen(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Without gradients for `parameters` inside the block."""
    for item in parameters:
        item.requires_grad_(False)
    try:
        yield
    finally:
        for item in parameters:
            item.requires_grad_(True)
