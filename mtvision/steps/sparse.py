"""Training of a fixed subset of the shared parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from mtvision.balance.balancer import Balancer
from mtvision.core.registry import STEPS
from mtvision.core.sample import Batch
from mtvision.core.values import Count, Entry, Share
from mtvision.steps.gradients.layout import Layouts, losses_of, trainable
from mtvision.steps.gradients.statistics import kept_buffers
from mtvision.steps.gradients.sums import averaged_gradients
from mtvision.steps.problem import StepProblem
from mtvision.steps.step import Step


@STEPS.register_module()
class SparseStep(nn.Module, Step):
    """Sparse training (Zhang et al., arXiv 2411.18615): only part of the shared weights is ever updated.

    Of every shared matrix or kernel each output row keeps its `share` of largest entries, chosen before the
    first update and then fixed. The others stay as they were, to the last bit. Their gradients are 0. They
    are put back after the optimizer's update, because weight decay would move them. Biases, norms and
    parameters of a single task are trained in full.

    The gradients are those of the step inside, so this goes with any balancer. The paper's text was not
    available in full: the choice by row follows its description, the rest is ours.

    Args:
        step: config of the step inside; None = `PlainStep`.
        share: of the entries of a row that are trained; at least one is.
        select: entries by size of the `weight`, or at `random`.
        seed: of random entries.

    Raises:
        ValueError: `share` is 0.
    """

    def __init__(
        self,
        step: Annotated[Mapping[str, Any], Entry("STEPS")] | None = None,
        share: Share = 0.3,
        select: Literal["weight", "random"] = "weight",
        seed: Count = 0,
    ) -> None:
        super().__init__()
        if share == 0:
            raise ValueError("SparseStep: share must be above 0; with 0 no shared weight would be trained.")
        self.inner: Step = STEPS.build(dict(step or {"type": "PlainStep"}))
        self.held_out = self.inner.held_out
        self.divides_batches = self.inner.divides_batches
        self.serves = self.inner.serves
        self.share, self.select, self.seed = share, select, seed
        self.masks: dict[str, Tensor] = {}
        self._fixed: dict[str, Tensor] = {}
        self._layouts = Layouts()

    def check_balancer(self, balancer: Balancer) -> None:
        """As the step inside."""
        self.inner.check_balancer(balancer)

    def averages_gradients(self, balancer: Balancer) -> bool:
        """Always: the dry run is a forward pass without the backward pass that data-parallel hooks expect."""
        return True

    def __call__(self, problem: StepProblem, batch: Batch) -> dict[str, Tensor]:
        """See `Step`."""
        if not self.masks:
            self._choose(problem, batch)
        named = dict(problem.parameters)
        if not self._fixed:
            self._fixed = {name: named[name].detach().clone() for name in self.masks}
        if self.inner.averages_gradients(problem.balancer):
            logs = self.inner(problem, batch)
        else:
            with averaged_gradients(problem, [item for _, item in trainable(problem)]):
                logs = self.inner(problem, batch)
        for name, mask in self.masks.items():
            gradient = named[name].grad
            if gradient is not None:
                gradient.mul_(mask.to(gradient.device))
        return logs

    def updates(self, balancer: Balancer) -> int:
        """As the step inside."""
        return self.inner.updates(balancer)

    def follows_up(self, balancer: Balancer) -> bool:
        """Always: weights that are not trained are put back."""
        return True

    @torch.no_grad()
    def after_update(self, parts: Sequence[tuple[StepProblem, Batch]]) -> None:
        """Put back what is not trained, then as the step inside."""
        problem, _ = parts[0]
        for name, item in problem.parameters:
            if name in self.masks:
                mask = self.masks[name].to(item.device)
                item.copy_(torch.where(mask, item, self._fixed[name]))
        if self.inner.follows_up(problem.balancer):
            self.inner.after_update(parts)

    def _choose(self, problem: StepProblem, batch: Batch) -> None:
        """Find the shared parameters by a dry run, and the entries that are trained."""
        with kept_buffers(problem), torch.random.fork_rng():
            report = problem.forward(batch)
        named = trainable(problem)
        layout = self._layouts(problem, batch, named, losses_of(problem, report))
        generator = torch.Generator().manual_seed(self.seed)
        for index in layout.shared:
            name, item = named[index]
            if item.ndim < 2:
                continue
            scores = item.detach().abs().flatten(1).cpu()
            if self.select == "random":
                scores = torch.rand(scores.shape, generator=generator)
            count = max(1, round(self.share * scores.shape[1]))
            chosen = torch.zeros_like(scores, dtype=torch.bool)
            chosen.scatter_(1, scores.topk(count, dim=1).indices, value=True)
            self.masks[name] = chosen.view(item.shape)

    def get_extra_state(self) -> dict[str, Tensor]:
        """{parameter: entries that are trained}, for the checkpoint."""
        return dict(self.masks)

    def set_extra_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on with a checkpoint's choice."""
        self.masks = dict(state)
        self._fixed = {}
