"""Efficient Computation Sharing: sparse changes of a base task's weights, and reuse of its activations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtvision.core.registry import ADAPTERS
from mtvision.core.task import Task
from mtvision.core.values import Factor
from mtvision.models.adapters.weight_deltas.adapter import Changes, WeightDeltas, chosen
from mtvision.models.adapters.weight_deltas.reuse import ActivationReuse
from mtvision.models.backbones.backbone import Backbone

LOW, HIGH, TEMPERATURE = -1.5, 1.5, 2 / 3
"""Range to which a hard-concrete gate is stretched, and its temperature."""
SITES = ("*.norm1", "*.attn.qkv", "*.attn.proj", "*.mlp.fc1", "*.mlp.act", "*.mlp.fc2")
"""Modules whose activations are compared, as published."""
FEWEST = 1e-4
"""Uniform noise stays this far from 0 and 1."""


def hard_concrete(logits: Tensor, noise: Tensor | None) -> Tensor:
    """Gates in [0, 1] (Louizos et al., ICLR 2018).

    Args:
        logits: one per gate.
        noise: uniform values in [0, 1] of the same shape; None = the gates without noise.
    """
    if noise is not None:
        noise = noise.clamp(FEWEST, 1 - FEWEST)
        logits = (noise.logit() + logits) / TEMPERATURE
    return (logits.sigmoid() * (HIGH - LOW) + LOW).clamp(0, 1)


class SparseDelta(nn.Module):
    """base + z·delta with z = a gate per value times a gate per tensor.

    Args:
        like: the tensor.
        start: initial logit of gates.
        penalty: weight of the expected number of open gates in the loss.
        fixed: gates are not trained and have no noise.
    """

    def __init__(self, like: Tensor, start: float, penalty: float, *, fixed: bool) -> None:
        super().__init__()
        self.delta = nn.Parameter(torch.zeros_like(like))
        self.values = nn.Parameter(torch.full_like(like, start), requires_grad=not fixed)
        self.whole = nn.Parameter(torch.tensor(start), requires_grad=not fixed)
        self.penalty, self.fixed = penalty, fixed

    def forward(self, base: Tensor, noise: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """The changed tensor.

        Args:
            base: the frozen tensor.
            noise: uniform values for the gates of values and of the tensor; by default training draws them.
        """
        return base + self.gates(noise) * self.delta

    def gates(self, noise: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """z; noise as in `forward`."""
        if noise is None and self.training and not self.fixed:
            noise = torch.rand_like(self.values), torch.rand_like(self.whole)
        values, whole = noise or (None, None)
        return hard_concrete(self.values, values) * hard_concrete(self.whole, whole)

    def auxiliary_loss(self) -> Tensor:
        """The expected number of open gates, weighted; 0 for fixed gates."""
        if self.fixed:
            return self.delta.new_zeros(())
        shift = math.log(-LOW / HIGH)
        return self.penalty * ((self.values - shift).sigmoid().sum() + (self.whole - shift).sigmoid())

    def open_share(self) -> tuple[int, int]:
        """How many values are changed without noise, and how many there are."""
        with torch.no_grad():
            z = hard_concrete(self.values, None) * hard_concrete(self.whole, None)
        return int(((z * self.delta) != 0).sum()), z.numel()


@ADAPTERS.register_module()
class SparseDeltas(WeightDeltas):
    """Efficient Computation Sharing (Shoouri et al., ICCV 2023): sparse changes of a base task's network.

    The base task uses the backbone's own weights. Every other task adds z·delta, where z are hard-concrete
    gates. `gates="learn"` is the paper's first step. `gates="fixed"` is the second one, and the third with
    `reuse`.

    Args:
        base: task that uses the backbone as it is.
        gates: `learn`, or `fixed`: they neither train nor have noise.
        sparsity: weight of the expected number of open gates.
        start: initial logit of gates.
        reuse: weight of the L1 norm of how activations differ from those of the base task; None = no reuse.
        threshold: smaller differences count as 0 in evaluation, so that the base task's activation is reused.

    Raises:
        UnknownNameError: `base` is no task of the run.
        ValueError: another word for `gates`, a threshold without reuse, or reuse on a backbone without the
            modules that are compared.
    """

    def __init__(
        self,
        *,
        base: str,
        gates: str = "learn",
        sparsity: Factor = 5e-8,
        start: float = 5.0,
        reuse: Factor | None = None,
        threshold: Factor = 0.0,
    ) -> None:
        if gates not in ("learn", "fixed"):
            raise ValueError(f"SparseDeltas.gates: '{gates}'; give 'learn' or 'fixed'.")
        if threshold and reuse is None:
            raise ValueError(
                f"SparseDeltas.threshold: {threshold} without reuse, so no activation is compared. Give "
                "reuse a weight, such as 2.5e-10."
            )
        self.base_task, self.fixed, self.sparsity, self.start = base, gates == "fixed", sparsity, start
        self.reuse, self.threshold = reuse, threshold

    def apply(self, backbone: Backbone, tasks: Sequence[Task]) -> Backbone:
        """The same backbone, frozen, with sparse changes."""
        names = [task.name for task in tasks]
        self.check_tasks([self.base_task or ""], names, "base")
        backbone = super().apply(backbone, tasks)
        if self.reuse is not None:
            within = tuple(f"{name}." for name in backbone.block_names())
            reuse = ActivationReuse(self.base_task or "", self.reuse, self.threshold)
            named = {path: item for path, item in backbone.named_modules() if path.startswith(within)}
            sites = [path for path in named if chosen(path, SITES)]
            if not sites:
                raise ValueError(
                    f"SparseDeltas.reuse: blocks of {type(backbone).__name__} have no module like "
                    f"{', '.join(SITES)}, whose activations are compared. Use a ViT, or reuse=None."
                )
            for path in sites:
                reuse.watch(path, named[path])
            backbone.add_module("reuse", reuse)
        return backbone

    def changes(self, path: str, layer: nn.Module, tasks: Sequence[str]) -> Changes:
        """Sparse changes of all parameters for all tasks but the base task."""
        own = dict(layer.named_parameters(recurse=False))
        return {
            task: {
                name: SparseDelta(item, self.start, self.sparsity, fixed=self.fixed)
                for name, item in own.items()
            }
            for task in tasks
            if task != self.base_task
        }


def changed_values(backbone: nn.Module) -> dict[str, tuple[int, int]]:
    """{task: (values that differ from the base task's, all values)} of the layers with sparse changes."""
    found: dict[str, tuple[int, int]] = {}
    for path, item in backbone.named_modules():
        if isinstance(item, SparseDelta):
            task = path.rpartition(".deltas.")[2].split(".")[0]
            changed, total = found.get(task, (0, 0))
            own, count = item.open_share()
            found[task] = changed + own, total + count
    return found
