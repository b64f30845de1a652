"""AdaTT: tasks read one another's experts through gates, and keep a direct way to their own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtvision.core.registry import ADAPTERS
from mtvision.core.task import Task
from mtvision.core.values import Count, Positive
from mtvision.models.adapters.necks.neck import Neck, NeckAdapter, OwnMaps
from mtvision.models.backbones.backbone import Backbone
from mtvision.models.layers import ConvNorm

SHARED = "shared experts"


class Fusion(nn.Module):
    """One round: experts of every owner, then a gate per owner over all of them.

    Args:
        channels: of the maps.
        experts: {owner: how many experts}; an owner is a task, or the shared experts.
        gated: owners whose results are read later.
    """

    def __init__(self, channels: int, experts: dict[str, int], gated: Sequence[str]) -> None:
        super().__init__()
        self.counts = dict(experts)
        self.experts = nn.ModuleDict(
            {
                owner: nn.ModuleList(ConvNorm(channels, channels) for _ in range(count))
                for owner, count in experts.items()
            }
        )
        total = sum(experts.values())
        self.gates = nn.ModuleDict({owner: nn.Conv2d(channels, total, 1) for owner in gated})
        # As in the released code, weights of own experts are learned unless all owners have one expert.
        single = all(count == 1 for count in experts.values())
        self.direct = nn.ParameterDict(
            {}
            if single
            else {owner: nn.Parameter(torch.full((experts[owner],), 1 / experts[owner])) for owner in gated}
        )

    def forward(self, states: dict[str, Tensor]) -> dict[str, Tensor]:
        """{owner: map} after the round, of the owners with a gate."""
        results = {
            owner: torch.stack([expert(states[owner]) for expert in experts], dim=1)  # type: ignore[attr-defined]
            for owner, experts in self.experts.items()
        }
        every = torch.cat(list(results.values()), dim=1)
        fused = {}
        for owner, gate in self.gates.items():
            weights = gate(states[owner]).softmax(dim=1)[:, :, None]
            own = results[owner]
            if owner in self.direct:
                own = own * self.direct[owner][None, :, None, None, None].to(own.dtype)
            fused[owner] = (weights * every).sum(dim=1) + own.sum(dim=1)
        return fused


class TaskFusion(OwnMaps):
    """Rounds of fusion at one level.

    Args:
        channels: of the map.
        tasks: names.
        own: experts of each task.
        shared: experts of no task.
        rounds: how many.
    """

    mixes = True

    def __init__(self, channels: int, tasks: Sequence[str], *, own: int, shared: int, rounds: int) -> None:
        super().__init__()
        counts = dict.fromkeys(tasks, own) | ({SHARED: shared} if shared else {})
        last = rounds - 1
        self.rounds = nn.ModuleList(
            Fusion(channels, counts, list(tasks) if index == last else list(counts))
            for index in range(rounds)
        )
        self.shared = bool(shared)

    def forward(self, maps: dict[str, Tensor], task: str, memory: dict[str, Tensor]) -> Tensor:
        """The map (B, C, h, w) of `task`; those of all tasks are made together, once."""
        if not memory:
            states = dict(maps)
            if self.shared:
                states[SHARED] = torch.stack(list(maps.values())).mean(dim=0)
            for fusion in self.rounds:
                states = fusion(states)
            memory.update(states)
        return memory[task]


@ADAPTERS.register_module()
class AdaTT(NeckAdapter):
    """AdaTT (Li et al., KDD 2023) as a neck: soft sharing between experts of tasks at every level.

    A task's map is the gated sum of all experts plus the sum of its own ones. Experts are 3x3 convolutions
    with norm and ReLU, and gates are 1x1 convolutions. This dense form is ours.

    Args:
        own: experts of each task.
        shared: experts of no task.
        rounds: of fusion, one behind the other.
    """

    def __init__(self, *, own: Positive = 1, shared: Count = 0, rounds: Positive = 1) -> None:
        self.own, self.shared, self.rounds = own, shared, rounds

    def apply(self, backbone: Backbone, tasks: Sequence[Task]) -> Backbone:
        """The backbone with fusion behind it."""
        names = [task.name for task in tasks]
        options = {"own": self.own, "shared": self.shared, "rounds": self.rounds}
        return Neck(backbone, [TaskFusion(width, names, **options) for width in backbone.channels], names)
