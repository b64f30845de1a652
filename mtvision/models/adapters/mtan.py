"""MTAN: one backbone for all tasks, with a soft attention mask per task."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mtvision.core.naming import look_up
from mtvision.core.pyramid import Pyramid, TaskPyramids, size_of
from mtvision.core.registry import ADAPTERS
from mtvision.core.task import Task
from mtvision.core.values import Positive
from mtvision.models.adapters.adapter import Adapter
from mtvision.models.backbones.backbone import Backbone
from mtvision.models.layers.residual import bottleneck


@ADAPTERS.register_module()
class MTAN(Adapter):
    """Multi-task attention network (Liu et al., CVPR 2019) on a ResNet, as in the survey's code.

    At every stage a task's mask (two 1x1 convolutions with batch norm, sigmoid) multiplies the shared map
    behind the stage's last block. The mask is made from the map before that block and from the task's
    attended map of the previous stage. A bottleneck shared by all tasks brings that map to this stage's
    width, and a max pooling to its size. A task's pyramid holds its attended maps; the published heads read
    the coarsest (`ConcatDecoder(levels=[-1])`, `DeepLabHead`).

    Args:
        reduction: channels of a stage over those inside its masks.

    Raises:
        NotImplementedError: the backbone is not cut into blocks.
        ValueError: a stage has a single block, or its states are not NCHW maps.
    """

    def __init__(self, *, reduction: Positive = 4) -> None:
        self.reduction = reduction

    def apply(self, backbone: Backbone, tasks: Sequence[Task]) -> Backbone:
        """The backbone with attention of every task."""
        return AttentionBackbone(backbone, [task.name for task in tasks], reduction=self.reduction)


class AttentionBackbone(Backbone):
    """See `MTAN`.

    Args:
        shared: backbone of all tasks.
        tasks: names.
        reduction: channels of a stage over those inside its masks.
    """

    def __init__(self, shared: Backbone, tasks: Sequence[str], *, reduction: int = 4) -> None:
        super().__init__()
        check_stages(shared)
        self.shared = shared
        self.channels, self.strides = shared.channels, shared.strides
        self.size_multiple = shared.size_multiple
        before = (0, *self.channels[:-1])
        self.attention = nn.ModuleList(
            nn.ModuleDict(
                {
                    name: attention_mask(2 * width if coming else width, max(1, width // reduction), width)
                    for name in tasks
                }
            )
            for width, coming in zip(self.channels, before, strict=True)
        )
        self.refine = nn.ModuleList(
            bottleneck(width, following)
            for width, following in zip(self.channels[:-1], self.channels[1:], strict=True)
        )
        self.pool = nn.ModuleList(
            _pooling(following // stride)
            for stride, following in zip(self.strides[:-1], self.strides[1:], strict=True)
        )

    def forward(self, image: Tensor) -> TaskPyramids:
        """Attended pyramids of an image batch (B, 3, H, W), computed for the tasks that are read."""
        size = size_of(image)
        last, behind = self._stages(image, size)
        names = list(self.attention[0])  # type: ignore[call-overload]
        shared = Pyramid.of(behind, self.strides)
        return AttendedPyramids(shared, names, lambda name: self._attend(name, last, behind))

    def levels(self, image: Tensor) -> list[Tensor]:
        """Shared maps."""
        return self.shared.levels(image)

    def _stages(self, image: Tensor, size: tuple[int, int]) -> tuple[list[Tensor], list[Tensor]]:
        """Maps before and behind the last block of every stage."""
        exits = self.shared.exits
        last: list[Tensor] = []
        behind: list[Tensor] = []
        for position, state in enumerate(self.shared._states(image)):
            if position + 1 in exits:
                last.append(state)
            if position in exits:
                behind.append(self.shared.to_map(state, exits.index(position), size))
        return last, behind

    def _attend(self, name: str, last: Sequence[Tensor], behind: Sequence[Tensor]) -> list[Tensor]:
        """Attended maps of one task, fine to coarse."""
        attended: list[Tensor] = []
        for stage, (source, target) in enumerate(zip(last, behind, strict=True)):
            if stage:
                coming = self.pool[stage - 1](self.refine[stage - 1](attended[-1]))
                source = torch.cat([source, coming], dim=1)
            attended.append(self.attention[stage][name](source) * target)  # type: ignore[index]
        return attended


class AttendedPyramids(TaskPyramids):
    """Pyramids that are computed when a task's is first read; `maps` are the shared ones.

    Args:
        shared: pyramid of the backbone.
        tasks: names.
        attend: task name to maps.
    """

    def __init__(self, shared: Pyramid, tasks: Sequence[str], attend: Callable[[str], list[Tensor]]) -> None:
        super().__init__(dict.fromkeys(tasks, shared))
        object.__setattr__(self, "_attend", attend)
        object.__setattr__(self, "_tasks", dict.fromkeys(tasks))
        object.__setattr__(self, "_made", {})

    def for_task(self, name: str) -> Pyramid:
        """The pyramid that task `name` reads; raises `UnknownNameError`."""
        own = self.__dict__
        look_up("task of the pyramids", name, own["_tasks"])
        made: dict[str, Pyramid] = own["_made"]
        if name not in made:
            made[name] = Pyramid.of(own["_attend"](name), self.strides)
        return made[name]


def attention_mask(in_channels: int, hidden: int, out_channels: int) -> nn.Sequential:
    """Mask in (0, 1): 1x1 convolution, batch norm, ReLU, 1x1 convolution, batch norm, sigmoid."""
    return nn.Sequential(
        nn.Conv2d(in_channels, hidden, 1),
        nn.BatchNorm2d(hidden),
        nn.ReLU(inplace=True),
        nn.Conv2d(hidden, out_channels, 1),
        nn.BatchNorm2d(out_channels),
        nn.Sigmoid(),
    )


def check_stages(backbone: Backbone) -> None:
    """Refuse a backbone whose maps before and behind the last block of a stage differ in shape.

    Raises:
        NotImplementedError: it is not cut into blocks.
        ValueError: a stage has a single block.
    """
    blocks = backbone.blocks
    for position in backbone.exits:
        last = blocks[position - 1]
        before = blocks[position - 2] if position > 1 else None
        if before is None or (before.out_channels, before.stride) != (last.out_channels, last.stride):
            raise ValueError(
                f"MTAN: {last.name} is the only block of its stage, so the map before it has another shape. "
                "Use a backbone with two blocks or more in every stage (resnet18 and up)."
            )


def _pooling(factor: int) -> nn.Module:
    # Rounded up, as strided convolutions round odd sizes.
    return nn.Identity() if factor == 1 else nn.MaxPool2d(factor, ceil_mode=True)
