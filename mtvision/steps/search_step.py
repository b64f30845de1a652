"""Architecture search: held-out images train the logits of the architecture, the others the weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from mtvision.balance.balancer import Balancer
from mtvision.core.context import current_context, use_context
from mtvision.core.held_out import HELD_OUT_SHARE, is_held_out
from mtvision.core.registry import STEPS
from mtvision.core.roles import is_architecture
from mtvision.core.sample import Batch
from mtvision.core.values import Share
from mtvision.steps.jacobian import JacobianGradients
from mtvision.steps.problem import LossReport, StepProblem
from mtvision.steps.step import Step, add_to_grad, refuse_empty, summary


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

    Args:
        held_out: share of the training images, by id; must equal `search.held_out`.
    """

    calls: Tensor
    held_out: Share
    divides_batches = True

    def __init__(self, held_out: Share = HELD_OUT_SHARE) -> None:
        super().__init__()
        is_held_out("", held_out)  # refuses a share out of range
        self.held_out = held_out
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self._jacobian = JacobianGradients()

    def averages_gradients(self, balancer: Balancer) -> bool:
        """Always: data-parallel hooks expect one forward and one backward pass."""
        return True

    def __call__(self, problem: StepProblem, batch: Batch) -> dict[str, Tensor]:
        """See `Step`. Losses on held-out images are logged as `held_out/<task>`."""
        call = int(self.calls)
        self.calls += 1
        named = [(name, item) for name, item in problem.parameters if item.requires_grad]
        chosen = [item for name, item in named if is_architecture(name)]
        weights = [item for name, item in named if not is_architecture(name)]
        weights += [item for item in problem.balancer.parameters() if item.requires_grad]
        flags = [is_held_out(name, self.held_out) for name in batch.ids]
        rest = [index for index, held in enumerate(flags) if not held]
        held = [index for index, is_held in enumerate(flags) if is_held]
        if not _somewhere(problem, batch, bool(batch.labels)):
            raise refuse_empty(batch)
        logs: dict[str, Tensor] = {}
        with _averaging(problem, [*weights, *chosen]):
            with _frozen(chosen if self.held_out else []):
                logs |= self._pass(problem, batch.part(rest), (call, 0))
            if self.held_out:
                with _frozen(weights):
                    found = self._pass(problem, batch.part(held), (call, 1), plain=True)
                logs |= {
                    name.replace("loss/", "held_out/"): value
                    for name, value in found.items()
                    if name.startswith(("loss/", "auxiliary/"))
                }
        logs.setdefault("total", torch.zeros((), device=batch.image.device))
        return logs

    def _pass(
        self, problem: StepProblem, batch: Batch, number: tuple[int, int], *, plain: bool = False
    ) -> dict[str, Tensor]:
        jacobian = problem.balancer.needs == "jacobian" and not plain
        labelled = bool(batch.labels)
        # A Jacobian is averaged over processes: all of them compute it as soon as one has a label.
        if not (_somewhere(problem, batch, labelled) if jacobian else labelled):
            return {}
        report = LossReport({})
        if labelled:
            context = current_context()
            extra = {**context.extra, "search_pass": number}
            with use_context(replace(context, extra=extra)):
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


def _somewhere(problem: StepProblem, batch: Batch, here: bool) -> bool:
    """Whether something holds on any process; all of them call this."""
    (share,) = problem.average([torch.tensor(float(here), device=batch.image.device)])
    return bool(share > 0)


def _combined(problem: StepProblem, report: LossReport) -> Tensor:
    if problem.balancer.needs == "jacobian":
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


@contextmanager
def _averaging(problem: StepProblem, owners: Sequence[nn.Parameter]) -> Iterator[None]:
    """Average what is added to `.grad` inside the block over processes, and then add earlier gradients.

    A parameter that no process used keeps no gradient. (A `jacobian` balancer has averaged already: the mean
    over processes of equal tensors changes nothing.)
    """
    earlier = [item.grad for item in owners]
    for item in owners:
        item.grad = None
    yield
    flags = torch.tensor([float(item.grad is not None) for item in owners], device=owners[0].device)
    used = (problem.average([flags])[0] > 0).tolist()
    fresh = [
        torch.zeros_like(item) if item.grad is None else item.grad
        for item, hit in zip(owners, used, strict=True)
        if hit
    ]
    averaged = iter(problem.average(fresh))
    for item, hit, before in zip(owners, used, earlier, strict=True):
        item.grad = before
        if hit:
            add_to_grad(item, next(averaged))
