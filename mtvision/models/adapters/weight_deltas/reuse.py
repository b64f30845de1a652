"""Reuse of activations: what passes of other tasks and of later frames change, and how much of it counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mtvision.core.context import current_context
from mtvision.models.adapters.weight_deltas.layers import TunedLinear
from mtvision.models.layers.conditioned import pass_memory
from mtvision.models.network import Network

Place = tuple[str, str]
"""A task and the path of a module."""


@dataclass
class Counts:
    """What passes computed anew.

    Args:
        changed: {place: activations that were not reused}.
        seen: {place: all activations}.
        macs: {place: multiply-accumulates of a linear layer}, dense.
    """

    changed: Counter[Place] = field(default_factory=Counter)
    seen: Counter[Place] = field(default_factory=Counter)
    macs: Counter[Place] = field(default_factory=Counter)

    def add(self, place: Place, module: nn.Module, changed: int, output: Tensor) -> None:
        """Note one pass of a module."""
        self.changed[place] += changed
        self.seen[place] += output.numel()
        if isinstance(module, nn.Linear | TunedLinear):
            self.macs[place] += output.numel() * module.get_parameter("weight").shape[1]

    def shares(self) -> dict[str, dict[str, float]]:
        """{task: {path of a module: share of its activations that were not reused}}."""
        found: dict[str, dict[str, float]] = {}
        for (task, path), total in self.seen.items():
            found.setdefault(task, {})[path] = self.changed[task, path] / total
        return found

    def work(self) -> dict[str, dict[str, float]]:
        """{task: {`dense`, `reused`}}: MACs of linear layers, and the same times the share of each layer."""
        found: dict[str, dict[str, float]] = {}
        for place, macs in self.macs.items():
            mine = found.setdefault(place[0], {"dense": 0.0, "reused": 0.0})
            mine["dense"] += macs
            mine["reused"] += macs * self.changed[place] / self.seen[place]
        return found


@dataclass
class Frames:
    """What the frame before left.

    Args:
        own: modules where a task reads its own last frame; elsewhere it reads the base task's pass.
        last: {place: activation}; empty before a key frame.
    """

    own: frozenset[str]
    last: dict[Place, Tensor] = field(default_factory=dict)


class ActivationReuse(nn.Module):
    """Losses and counts of the differences between activations of a task and of the base task.

    Args:
        base: task whose pass comes first.
        weight: of the sum of absolute differences in the loss.
        threshold: smaller differences count as 0 in evaluation.

    Attributes:
        frames: in a video, what the frame before left; None = images are taken one by one.
        counts: what passes in evaluation mode add to; None = nothing is counted.
    """

    def __init__(self, base: str, weight: float, threshold: float) -> None:
        super().__init__()
        self.base, self.weight, self.threshold = base, weight, threshold
        self.frames: Frames | None = None
        self.counts: Counts | None = None
        self._sums: list[Tensor] = []
        self._pass: object = None
        self._device: torch.device | None = None

    def watch(self, path: str, module: nn.Module) -> None:
        """Compare the outputs of a module between passes."""
        module.register_forward_hook(_Site(self, path))

    def compare(self, path: str, module: nn.Module, output: Tensor) -> Tensor | None:
        """The output with small differences replaced; None where it stays."""
        memory, task = pass_memory(), current_context().task
        if memory is None or task is None:
            return None
        if memory is not self._pass:  # also where no difference follows, as in a pass of the base task alone
            self._sums, self._pass, self._device = [], memory, output.device
        before = self._reference(memory, task, path)
        if self.training and torch.is_grad_enabled():
            if task == self.base:
                memory["activation", path] = output.detach()
            elif before is not None:
                self._sums.append((output - before).abs().sum())
            return None
        kept = None if before is None else (output - before).abs() >= self.threshold
        result = output if kept is None or not self.threshold else torch.where(kept, output, before)  # type: ignore[arg-type]
        if task == self.base:
            memory["activation", path] = result.detach()
        if self.frames is not None:
            self.frames.last[task, path] = result.detach()
        if self.counts is not None and (before is not None or self.frames is not None):
            changed = output.numel() if before is None else int((result != before).sum())
            self.counts.add((task, path), module, changed, output)
        return None if result is output else result

    def _reference(self, memory: Mapping[Any, Any], task: str, path: str) -> Tensor | None:
        """The activation that a pass may reuse: of the frame before, or of the base task."""
        if self.frames is not None and not self.training and (task == self.base or path in self.frames.own):
            before = self.frames.last.get((task, path))
            if before is not None:
                return before
        found: Tensor | None = None if task == self.base else memory.get(("activation", path))
        return found

    def auxiliary_loss(self) -> Tensor:
        """The weighted sum over all sites and passes of the last forward pass in training mode."""
        if not self._sums:
            return torch.zeros((), device=self._device)
        return self.weight * torch.stack(self._sums).sum()

    def __getstate__(self) -> dict[str, Any]:
        """Without the last pass, whose tensors have a graph, and without a video."""
        return {**self.__dict__, "_sums": [], "_pass": None, "frames": None, "counts": None}


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
        del given
        return self.reuse.compare(self.path, module, output)


def reuse_of(network: Network, user: str) -> ActivationReuse:
    """The module that compares activations.

    Raises:
        ValueError: the network reuses none.
    """
    found = next((item for item in network.modules() if isinstance(item, ActivationReuse)), None)
    if found is None:
        raise ValueError(f"{user}: the network has no SparseDeltas with reuse=; give it a weight.")
    return found


@contextmanager
def counting(reuse: ActivationReuse) -> Iterator[Counts]:
    """Count what passes in evaluation mode compute anew."""
    reuse.counts = Counts()
    try:
        yield reuse.counts
    finally:
        reuse.counts = None


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
    reuse = reuse_of(network, "reuse_report")
    network.eval()
    with torch.no_grad(), counting(reuse) as counts:
        network(image)
    return counts.shares()
