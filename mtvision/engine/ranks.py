"""What the processes of a training step exchange, so that N of them can be one.

Two kinds of means, `training.loss_means`:

* `rank`: every process divides its losses by the counts of its own labels, and gradients are averaged. That
  is what the code of the papers does. With unequal numbers of labelled pixels it is not the mean over the
  whole batch. It depends on how images are dealt to processes.
* `global`: label counts are summed over processes and over the parts of a batch before any division. Every
  process computes every task that any of them has. Balancers see the losses of the whole batch. N processes
  with B images then do what one with N * B does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mtvision.core.sample import Batch
from mtvision.core.task import Task
from mtvision.losses.task_losses import TaskLosses
from mtvision.runtime.launch import gather, rank_and_world_size
from mtvision.steps.problem import LossReport

LossMeans = Literal["rank", "global"]

_BUCKET = 2**23
"""Numbers that are sent together: enough to make the start of an exchange cheap."""


def number_of_ranks() -> int:
    """Processes of the run; 1 outside a group."""
    return rank_and_world_size()[1]


def average_over_ranks(tensors: list[Tensor]) -> list[Tensor]:
    """Mean of each tensor over all processes; the tensors themselves on a single one.

    Neighbours of the same type are sent together, up to `_BUCKET` numbers at once.
    """
    return begin_average_over_ranks(tensors, False)()


def begin_average_over_ranks(tensors: list[Tensor], reuse: bool) -> Callable[[], list[Tensor]]:
    """Begin `average_over_ranks`; the function returned waits for it and gives the means.

    Args:
        tensors: as there. They must not change before the means are there.
        reuse: a tensor that is sent alone may become the mean, so that it is not copied.
    """
    if number_of_ranks() == 1:
        return lambda: tensors
    travelling = []
    for bucket in _buckets(tensors):
        alone = reuse and len(bucket) == 1
        flat = bucket[0].reshape(-1) if alone else torch.cat([tensor.reshape(-1) for tensor in bucket])
        shapes = [tensor.shape for tensor in bucket]
        travelling.append((flat, shapes, dist.all_reduce(flat, async_op=True)))

    def means() -> list[Tensor]:
        found: list[Tensor] = []
        for flat, shapes, work in travelling:
            work.wait()
            parts = torch.split(flat.div_(number_of_ranks()), [shape.numel() for shape in shapes])
            found += [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
        return found

    return means


def _buckets(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """The tensors in order, in lists of one type and device; a tensor of more than `_BUCKET` is alone."""
    buckets: list[list[Tensor]] = []
    filled = 0
    for tensor in tensors:
        alike = buckets and (tensor.dtype, tensor.device) == (buckets[-1][0].dtype, buckets[-1][0].device)
        if not alike or filled + tensor.numel() > _BUCKET:
            buckets.append([])
            filled = 0
        buckets[-1].append(tensor)
        filled += tensor.numel()
    return buckets


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Sum over all processes; the tensor itself on a single one."""
    if number_of_ranks() == 1:
        return tensor
    total = tensor.clone()
    dist.all_reduce(total)
    return total


def largest_over_ranks(number: int) -> int:
    """The largest of all processes' numbers; all of them call this.

    It stays on the CPU where the group has a way to, so that no GPU is waited for.
    """
    if number_of_ranks() == 1:
        return number
    given = torch.tensor([number], device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(given, dist.ReduceOp.MAX)
    return int(given)


@contextmanager
def statistics_of_main(network: nn.Module) -> Iterator[None]:
    """Within the block, all processes have the buffers of the main one, which are those of checkpoints.

    Running statistics of batch norms differ between processes. Scores would depend on who scores which
    image, and a resumed run, which loads the main process's statistics everywhere, would score otherwise.
    """
    if number_of_ranks() == 1:
        yield
        return
    saved = network.state_dict(keep_vars=True)
    buffers = [item for name, item in network.named_buffers() if name in saved]
    own = [item.clone() for item in buffers]
    for item in buffers:
        dist.broadcast(item, 0)
    try:
        yield
    finally:
        for item, before in zip(buffers, own, strict=True):
            item.copy_(before)


@dataclass(frozen=True)
class WholeBatch:
    """The labels of a step's batch over all processes, for means of the kind `global`.

    Args:
        tasks: those that a sample of any process has labels of.
        counts: {task: (K,) sums of `Loss.counts` over all processes}.
    """

    tasks: tuple[Task, ...]
    counts: Mapping[str, Tensor]

    @classmethod
    def of(cls, batch: Batch, tasks: Sequence[Task], losses: TaskLosses) -> WholeBatch:
        """Add up the counts of all processes; all of them call this with the same tasks."""
        counts = losses.counts(batch.completed(tasks))
        names = [task.name for task in tasks]
        flags = [float(name in batch.labels) for name in names]
        device = batch.image.device
        given = torch.cat([torch.tensor(flags, dtype=torch.float64, device=device), *counts.values()])
        total = sum_over_ranks(given)
        sizes = [len(flags), *(len(item) for item in counts.values())]
        somewhere, *summed = torch.split(total, sizes)
        present = [name for name, share in zip(names, somewhere.tolist(), strict=True) if share > 0]
        by_name = dict(zip(counts, summed, strict=True))
        return cls(
            tuple(task for task in tasks if task.name in present), {name: by_name[name] for name in present}
        )

    def scaled(self, report: LossReport, share: float) -> LossReport:
        """Losses of a part of the batch such that means over processes and parts are those of the whole.

        Args:
            report: losses of the part, divided by `counts`.
            share: of the part in this process's batch; its gradients will be multiplied by it.

        Returns:
            The same with values of the mean over processes, so that a balancer weighs alike on all of them.
            The graph is that of the part alone.
        """
        factor = number_of_ranks() / share
        if factor == 1 or not report.losses:
            return report
        losses = {name: loss * factor for name, loss in report.losses.items()}
        own = torch.stack(list(losses.values())).detach()
        (mean,) = average_over_ranks([own])
        values = zip(losses.items(), mean - own, strict=True)
        return replace(report, losses={name: loss + change for (name, loss), change in values})


class LogMeans:
    """Means over processes of logged values, each over the processes that have it.

    Names are agreed on once; a new name on any process makes all of them exchange their names again.
    """

    def __init__(self) -> None:
        self._names: list[str] = []

    def __call__(self, logs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The mean of every value; the same names and values on all processes, which all call this."""
        if number_of_ranks() == 1:
            return dict(logs)
        sums, counts, new = self._sums(logs)
        if new:
            everyone = gather(sorted(logs))
            self._names = sorted({*self._names, *(name for names in everyone for name in names)})
            sums, counts, _ = self._sums(logs)
        means = sums / counts.clamp(min=1)
        return {
            name: mean
            for name, mean, count in zip(self._names, means, counts.tolist(), strict=True)
            if count > 0
        }

    def _sums(self, logs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, bool]:
        device = next(iter(logs.values())).device if logs else torch.device("cpu")
        zero = torch.zeros((), dtype=torch.float64, device=device)
        values = [logs[name].double() if name in logs else zero for name in self._names]
        flags = [float(name in logs) for name in self._names]
        flags.append(float(not set(logs) <= set(self._names)))
        given = torch.cat(
            [torch.tensor(flags, dtype=torch.float64, device=device), *(v[None] for v in values)]
        )
        total = sum_over_ranks(given)
        size = len(self._names)
        return total[size + 1 :].float(), total[:size], bool(total[size] > 0)
