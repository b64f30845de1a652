"""`PRISM`: experts in a ViT that are routed by the teacher while it learns from it, and by the task after."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Literal

import torch
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from mtvision.core.context import current_context, use_context
from mtvision.core.naming import look_up
from mtvision.core.observer import Representations, wanted_representations
from mtvision.core.pyramid import Pyramid, size_of
from mtvision.core.registry import ADAPTERS
from mtvision.core.task import Task
from mtvision.core.values import Factor, Positive, Share
from mtvision.models.adapters.adapter import Adapter
from mtvision.models.adapters.taught.conditions import (
    PASS,
    Conditions,
    FiLMRouter,
    GatedExperts,
    of_teachers,
)
from mtvision.models.adapters.taught.layers import truncated
from mtvision.models.adapters.taught.stem import (
    Student,
    over_channels,
    plain_stem,
    taken_norm,
    teacher_widths,
)
from mtvision.models.backbones.backbone import Backbone
from mtvision.models.backbones.task_passes import pass_per_task, remembering
from mtvision.models.backbones.timm_backbone import TimmBackbone
from mtvision.models.branching.paths import refuse_shared_decoder
from mtvision.models.network import Network

Projector = Literal["mlp", "linear"]


class ConditionedBackbone(Student):
    """A ViT whose experts are routed by a task or by teachers; see `PRISM`.

    Args:
        inner: the ViT.
        tasks: names.
        teachers: {name: channels of its map at each level}.
        projector: from a level to the maps of a teacher.
    """

    def __init__(
        self,
        inner: TimmBackbone,
        tasks: Sequence[str],
        teachers: Mapping[str, Sequence[int]],
        projector: Projector,
    ) -> None:
        super().__init__(inner)
        width = self.channels[0]
        self.teachers = tuple(teachers)
        self.conditions = Conditions(tasks, self.teachers, width)
        self.norm = taken_norm(inner)
        self.projections = nn.ModuleDict(
            {
                f"{number}_{level}": _projection(projector, width, count)
                for number, channels in enumerate(teachers.values())
                for level, count in enumerate(channels)
            }
        )
        truncated(self.projections)

    def forward(self, image: Tensor) -> Pyramid:
        """Pyramids of the tasks that are read; maps for teachers are made in a pass of their own."""
        context = current_context()
        with use_context(replace(context, extra={**context.extra, PASS: object()})):
            wanted = wanted_representations()
            if wanted is not None:
                maps = self._show(image, wanted)
                if context.tasks == ():  # no task is read
                    return Pyramid.of(maps, self.strides)
            return super().forward(image)

    def run_block(self, module: Callable[[Tensor], Tensor], state: Tensor) -> Tensor:
        """State after a block, which has this context also when it is computed again."""
        context = current_context()

        def bound(before: Tensor) -> Tensor:
            with use_context(context):
                return module(before)

        return super().run_block(bound, state)

    def to_map(self, state: Tensor, level: int, size: tuple[int, int]) -> Tensor:
        """The ViT's map behind its final norm, at every level."""
        return self.inner.to_map(self.norm(state), level, size)

    def _show(self, image: Tensor, wanted: Representations) -> list[Tensor]:
        """Show each teacher the projected maps of its images; returns the maps before projection."""
        known = {name: place for place, name in enumerate(self.teachers)}
        places = [look_up("teacher of PRISM", name, known) for name in wanted.teachers]
        numbers = torch.tensor(places, device=image.device)[wanted.assignment(image)]
        with use_context(of_teachers(current_context(), numbers)), remembering(size_of(image)):
            maps = self.levels(image)
        for place, name in zip(places, wanted.teachers, strict=True):
            samples = (numbers == place).nonzero().flatten()
            if len(samples):
                layers = [self.projections[f"{place}_{level}"] for level in range(len(maps))]
                pairs = zip(layers, maps, strict=True)
                wanted.show(name, [over_channels(layer, item[samples]) for layer, item in pairs], samples)
        return maps


