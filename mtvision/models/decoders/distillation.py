"""Spatial attention between tasks, which PAD-Net introduced and MTI-Net uses at every scale."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from mtvision.core.naming import UnknownNameError
from mtvision.core.task import Task


class Distillation(nn.Module):
    """F_t + Σ_{a≠t} conv(F_a) ⊙ sigmoid(gate(F_a)), with 3x3 convolutions of their own for every pair.

    PAD-Net (Xu et al., CVPR 2018), its multi-modal distillation module C.

    Args:
        channels: of every feature map.
        targets: tasks whose features are made.
        sources: tasks that messages come from; they include the targets.
    """

    def __init__(self, channels: int, targets: Sequence[str], sources: Sequence[str]) -> None:
        super().__init__()
        self.messages = nn.ModuleDict(
            {
                target: nn.ModuleDict({source: Message(channels) for source in sources if source != target})
                for target in targets
            }
        )

    def forward(self, features: Mapping[str, Tensor], targets: Sequence[str]) -> dict[str, Tensor]:
        """Feature maps (B, C, h, w) of `targets`, from those of all sources."""
        result = {}
        messages: Any = self.messages  # a table of modules, which torch's types cannot say
        for target in targets:
            total = features[target]
            for source, message in messages[target].items():
                total = total + message(features[source])
            result[target] = total
        return result


class Message(nn.Module):
    """Features that one task passes to another: conv(x) ⊙ sigmoid(gate(x)), both 3x3 without bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, feature: Tensor) -> Tensor:
        """Map (B, C, h, w) of a map of the same shape."""
        message: Tensor = self.conv(feature) * self.gate(feature).sigmoid()
        return message


def helpers_for(options: Mapping[str, Any], tasks: Sequence[str], absent: Collection[str]) -> dict[str, Any]:
    """`Decoder.for_tasks` of a decoder with `helpers`.

    Absent helpers are dropped. If all tasks of the run are helpers, they become ordinary tasks.
    """
    helpers = [name for name in options.get("helpers", ()) if name not in absent]
    return {**options, "helpers": helpers if any(name not in helpers for name in tasks) else []}


def split_helpers(tasks: Sequence[Task], helpers: Sequence[str]) -> list[str]:
    """Names of the tasks that are not helpers, in order.

    Raises:
        UnknownNameError: a helper is no task.
        ValueError: every task is a helper.
    """
    names = [task.name for task in tasks]
    for name in helpers:
        if name not in names:
            raise UnknownNameError("task in helpers", name, names)
    main = [name for name in names if name not in helpers]
    if not main:
        raise ValueError(f"helpers={list(helpers)}: at least one task must not be a helper.")
    return main
