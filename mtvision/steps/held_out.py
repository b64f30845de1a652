"""Training with rules that watch losses on held-out training images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mtvision.balance.balancer import Balancer
from mtvision.core.random import is_held_out
from mtvision.core.registry import STEPS
from mtvision.core.sample import Batch
from mtvision.core.values import Positive, Share
from mtvision.steps.gradients.scalar import combined
from mtvision.steps.gradients.statistics import kept_buffers
from mtvision.steps.gradients.sums import averaged_gradients, somewhere
from mtvision.steps.problem import LossReport, StepProblem
from mtvision.steps.step import Step, refuse_empty, summary


@STEPS.register_module()
class HeldOutStep(nn.Module, Step):
    """Trains on images that are not held out and shows the losses of the others to the balancer (CoBa).

    Images are chosen by id (`mtvision.core.random`), so the weights are never fitted to held-out ones.
    Their losses come from a forward pass without gradients, in which running statistics of norms stay as they
    are. The mean over all held-out images of `interval` steps is one observation.

    A batch without images to train on gives no gradient for that process. All processes average their
    gradients here.

    Args:
        held_out: share of the training images.
        interval: steps between observations.
    """

    held_out: Share
    serves = frozenset({"held_out"})
    divides_batches = True
    calls: Tensor

    def __init__(self, held_out: Share = 0.1, interval: Positive = 1) -> None:
        super().__init__()
        is_held_out("", held_out)  # refuses a share out of range
        self.held_out, self.interval = held_out, interval
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self._sums: dict[str, float] = {}
        self._counts: dict[str, float] = {}

    def averages_gradients(self, balancer: Balancer) -> bool:
        """Always: data-parallel hooks expect one forward and one backward pass."""
        return True

    def __call__(self, problem: StepProblem, batch: Batch) -> dict[str, Tensor]:
        """See `Step`. Losses on held-out images are logged as `held_out/<task>`."""
        self.check_balancer(problem.balancer)
        self.calls += 1
        held, rest = self.parted(batch)
        if not somewhere(problem, bool(batch.labels)):
            raise refuse_empty(batch)
        logs = self.train_on(problem, rest)
        logs |= self._watch(problem, held)
        logs.setdefault("total", torch.zeros((), device=batch.image.device))
        return logs

    def parted(self, batch: Batch) -> tuple[Batch, Batch]:
        """The images of a batch that are held out, and the others."""
        flags = [is_held_out(name, self.held_out) for name in batch.ids]
        held = batch.part([index for index, flag in enumerate(flags) if flag])
        return held, batch.part([index for index, flag in enumerate(flags) if not flag])

    def train_on(self, problem: StepProblem, rest: Batch) -> dict[str, Tensor]:
        """Add gradients of images that are not held out, averaged over processes; returns logs."""
        if not somewhere(problem, bool(rest.labels)):
            return {}
        owners = [item for _, item in problem.parameters if item.requires_grad]
        owners += [item for item in problem.balancer.parameters() if item.requires_grad]
        with averaged_gradients(problem, owners):
            report = problem.forward(rest) if rest.labels else LossReport({})
            total = combined(problem, report.losses)
            for loss in report.auxiliary.values():
                total = total + loss
            if total.requires_grad:
                problem.backward(total)
        return summary(report, problem.balancer.weights(), total)

    @torch.no_grad()
    def _watch(self, problem: StepProblem, held: Batch) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        if held.labels:
            with kept_buffers(problem):
                found = problem.forward(held).losses
        for losses, counts in problem.gather(_sums_of(found, held)):
            for name, value in losses.items():
                self._sums[name] = self._sums.get(name, 0.0) + value
                self._counts[name] = self._counts.get(name, 0.0) + counts[name]
        if int(self.calls) % self.interval == 0 and self._counts:
            device = held.image.device
            means = {
                name: torch.tensor(self._sums[name] / self._counts[name], device=device)
                for name in problem.balancer.tasks
                if name in self._counts
            }
            problem.balancer.observe(means)
            self._sums, self._counts = {}, {}
        return {f"held_out/{name}": loss.detach() for name, loss in found.items()}

    def get_extra_state(self) -> dict[str, dict[str, float]]:
        """What was seen since the last observation, for the checkpoint."""
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def set_extra_state(self, state: dict[str, dict[str, float]]) -> None:
        """Counterpart of `get_extra_state`."""
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])


def _sums_of(losses: dict[str, Tensor], batch: Batch) -> tuple[dict[str, float], dict[str, float]]:
    """Losses times the number of images, and that number, by task."""
    count = float(len(batch))
    return {name: float(item) * count for name, item in losses.items()}, dict.fromkeys(losses, count)