@ADAPTERS.register_module()
class PRISM(Adapter):
    """PRISM (Tang et al., ICML 2026): experts beside MLPs of a ViT, routed by teachers first, then by tasks.

    A gated sum of the block's MLP and of experts takes the MLP's place. One expert serves all tokens, others
    those that a router sends to them. The router reads the token and a vector of the teacher (`DistillStep`,
    one teacher per image) or of the task. Experts start as copies of the MLP. All levels pass the final norm.

    Args:
        teachers: {name: channels of its maps, one number or one for each level}. The names are those of
            `DistillStep`.
        experts: per MLP, without the one of all tokens.
        top_k: experts per token.
        gate: smallest and largest share of the MLP.
        weigh_inputs: multiply an expert's weight into its input as well as into its result, as in the
            released code.
        dropout: probability that training closes an expert to a token.
        noise: training adds noise to scores, whose deviation is learned.
        balance: weight of the loss that keeps experts in use (`switch_loss`).
        blocks: globs of the MLPs; by default those of the blocks that write levels.
        projector: from a level to the maps of a teacher: `mlp` of two layers, or `linear`.

    Raises:
        TypeError: the backbone is no plain ViT of timm.
        ValueError: `top_k` exceeds `experts`, a range is empty, or a glob matches no MLP.
    """

    def __init__(
        self,
        *,
        teachers: Mapping[str, Positive | Sequence[Positive]],
        experts: Positive = 15,
        top_k: Positive = 3,
        gate: Sequence[Share] = (0.5, 1.0),
        weigh_inputs: bool = True,
        dropout: Share = 0.1,
        noise: bool = True,
        balance: Factor = 0.001,
        blocks: Sequence[str] | None = None,
        projector: Projector = "mlp",
    ) -> None:
        if not 1 <= top_k <= experts:
            raise ValueError(f"PRISM: top_k={top_k} of {experts} experts; give 1 or more, at most {experts}.")
        if len(gate) != 2 or gate[0] > gate[1]:
            raise ValueError(f"PRISM: gate={tuple(gate)}; give the smallest and the largest share, in 0..1.")
        self.teachers, self.projector = dict(teachers), projector
        self.experts, self.top_k, self.gate = experts, top_k, (float(gate[0]), float(gate[1]))
        self.weigh_inputs, self.dropout, self.noise = weigh_inputs, dropout, noise
        self.balance = balance
        self.blocks = None if blocks is None else tuple(blocks)

    def apply(self, backbone: Backbone, tasks: Sequence[Task]) -> Backbone:
        """A backbone around the given one."""
        stem, names = plain_stem(backbone, "PRISM"), [task.name for task in tasks]
        found = {path: item for path, item in stem.named_modules() if type(item) is Mlp}
        teachers = teacher_widths(self.teachers, len(stem.exits), "PRISM")
        student = ConditionedBackbone(stem, names, teachers, self.projector)
        for path in self._chosen(stem, list(found)):
            stem.set_submodule(path, self._gated(path, found[path], student.conditions))
        student.to(next(stem.parameters()))
        pass_per_task(student, names, side=False, user="PRISM")
        student.measure()
        return student

    def complete(self, network: Network) -> None:
        """Refuse a decoder that reads one pyramid of all tasks."""
        refuse_shared_decoder(network, type(self).__name__)

    def _chosen(self, stem: TimmBackbone, found: Sequence[str]) -> list[str]:
        if self.blocks is None:
            writers = [f"{stem.block_names()[exit_ - 1]}." for exit_ in stem.exits]
            chosen = [path for path in found if path.startswith(tuple(writers))]
        else:
            chosen = [path for path in found if any(fnmatchcase(path, glob) for glob in self.blocks)]
        idle = [glob for glob in self.blocks or () if not any(fnmatchcase(path, glob) for path in found)]
        if not chosen or idle:
            asked = "" if self.blocks is None else f" that {idle} match"
            raise ValueError(
                f"PRISM: {stem.name} has {len(found)} MLPs of timm, and none{asked}. It "
                f"{'has ' + ', '.join(found[:3]) + ', …' if found else 'has another kind; use a ViT'}."
            )
        return chosen

    def _gated(self, path: str, mlp: Mlp, conditions: Conditions) -> GatedExperts:
        if not isinstance(mlp.fc1, nn.Linear) or mlp.fc1.bias is None:
            raise ValueError(f"PRISM: {path} is no MLP of two linear layers with biases.")
        router = FiLMRouter(
            conditions,
            mlp.fc1.in_features,
            self.experts,
            self.top_k,
            dropout=self.dropout,
            noisy=self.noise,
        )
        return GatedExperts(mlp, router, self.gate, weigh_inputs=self.weigh_inputs, balance=self.balance)


def _projection(kind: Projector, width: int, channels: int) -> nn.Module:
    if kind == "linear":
        return nn.Linear(width, channels)
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, channels))
