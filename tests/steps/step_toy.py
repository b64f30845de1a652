"""A small network in which tasks talk to one another, its data, and the losses as the suite computes them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mtvision.core.output import NetworkOutput
from mtvision.core.sample import Batch, Meta, Sample, collate
from mtvision.losses import TaskLosses
from mtvision.protocols.tasks import depth, edge, semseg
from mtvision.steps import LossReport

TASKS = (semseg(["a", "b", "c"]), depth(), edge())
NAMES = tuple(task.name for task in TASKS)


class Toy(nn.Module):
    """Trunk -> one feature map per task -> exchange between tasks -> one head per task.

    `exchange` sits in the decoder and serves all tasks; `own` and `heads` serve one each, except that the
    exchange makes every `own` reach every loss. `unused` serves nobody, `frozen` does not learn.
    A `selective` toy leaves out the features of tasks that are not asked for, so that what a loss reaches
    depends on which other tasks are present.
    """

    def __init__(self) -> None:
        super().__init__()
        self.selective = False
        self.trunk = nn.Conv2d(3, 4, 3, padding=1)
        self.own = nn.ModuleDict({name: nn.Conv2d(4, 4, 1) for name in NAMES})
        self.exchange = nn.Conv2d(12, 12, 1)
        self.heads = nn.ModuleDict({task.name: nn.Conv2d(4, task.out_channels, 1) for task in TASKS})
        self.unused = nn.Linear(2, 2)
        self.frozen = nn.Parameter(torch.ones(4, 1, 1), requires_grad=False)

    def forward(self, image: Tensor, tasks: list[str]) -> dict[str, Tensor]:
        shared = self.trunk(image).tanh() * self.frozen
        used = tasks if self.selective else NAMES
        features = torch.cat(
            [self.own[name](shared).tanh() if name in used else shared.detach() * 0 for name in NAMES], dim=1
        )
        mixed = (features + self.exchange(features)).chunk(3, dim=1)
        return {name: self.heads[name](mixed[NAMES.index(name)]) for name in tasks}


@dataclass
class ToyForward:
    """`StepProblem.forward` of the toy: losses of the labelled tasks, and a regulariser on demand."""

    network: Toy
    regulariser: float = 0.0
    autocast: torch.dtype | None = None

    def __call__(self, batch: Batch) -> LossReport:
        tasks = [name for name in NAMES if name in batch.labels]
        with torch.autocast("cpu", dtype=self.autocast or torch.bfloat16, enabled=self.autocast is not None):
            logits = self.network(batch.image, tasks)
            losses = TaskLosses(TASKS)(NetworkOutput(logits), batch)
        auxiliary = {}
        if self.regulariser:
            penalty = sum(item.square().sum() for item in self.network.trunk.parameters())
            auxiliary["decay"] = self.regulariser * penalty
        return LossReport(losses, auxiliary)


def make_toy(seed: int = 0) -> Toy:
    torch.manual_seed(seed)
    return Toy().double()


def make_samples(count: int, seed: int = 1, lacking: dict[int, set[str]] | None = None) -> list[Sample]:
    """Samples with labels everywhere, so that every loss is the mean of its samples' losses."""
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for index in range(count):
        labels = {
            "semseg": torch.randint(3, (4, 5), generator=generator),
            "depth": torch.rand(1, 4, 5, generator=generator) * 5,
            "edge": torch.rand(1, 4, 5, generator=generator).round(),
        }
        for name in (lacking or {}).get(index, set()):
            del labels[name]
        image = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)
        samples.append(Sample(image, labels, Meta(id=f"image-{index}", size=(4, 5), original_size=(4, 5))))
    return samples


def make_batch(count: int, seed: int = 1, lacking: dict[int, set[str]] | None = None) -> Batch:
    return collate(make_samples(count, seed, lacking))


def gradients(network: nn.Module) -> dict[str, Tensor | None]:
    return {
        name: None if item.grad is None else item.grad.clone() for name, item in network.named_parameters()
    }
