"""Deep Safe Multi-Task Learning: a public encoder, a private one per task, and gates that mix them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from mtvision.core.naming import UnknownNameError
from mtvision.core.pyramid import Pyramid, TaskPyramids
from mtvision.core.registry import ADAPTERS
from mtvision.core.task import Task
from mtvision.core.values import ByTask
from mtvision.models.adapters.adapter import Adapter
from mtvision.models.adapters.mtan import AttendedPyramids
from mtvision.models.backbones.backbone import Backbone

GateName = Literal["softmax", "sigmoid", "gumbel"]
TEMPERATURE = 0.1


class SafeGate(nn.Module):
    """Weights (public, private) of one task.

    Args:
        kind: `softmax` (v1, they sum to 1), `sigmoid` (v2, independent), `gumbel` (v3, one of the two).
    """

    def __init__(self, kind: GateName) -> None:
        super().__init__()
        self.kind = kind
        self.alpha = nn.Parameter(torch.zeros(()) if kind == "gumbel" else torch.full((2,), 0.5))

    def forward(self, noise: Tensor | None = None) -> Tensor:
        """The two weights.

        Args:
            noise: two values of the standard Gumbel distribution; by default training draws them. Evaluation
                has none, unlike `forward` of the released code.
        """
        if self.kind == "softmax":
            return self.alpha.softmax(0)
        if self.kind == "sigmoid":
            return self.alpha.sigmoid()
        share = self.alpha.sigmoid()
        logits = torch.stack([1 - share, share]).log()
        if noise is None and self.training:
            noise = -torch.empty_like(logits).exponential_().log()
        soft = ((logits + (0 if noise is None else noise)) / TEMPERATURE).softmax(0)
        # Without noise the private encoder wins a tie, as in the released code.
        private = soft[1] >= soft[0]
        hard = torch.stack([~private, private]).to(soft.dtype)
        return hard + soft - soft.detach()


class PublicPrivateBackbone(Backbone):
    """One public backbone, and a private copy for each task.

    Args:
        backbone: public; private ones start as copies.
        tasks: names.
        gate: kind of the gates.
        keep: {task: the only encoder that it reads}.

    Attributes:
        public: the backbone of all tasks; None where no task reads it.
        private: {task: backbone}.
        gates: {task: gate}.
    """

    def __init__(
        self, backbone: Backbone, tasks: Sequence[str], gate: GateName, keep: Mapping[str, str]
    ) -> None:
        super().__init__()
        self.channels, self.strides = backbone.channels, backbone.strides
        self.size_multiple = backbone.size_multiple
        self.task_names = tuple(tasks)
        self.private = nn.ModuleDict(
            {name: copy.deepcopy(backbone) for name in tasks if keep.get(name) != "public"}
        )
        self.gates = nn.ModuleDict({name: SafeGate(gate) for name in tasks if name not in keep})
        self.public = backbone if any(keep.get(name) != "private" for name in tasks) else None

    def forward(self, image: Tensor) -> TaskPyramids:
        """Mixed pyramids of an image batch (B, 3, H, W); a task's is computed when it is read."""
        public = None if self.public is None else self.public(image)

        def mixed(name: str) -> list[Tensor]:
            if name not in self.private:
                return list(_maps(public, name))
            private = self.private[name](image).maps
            if name not in self.gates:
                return list(private)
            weights = self.gates[name]()
            pairs = zip(_maps(public, name), private, strict=True)
            return [weights[0].to(one.dtype) * one + weights[1].to(one.dtype) * other for one, other in pairs]

        if public is None:
            own = {name: Pyramid.of(mixed(name), self.strides) for name in self.task_names}
            return TaskPyramids(own)
        return AttendedPyramids(public, self.task_names, mixed)

    def levels(self, image: Tensor) -> list[Tensor]:
        """Maps of the public backbone, or of the first private one."""
        first = next(iter(self.private.values())) if self.public is None else self.public
        maps: list[Tensor] = first.levels(image)  # type: ignore[operator]
        return maps


def _maps(pyramid: Pyramid | None, name: str) -> tuple[Tensor, ...]:
    return () if pyramid is None else pyramid.for_task(name).maps


@ADAPTERS.register_module()
class PublicPrivate(Adapter):
    """Deep Safe Multi-Task Learning (Yue et al.): a gate per task mixes a public and a private encoder.

    Where a gate takes the private encoder alone, the task is trained as a single-task network.

    Args:
        gate: `softmax` (v1), `sigmoid` (v2), or `gumbel` (v3: hard, temperature 0.1).
        keep: {task: `public` or `private`}: the only encoder that the task reads. This is the lite version,
            after gates have been learned.

    Raises:
        UnknownNameError: `keep` names a task that is not there, or another encoder.
    """

    task_options = ("keep",)

    def __init__(
        self, *, gate: GateName = "softmax", keep: Annotated[Mapping[str, str], ByTask()] | None = None
    ) -> None:
        self.gate, self.keep = gate, dict(keep or {})
        for choice in self.keep.values():
            if choice not in ("public", "private"):
                raise UnknownNameError("encoder in PublicPrivate.keep", choice, ["public", "private"])

    def apply(self, backbone: Backbone, tasks: Sequence[Task]) -> Backbone:
        """Public and private backbones."""
        names = [task.name for task in tasks]
        for name in self.keep:
            if name not in names:
                raise UnknownNameError("task in PublicPrivate.keep", name, names)
        return PublicPrivateBackbone(backbone, names, self.gate, self.keep)
