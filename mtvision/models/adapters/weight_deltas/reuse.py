"""Reuse of a base task's activations: what the passes of other tasks change, and how much of it counts."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from mtvision.core.context import current_context
from mtvision.models.layers.conditioned import pass_memory
from mtvision.models.network import Network


class ActivationReuse(nn.Module):
    """Losses and counts of the differences between activations of a task and of the base task.

    Args:
        base: task whose pass comes first.
        weight: of the sum of absolute differences in the loss.
        threshold: smaller differences count as 0 in evaluation.
    """

    def __init__(self, base: str, weight: float, threshold: float) -> None:
        super().__init__()
        self.base, self.weight, self.threshold = base, weight, threshold
        self.changed: Counter[tuple[str, str]] = Counter()
        self.seen: Counter[tuple[str, str]] = Counter()
        self.counts = False
        self._sums: list[Tensor] = []
        self._pass: object = None

    def watch(self, path: str, module: nn.Module) -> None:
        """Compare the outputs of a module between passes."""
        module.register_forward_hook(_Site(self, path))

    def compare(self, path: str, output: Tensor) -> Tensor | None:
        """The output with small differences replaced; None where it stays."""
        memory, task = pass_memory(), current_context().task
        if memory is None or task is None:
            return None
        key = ("activation", path)
        if task == self.base:
            memory[key] = output.detach()
            return None
        if key not in memory:
            return None
        difference = output - memory[key]
        if self.training and torch.is_grad_enabled():
            self._remember(memory, difference.abs().sum())
            return None
        kept = difference.abs() >= self.threshold
        if self.counts:
            self.changed[task, path] += int((kept & (difference != 0)).sum())
            self.seen[task, path] += kept.numel()
        return torch.where(kept, output, memory[key]) if self.threshold else None

    def auxiliary_loss(self) -> Tensor:
        """The weighted sum over all sites and passes of the last forward pass in training mode."""
        if not self._sums:
            return torch.zeros(())
        return self.weight * torch.stack(self._sums).sum()

    def _remember(self, memory: object, value: Tensor) -> None:
        if memory is not self._pass:
            self._sums = []
        self._pass = memory
        self._sums.append(value)

    def __getstate__(self) -> dict[str, Any]:
        """Without the last pass, whose tensors have a graph."""
        return {**self.__dict__, "_sums": [], "_pass": None}


class _Site:
    """Hook of one module.

    Args:
        reuse: gets its outputs.
        path: of the module.
    """

    def __init__(self, reuse: ActivationReuse, path: str) -> None:
        self.reuse, self.path = reuse, path

    def __call__(self, module: nn.Module, given: tuple[Any, ...], output: Tensor) -> Tensor | None:
        """What takes the output's place, if anything does."""
        del module, given
        return self.reuse.compare(self.path, output)


def reuse_report(network: Network, image: Tensor) -> dict[str, dict[str, float]]:
    """Share of the activations that the passes of other tasks change, on some images.

    A sub-task's theoretical work in a layer is the dense one times this share. No kernel here makes use of
    it, so no time is saved.

    Args:
        network: with `SparseDeltas(reuse=...)`; it is in evaluation mode afterwards.
        image: (B, 3, H, W).

    Returns:
        {task: {path of a module: share}}.

    Raises:
        ValueError: the network reuses no activations.
    """
    found = next((item for item in network.modules() if isinstance(item, ActivationReuse)), None)
    if found is None:
        raise ValueError("reuse_report: the network has no SparseDeltas with reuse=; give it a weight.")
    network.eval()
    found.changed.clear()
    found.seen.clear()
    found.counts = True
    try:
        with torch.no_grad():
            network(image)
    finally:
        found.counts = False
    shares: dict[str, dict[str, float]] = {}
    for (task, path), total in found.seen.items():
        shares.setdefault(task, {})[path] = found.changed[task, path] / total
    return shares
