"""TAPS: every task learns which layers it changes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtvision.core.registry import ADAPTERS
from mtvision.core.task import Task
from mtvision.core.values import Factor
from mtvision.models.adapters.weight_deltas.adapter import Changes, WeightDeltas, chosen
from mtvision.models.adapters.weight_deltas.layers import NORMS, WeightDelta
from mtvision.models.backbones.backbone import Backbone


class GatedDelta(nn.Module):
    """weight + 1[score >= threshold]·delta; the score's gradient is that of a factor (straight through).

    Args:
        like: the weight.
        score: where the score starts.
        threshold: from which on the change counts.
        penalty: weight of the score's absolute value in the loss.
    """

    def __init__(self, like: Tensor, score: float, threshold: float, penalty: float) -> None:
        super().__init__()
        self.delta = nn.Parameter(torch.zeros_like(like))
        self.score = nn.Parameter(torch.tensor(score))
        self.threshold, self.penalty = threshold, penalty

    def forward(self, base: Tensor) -> Tensor:
        """The changed weight; exactly the base where the score is below the threshold."""
        gate = (self.score >= self.threshold).to(base.dtype)
        return base + (gate + self.score - self.score.detach()) * self.delta

    def auxiliary_loss(self) -> Tensor:
        """The penalty of the score."""
        return self.penalty * self.score.abs()


@ADAPTERS.register_module()
class TAPS(WeightDeltas):
    """Task adaptive parameter sharing (Wallingford et al., CVPR 2022): own weights where a score says so.

    A layer's weight for a task is w + 1[s >= threshold]·delta. Norms always have changes per task.

    Args:
        layers: globs of the layers that tasks may change; by default all in the blocks.
        sparsity: weight of the mean |s| over layers, for each task.
        threshold: from which on a layer is changed.
        score: where scores start.

    Raises:
        ValueError: the backbone has no such layers.
    """

    def __init__(
        self,
        *,
        layers: Sequence[str] | None = None,
        sparsity: Factor = 0.25,
        threshold: Factor = 0.1,
        score: float = 0.15,
    ) -> None:
        self.globs = None if layers is None else tuple(layers)
        self.sparsity, self.threshold, self.score = sparsity, threshold, score
        self._count = 1

    def apply(self, backbone: Backbone, tasks: Sequence[Task]) -> Backbone:
        """The same backbone, frozen, with gated changes."""
        found = self.layers(backbone)
        self._count = sum(
            not isinstance(item, NORMS) and chosen(path, self.globs) for path, item in found.items()
        )
        if not self._count:
            there = f"has {', '.join(list(found)[:3])}, …" if found else "has none that can be changed"
            raise ValueError(
                f"TAPS: layers={list(self.globs or ())} matches no layer in the backbone's blocks, which "
                f"{there}. Give globs of such layers, and put no other adapter of changes before."
            )
        return super().apply(backbone, tasks)

    def changes(self, path: str, layer: nn.Module, tasks: Sequence[str]) -> Changes:
        """Changes of gain and shift of norms, gated ones of weights. Biases have none, as published."""
        own = dict(layer.named_parameters(recurse=False))
        if isinstance(layer, NORMS):
            return {task: {name: WeightDelta(item) for name, item in own.items()} for task in tasks}
        if not chosen(path, self.globs):
            return {}
        penalty = self.sparsity / self._count
        return {
            task: {"weight": GatedDelta(own["weight"], self.score, self.threshold, penalty)} for task in tasks
        }


def changed_layers(backbone: nn.Module) -> dict[str, list[str]]:
    """{task: paths of the layers whose change counts} of a backbone with TAPS."""
    found: dict[str, list[str]] = {}
    for path, item in backbone.named_modules():
        if isinstance(item, GatedDelta):
            layer, _, task = path.removesuffix(".weight").rpartition(".deltas.")
            found.setdefault(task, [])
            found[task] += [layer] if bool(item.score >= item.threshold) else []
    return found
