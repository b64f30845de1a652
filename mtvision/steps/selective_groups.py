"""Training of groups of tasks one after the other, with groups that follow what training shows."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mtvision.balance.balancer import Balancer, all_finite, copied
from mtvision.core.registry import STEPS
from mtvision.core.sample import Batch
from mtvision.core.values import Count, Share
from mtvision.steps.clusters import affinity_propagation
from mtvision.steps.gradients.jacobian import JacobianGradients
from mtvision.steps.gradients.scalar import combined, means_over_processes
from mtvision.steps.gradients.sums import averaged_gradients, somewhere
from mtvision.steps.problem import LossReport, StepProblem
from mtvision.steps.step import Step, refuse_empty, summary


@STEPS.register_module()
class SelectiveGroupsStep(nn.Module, Step):
    """Selective task-group updates (Jeong and Yoon, ICLR 2025, arXiv 2502.11986).

    Every batch is trained on group by group, in random order, with an optimizer update after each group. The
    learning rate changes once per batch. So parameters of a task are updated in turn with those of others.

    Groups follow the affinity of tasks. When a group G has been trained, its tasks i have moved task k by

        a = ( 1 − L_k after / L_k before ) / |G|

    A_ik ← (1 − decay) A_ik + decay a. Within a group, i and k with opposite signs count as −max(a_i, a_k).
    A_kk takes values >= 0 alone. After `warmup` batches, the columns of A are divided by A_kk, the matrix is
    made symmetric, and affinity propagation finds the groups.

    The balancer combines the losses of a group. Losses of all tasks are computed each time, so the cost is
    that of one ordinary step per group. A single group is trained twice, as in the authors' code.

    Args:
        decay: of the running affinity.
        warmup: batches with the first groups.
        start: the first groups: every task `alone`, as in the authors' configs, or all `together`.
        preference: of affinity propagation; larger gives more groups, None is the median.
        attribution: the group that gets the credit for a change of losses between two passes. The definition
            says the one `trained` between them, the authors' code the one that is trained `next`. The change
            after the last group of a batch is not measured.
        seed: of the order.
    """

    serves = frozenset({"scalar", "jacobian", "gramian"})

    def __init__(
        self,
        decay: Share = 0.001,
        warmup: Count = 100,
        start: Literal["alone", "together"] = "alone",
        preference: float | None = None,
        attribution: Literal["trained", "next"] = "trained",
        seed: Count = 0,
    ) -> None:
        super().__init__()
        self.decay, self.warmup, self.start = decay, warmup, start
        self.preference, self.attribution, self.seed = preference, attribution, seed
        self.memory: dict[str, Any] = {"batches": 0, "queue": [], "trained": [], "before": {}, "seen": []}
        self._jacobian = JacobianGradients()

    @property
    def groups(self) -> list[list[str]]:
        """Of tasks, at present; empty before the first batch."""
        return [list(group) for group in self.memory.get("groups", [])]

    @property
    def affinity(self) -> Tensor:
        """A (T, T) in the order of the balancer's tasks; row i is what training task i does to the others."""
        matrix: Tensor = self.memory["affinity"]
        return matrix

    def averages_gradients(self, balancer: Balancer) -> bool:
        """Always: data-parallel hooks expect that every loss is used."""
        return True

    def updates(self, balancer: Balancer) -> int:
        """One for each group."""
        memory, tasks = self.memory, list(balancer.tasks)
        if memory.setdefault("tasks", tasks) != tasks:
            raise ValueError(
                f"SelectiveGroupsStep: the checkpoint has affinities of {memory['tasks']}, this run trains "
                f"{tasks}. Keep the tasks and their order, or start from the network's weights alone."
            )
        memory.setdefault("affinity", torch.zeros(len(tasks), len(tasks), dtype=torch.float64))
        memory.setdefault("groups", [tasks] if self.start == "together" else [[name] for name in tasks])
        memory["batches"] += 1
        if memory["batches"] > self.warmup:
            self._regroup(tasks)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + memory["batches"])
        order = torch.randperm(len(memory["groups"]), generator=generator).tolist()
        queue = [memory["groups"][index] for index in order]
        if len(queue) == 1:
            queue *= 2
        memory |= {"queue": queue, "trained": [], "before": {}, "seen": []}
        return len(queue)

    def __call__(self, problem: StepProblem, batch: Batch) -> dict[str, Tensor]:
        """See `Step`: gradients of the group whose turn it is."""
        self.check_balancer(problem.balancer)
        if not self.memory["queue"]:
            self.updates(problem.balancer)
        if not somewhere(problem, bool(batch.labels)):
            raise refuse_empty(batch)
        report = problem.forward(batch) if batch.labels else LossReport({})
        means = means_over_processes(problem, report.losses)
        self.memory["seen"].append({name: float(value) for name, value in means.items()})
        group = [name for name in self.memory["queue"][0] if name in means]
        part = LossReport(
            {name: loss for name, loss in report.losses.items() if name in group}, report.auxiliary
        )
        total, weights = torch.zeros((), device=batch.image.device), {}
        if group and problem.balancer.combines:
            total, weights = _scalar(problem, part), problem.balancer.weights()
        elif group:
            total, weights = self._jacobian(problem, batch, part)
        logs = summary(report, {name: weights[name] for name in group if name in weights}, total)
        return logs | {"groups": total.new_tensor(float(len(self.memory["groups"])))}

    def follows_up(self, balancer: Balancer) -> bool:
        """Always: the next group follows."""
        return True

    def after_update(self, parts: Sequence[tuple[StepProblem, Batch]]) -> None:
        """Take what the losses of this group's pass say of the group before; the next group follows."""
        memory = self.memory
        found: dict[str, list[float]] = {}
        for losses in memory["seen"]:
            for name, value in losses.items():
                found.setdefault(name, []).append(value)
        now = {name: fmean(values) for name, values in found.items()}
        group = [name for name in memory["queue"].pop(0) if name in now]
        cause = memory["trained"] if self.attribution == "trained" else group
        if memory["before"] and cause:
            self._learn(cause, memory["before"], now)
        memory |= {"trained": group, "before": now, "seen": []}

    def _learn(self, group: Sequence[str], before: dict[str, float], now: dict[str, float]) -> None:
        """Change the affinities from `group` to all tasks."""
        values = torch.tensor([*before.values(), *now.values()], dtype=torch.float64)
        if not all_finite({"": values}):
            return
        tasks, matrix = self.memory["tasks"], self.affinity
        gain = {
            name: (1 - now[name] / before[name]) / len(group)
            for name in tasks
            if name in now and before.get(name, 0.0) > 0
        }
        for source in group:
            for target, value in gain.items():
                if target in group and source not in gain:
                    continue
                if target == source and value < 0:
                    continue
                if target in group and value * gain[source] < 0:
                    value = -max(value, gain[source])
                row, column = tasks.index(source), tasks.index(target)
                matrix[row, column] = (1 - self.decay) * matrix[row, column] + self.decay * value

    def _regroup(self, tasks: Sequence[str]) -> None:
        """Find groups; as before if affinities do not tell any."""
        own = self.affinity.diagonal()
        if not bool((own > 0).all()):
            return
        relative = self.affinity / own
        found = affinity_propagation((relative + relative.T) / 2, self.preference)
        if found is not None:
            self.memory["groups"] = [[tasks[index] for index in group] for group in found]

    def get_extra_state(self) -> dict[str, Any]:
        """Affinities, groups and the number of batches, for the checkpoint."""
        copy: dict[str, Any] = copied(self.memory)
        return copy

    def set_extra_state(self, state: Any) -> None:
        """Counterpart of `get_extra_state`."""
        self.memory = copied(state)


def _scalar(problem: StepProblem, report: LossReport) -> Tensor:
    """Gradients of the balancer's scalar and the auxiliary losses, averaged over processes; that scalar."""
    owners = [item for _, item in problem.parameters if item.requires_grad]
    owners += [item for item in problem.balancer.parameters() if item.requires_grad]
    total = torch.zeros((), device=owners[0].device)
    with averaged_gradients(problem, owners):
        if report.losses or problem.balancer.common_losses:
            total = combined(problem, report.losses)
        for loss in report.auxiliary.values():
            total = total + loss
        if total.requires_grad:
            problem.backward(total)
    return total
