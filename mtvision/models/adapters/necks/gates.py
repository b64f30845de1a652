"""A public encoder, a private one per task, and gates that mix what they give."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtvision.core.context import current_context
from mtvision.core.pyramid import Pyramid, TaskPyramids
from mtvision.models.adapters.mtan import AttendedPyramids
from mtvision.models.backbones.backbone import Backbone
from mtvision.models.declarations import Declaration

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
        logits = F.logsigmoid(torch.stack([-self.alpha, self.alpha]))
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
        gate: kind of the gates between encoders; None = there are none, and both pyramids are given.
        keep: {task: the only encoder that it reads}.

    Attributes:
        public: the backbone of all tasks; None where no task reads it.
        private: {task: backbone}.
        architecture_gates: {task: gate}.
    """

    def __init__(
        self, backbone: Backbone, tasks: Sequence[str], gate: GateName | None, keep: Mapping[str, str]
    ) -> None:
        super().__init__()
        self.channels, self.strides = backbone.channels, backbone.strides
        self.size_multiple = backbone.size_multiple
        self.task_names = tuple(tasks)
        self.private = nn.ModuleDict(
            {name: copy.deepcopy(backbone) for name in tasks if keep.get(name) != "public"}
        )
        gated = [name for name in tasks if name not in keep]
        self.architecture_gates = nn.ModuleDict({} if gate is None else {n: SafeGate(gate) for n in gated})
        self.public = backbone if any(keep.get(name) != "private" for name in tasks) else None

    def declaration(self) -> Declaration:
        """Neither slimmed nor branched."""
        reason = "PublicPrivate gives it a public encoder and one of each task"
        return Declaration(cannot_slim=reason, cannot_branch=reason)

    def forward(self, image: Tensor) -> TaskPyramids:
        """Mixed pyramids of an image batch (B, 3, H, W); a task's is computed when it is read."""
        public = None if self.public is None else self.public(image)

        def mixed(name: str) -> list[Tensor]:
            if name not in self.private:
                return list(_maps(public, name))
            private = self.private_maps(name, image)
            if name not in self.architecture_gates:
                return private
            weights = self.architecture_gates[name]()
            return [mix(weights, one, other) for one, other in zip(_maps(public, name), private, strict=True)]

        if public is None:
            wanted = current_context().tasks
            read = [name for name in self.task_names if wanted is None or name in wanted]
            return TaskPyramids({name: Pyramid.of(mixed(name), self.strides) for name in read})
        return AttendedPyramids(public, self.task_names, mixed)

    def private_maps(self, name: str, image: Tensor) -> list[Tensor]:
        """Maps of the private encoder of a task."""
        return list(self.private[name](image).for_task(name).maps)

    def levels(self, image: Tensor) -> list[Tensor]:
        """Maps of the public backbone, or of the first private one."""
        first = next(iter(self.private.values())) if self.public is None else self.public
        maps: list[Tensor] = first.levels(image)  # type: ignore[operator]
        return maps


def mix(weights: Tensor, public: Tensor, private: Tensor) -> Tensor:
    """The sum of two tensors of one shape, weighted by the two numbers of a gate."""
    return weights[0].to(public.dtype) * public + weights[1].to(public.dtype) * private


def _maps(pyramid: Pyramid | None, name: str) -> tuple[Tensor, ...]:
    return () if pyramid is None else pyramid.for_task(name).maps
