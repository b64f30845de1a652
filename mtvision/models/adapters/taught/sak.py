"""`SAK`: a path of small adapters beside a ViT for each teacher, and routers that mix them for each task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from torch import Tensor, nn

from mtvision.core.observer import wanted_representations
from mtvision.core.pyramid import Pyramid, size_of
from mtvision.core.registry import ADAPTERS
from mtvision.core.task import Task
from mtvision.core.values import Positive
from mtvision.models.adapters.adapter import Adapter
from mtvision.models.adapters.mtan import AttendedPyramids
from mtvision.models.adapters.taught.layers import NoiseOf, PathStep, RepresentationRouter, truncated
from mtvision.models.adapters.taught.stem import (
    Student,
    over_channels,
    plain_stem,
    taken_norm,
    teacher_widths,
)
from mtvision.models.backbones.backbone import Backbone
from mtvision.models.backbones.timm_backbone import TimmBackbone
from mtvision.models.branching.paths import refuse_shared_decoder
from mtvision.models.declarations import Declaration
from mtvision.models.network import Network

Maps = tuple[Tensor, dict[str, Tensor]]
"""Of one level: the stem's map, and {teacher: the map of its path}."""


class PathsBackbone(Student):
    """A ViT with a path for each teacher; see `SAK`.

    Args:
        inner: the ViT, the teacher-agnostic stem.
        tasks: names.
        teachers: {name: channels of its map at each level}.
        reduction: features over the inner width of a path's step.
        align: linear layers from a path's maps to its teacher's channels.
        routed: routers mix the maps; else they are added.
        noise: of the routers.
    """

    def __init__(
        self,
        inner: TimmBackbone,
        tasks: Sequence[str],
        teachers: Mapping[str, Sequence[int]],
        *,
        reduction: int,
        align: bool,
        routed: bool,
        noise: NoiseOf,
    ) -> None:
        super().__init__(inner)
        taken_norm(inner)
        width, steps = self.channels[0], 1 + len(inner.block_names())
        self.task_names, self.teachers = tuple(tasks), tuple(teachers)
        self._keys = [exit_ - 1 for exit_ in self.exits]  # the block that writes a level
        self.paths = nn.ModuleDict(
            {name: nn.ModuleList(PathStep(width, reduction) for _ in range(steps)) for name in self.teachers}
        )
        channels = {
            f"{key}_{name}": teachers[name][level]
            for level, key in enumerate(self._keys)
            for name in self.teachers
        }
        self.out_norms = nn.ModuleDict({key: nn.LayerNorm(width) for key in channels})
        aligners = {key: nn.Linear(width, count) for key, count in channels.items() if align}
        self.aligners = nn.ModuleDict(aligners)
        truncated(self.aligners)
        count = 1 + len(self.teachers)
        self.routers = nn.ModuleDict(
            {
                f"{key}_{task}": RepresentationRouter(width, count, noise)
                for key in self._keys
                for task in tasks
                if routed
            }
        )
        self.to(next(inner.parameters()))

    def forward(self, image: Tensor) -> Pyramid:
        """Pyramid of an image batch (B, 3, H, W); one per task, mixed when it is read, with routers."""
        levels = list(self._levels_of_all(image))
        self._show(levels)
        maps = [[stem, *others.values()] for stem, others in levels]
        if not self.routers:
            return Pyramid.of([sum(rest, first) for first, *rest in maps], self.strides)

        def own(task: str) -> list[Tensor]:
            return [self.routers[f"{key}_{task}"](items) for key, items in zip(self._keys, maps, strict=True)]

        stems = Pyramid.of([first for first, *_ in maps], self.strides)
        return AttendedPyramids(stems, self.task_names, own)

    def declaration(self) -> Declaration:
        """Not branched, because teachers' paths read every block."""
        return Declaration(cannot_branch="the paths of teachers read the states of all blocks")

    def _levels_of_all(self, image: Tensor) -> Iterator[Maps]:
        """Maps of the levels, fine to coarse."""
        size = size_of(image)
        paths: dict[str, Tensor] = {}
        for position, state in enumerate(self._states(image)):
            for name, steps in self.paths.items():
                step: nn.Module = steps[position]  # type: ignore[index]
                paths[name] = step(paths[name] + state if position else state)
            for level, exit_ in enumerate(self.exits):
                if exit_ == position:
                    yield (
                        self.to_map(state, level, size),
                        {name: self._normed(level, name, path, size) for name, path in paths.items()},
                    )

    def _normed(self, level: int, teacher: str, state: Tensor, size: tuple[int, int]) -> Tensor:
        norm = self.out_norms[f"{self._keys[level]}_{teacher}"]
        return over_channels(norm, self.to_map(state, level, size))

    def _show(self, levels: Sequence[Maps]) -> None:
        """Show the paths' maps where a step compares them with teachers."""
        wanted = wanted_representations()
        if wanted is None:
            return
        for name in self.teachers:
            maps = [others[name] for _, others in levels]
            if self.aligners:
                maps = [
                    over_channels(self.aligners[f"{key}_{name}"], item)
                    for key, item in zip(self._keys, maps, strict=True)
                ]
            wanted.show(name, maps)


@ADAPTERS.register_module()
class SAK(Adapter):
    """Swiss Army Knife (Lu, Cao and Wang, ICLR 2025): representations of several teachers in one ViT.

    Beside the ViT runs a path for each teacher. Its first step reads the tokens, and every later one the step
    before plus the state after a block. `DistillStep` pulls the normed maps of a path to those of its
    teacher. For every task and level a router mixes the ViT's map and the paths' maps.

    A ViT's final norm is taken out: levels are read without it, as released.

    Args:
        teachers: {name: channels of its maps, one number or one for each level}. The names are those of
            `DistillStep`.
        reduction: features over the inner width of a path's step.
        align: linear layers from the maps of a path to its teacher's channels, which may then differ.
        mix: `router`, or `sum` of all maps without parameters.
        noise: of the routers in training, drawn for each `pixel` as in the released code, for each `image`,
            of which the scores are, or `none`.

    Raises:
        TypeError: the backbone is no plain ViT of timm.
        ValueError: a teacher has other channels than the ViT and `align` is off.
    """

    def __init__(
        self,
        *,
        teachers: Mapping[str, Positive | Sequence[Positive]],
        reduction: Positive = 4,
        align: bool = False,
        mix: Literal["router", "sum"] = "router",
        noise: NoiseOf = "pixel",
    ) -> None:
        self.teachers, self.reduction, self.align = dict(teachers), reduction, align
        self.mix, self.noise = mix, noise

    def apply(self, backbone: Backbone, tasks: Sequence[Task]) -> Backbone:
        """A backbone around the given one."""
        stem = plain_stem(backbone, "SAK")
        width, teachers = stem.channels[0], teacher_widths(self.teachers, len(stem.exits), "SAK")
        for name, channels in teachers.items():
            if set(channels) != {width} and not self.align:
                raise ValueError(
                    f"SAK: teacher '{name}' has {channels} channels, the backbone {width}. Set align=True."
                )
        student = PathsBackbone(
            stem,
            [task.name for task in tasks],
            teachers,
            reduction=self.reduction,
            align=self.align,
            routed=self.mix == "router",
            noise=self.noise,
        )
        student.measure()
        return student

    def complete(self, network: Network) -> None:
        """Refuse a decoder that reads one pyramid of all tasks."""
        if self.mix == "router":
            refuse_shared_decoder(network, type(self).__name__)
