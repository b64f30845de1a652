"""One forward pass, one update direction: the step of ordinary training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mtvision.balance.balancer import Balancer
from mtvision.core.registry import STEPS
from mtvision.core.sample import Batch
from mtvision.core.values import Positive, Rate
from mtvision.steps.gradients.features import FeatureGradients
from mtvision.steps.gradients.jacobian import JacobianGradients
from mtvision.steps.gradients.matrix import DEVICE, Storage
from mtvision.steps.gradients.scalar import means_over_processes, scalar_gradients
from mtvision.steps.gradients.statistics import kept_buffers
from mtvision.steps.gradients.weighted import Reuse
from mtvision.steps.problem import StepProblem
from mtvision.steps.step import Step, summary

_STORED = {"auto": None, "stages": False, "matrix": True}


@STEPS.register_module()
class PlainStep(nn.Module, Step):
    """Forward, losses, balancer, gradients.

    `scalar` balancers: one backward pass of `combine(losses) + Σ auxiliary`; data-parallel hooks average the
    network's gradients, the step those of the balancer's own parameters.

    `jacobian` and `gramian` balancers: see `mtvision.steps.gradients.jacobian`. `total` in the logs is then
    the plain sum of losses. `features`: see `mtvision.steps.gradients.features`.

    `extra_forward` balancers: as `scalar`, and one more forward pass over the batch after the optimizer's
    update, without gradients. Running statistics of norms stay as the first pass left them.

    Args:
        clip_tasks: clip the shared gradient of each task to this L2 norm *before* a `jacobian` or `gramian`
            balancer aggregates them. `training.clip_grad` clips after that. None = no clipping.
        every: a `jacobian` or `gramian` balancer is asked once in so many batches. Batches in between use its
            last weights, for the price of one backward pass. A batch with other tasks asks it, too.
        products: how a `gramian` balancer gets G. `stages`: without a matrix of gradients, for one more
            backward pass (`mtvision.steps.gradients.products`). `matrix`: from the matrix. `auto`: from the
            matrix if it has at most 2^24 numbers (64 MiB), which is faster for small networks.
        chunk: backward passes that run together where a matrix is made, by `torch.vmap`. It can be faster on
            a GPU and takes as many times the memory of a pass. Modules without a rule for `vmap`, such as
            selective scans and compiled networks, need 1.
        offload: keep the matrix in the memory of the CPU, where the rule then reads it.
    """

    serves = frozenset({"scalar", "jacobian", "gramian", "features", "extra_forward"})

    def __init__(
        self,
        clip_tasks: Rate | None = None,
        every: Positive = 1,
        products: Literal["auto", "stages", "matrix"] = "auto",
        chunk: Positive = 1,
        offload: bool = False,
    ) -> None:
        super().__init__()
        if every > 1 and clip_tasks is not None:
            raise ValueError(
                "PlainStep: every and clip_tasks exclude one another; weights of clipped gradients cannot be "
                "reused. Use training.clip_grad."
            )
        self.clip_tasks, self.every, self.products = clip_tasks, every, products
        self.reuse = Reuse(every) if every > 1 else None
        self.storage = Storage(chunk, offload)
        self._jacobian = JacobianGradients(
            clip_tasks, matrix=_STORED[products], reuse=self.reuse, storage=self.storage
        )
        self._features = FeatureGradients()

    def check_balancer(self, balancer: Balancer) -> None:
        """See `Step`; `clip_tasks` and `every` need gradients of tasks."""
        super().check_balancer(balancer)
        stored = balancer.needs == "jacobian" or (balancer.needs == "gramian" and self.products == "matrix")
        if self.storage != DEVICE and not stored:
            raise ValueError(
                f"PlainStep: chunk and offload are about a matrix of gradients, but none is stored for "
                f"{type(balancer).__name__}, which needs '{balancer.needs}'. Leave them out, or set "
                'products="matrix" with a rule over gradients.'
            )
        if balancer.needs in ("jacobian", "gramian"):
            return
        if self.every > 1:
            raise ValueError(
                f"PlainStep: every reuses weights of gradients, but {type(balancer).__name__} needs "
                f"'{balancer.needs}'. Leave it at 1, or use a rule over gradients."
            )
        if self.clip_tasks is not None:
            raise ValueError(
                f"PlainStep: clip_tasks clips gradients of single tasks, but {type(balancer).__name__} needs "
                f"'{balancer.needs}'. Use training.clip_grad, or a rule over gradients."
            )

    def __call__(self, problem: StepProblem, batch: Batch) -> dict[str, Tensor]:
        """See `Step`."""
        self.check_balancer(problem.balancer)
        if problem.balancer.needs == "features":
            return self._features(problem, batch)
        report = problem.forward(batch)
        if problem.balancer.combines:
            total = scalar_gradients(problem, batch, report)
            return summary(report, problem.balancer.weights(), total)
        total, weights = self._jacobian(problem, batch, report)
        return {**summary(report, weights, total), **self._jacobian.seen}

    def follows_up(self, balancer: Balancer) -> bool:
        """For balancers that need a further forward pass."""
        return balancer.needs == "extra_forward"

    @torch.no_grad()
    def after_update(self, parts: Sequence[tuple[StepProblem, Batch]]) -> None:
        """Show the balancer the losses of the batch with the new weights, means over its parts."""
        sums: dict[str, list[Tensor]] = {}
        for problem, batch in parts:
            with kept_buffers(problem):
                report = problem.forward(batch)
            for name, loss in means_over_processes(problem, report.losses).items():
                sums.setdefault(name, []).append(loss)
        means = {name: torch.stack(items).mean() for name, items in sums.items()}
        parts[0][0].balancer.observe(means, len(parts))
