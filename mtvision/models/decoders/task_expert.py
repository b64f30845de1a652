"""TaskExpert (Ye and Xu, ICCV 2023, arXiv 2307.15324), re-implemented from its abstract and a figure caption.

No code was published, and no text with equations was available. The paper states:

* Memorial mixture-of-experts modules stand at several layers of a backbone.
* Experts shared by all tasks decompose the feature of a layer. Dynamic gates, one per task, mix their maps.
* A memory with one slot per task is read as one more expert and written at every layer. After the last layer
  it is the input of the heads.

Everything else is decided here, as an option where it matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from mtvision.core.output import Auxiliary, DecoderOutput
from mtvision.core.pyramid import Pyramid
from mtvision.core.registry import DECODERS
from mtvision.core.task import Task
from mtvision.core.values import Factor, Positive
from mtvision.models.declarations import SHARED, Channels, Declaration, Declares, Part
from mtvision.models.decoders.decoder import Decoder
from mtvision.models.heads.output import as_convolution
from mtvision.models.layers import common_grid, enlarge, once_per_map
from mtvision.models.layers.gate import MapGate


@DECODERS.register_module()
class TaskExpertDecoder(Decoder):
    """Experts shared by all tasks, mixed per task and image; a memory per task carries what was found.

    At level l, with experts E_i, gate weights g (a softmax over the experts and the memory) and memory M:

        F = sum_i g_i E_i(X_l) + g_M Read(M)        M <- M + Write(F)

    Experts are 1x1 and 3x3 convolutions with batch norm and GELU, `Read` a 1x1 and `Write` a 3x3 convolution
    with batch norm and GELU. Tasks share the experts only, so that asking for fewer tasks changes nothing in
    the others. Levels of different strides are resized to one grid first.

    Args:
        channels: of each pyramid level (supplied).
        strides: of each pyramid level (supplied).
        tasks: whose features are made (supplied).
        width: channels of experts, memories and features.
        experts: how many experts per level.
        grid: (height, width) of the maps, for gates with learned weights per position; None: for any size.
        learned_memory: memories start at a learned vector per task instead of 0.
        deep_supervision: weight of logits from the memories after every level but the last, in training; None
            for none.
        upscale: enlargement of the feature maps before the heads.

    Raises:
        ValueError: `experts` is not positive.
    """

    def __init__(
        self,
        *,
        channels: Sequence[int],
        strides: Sequence[int],
        tasks: Sequence[Task],
        width: Positive = 384,
        experts: Positive = 5,
        grid: Sequence[Positive] | None = None,
        learned_memory: bool = False,
        deep_supervision: Factor | None = None,
        upscale: Positive = 4,
    ) -> None:
        super().__init__(channels=channels, strides=strides, tasks=tasks)
        if experts < 1:
            raise ValueError(f"TaskExpertDecoder: experts={experts}; give at least 1.")
        names = [task.name for task in tasks]
        size = None if grid is None else (int(grid[0]), int(grid[1]))
        self.deep_supervision, self.upscale = deep_supervision, upscale
        self.out_channels = dict.fromkeys(names, width)
        self.memory = nn.ParameterDict(
            {name: nn.Parameter(torch.zeros(width)) for name in names if learned_memory}
        )
        self.layers = nn.ModuleList(
            MemorialExperts(names, count, width, experts, size, reads=level > 0 or learned_memory)
            for level, count in enumerate(self.channels)
        )
        self.auxiliary = nn.ModuleDict(
            {
                task.name: nn.ModuleList(nn.Conv2d(width, task.out_channels, 1) for _ in self.channels[1:])
                for task in (tasks if deep_supervision is not None else ())
            }
        )

    def declaration(self) -> Declaration:
        """A memory is as wide as its task."""
        runs = {name: Channels(self.out_channels[name], Part("task", name)) for name in self.memory}
        return Declaration(tensors={f"memory.{name}": {0: run} for name, run in runs.items()}, part=SHARED)

    def output_layers(self, task: str) -> list[nn.Conv2d]:
        """Of deep supervision."""
        return (
            [*map(as_convolution, cast(nn.ModuleList, self.auxiliary[task]))]
            if task in self.auxiliary
            else []
        )

    def forward(self, pyramid: Pyramid, tasks: Sequence[str] | None = None) -> DecoderOutput:
        """Features (B, width, h, w), `upscale` times finer than the common grid."""
        names = [task.name for task in self.asked(tasks)]
        maps = common_grid(pyramid, names)
        memories = {name: self._start(name, maps[name][0]) for name in names}
        auxiliary: list[Auxiliary] = []
        for level, layer in enumerate(cast(Sequence[MemorialExperts], self.layers)):
            features = {name: maps[name][level] for name in names}
            parts = once_per_map(layer.decompose, features)
            for name, feature in features.items():
                memory = layer(feature, memories[name], name, parts[name])
                memories[name] = memory
                if self.training and self.deep_supervision is not None and level < len(self.layers) - 1:
                    logits = cast(nn.ModuleList, self.auxiliary[name])[level](memory)
                    auxiliary.append(Auxiliary(name, logits, self.deep_supervision))
        enlarged = {name: enlarge(memory, self.upscale) for name, memory in memories.items()}
        return DecoderOutput(enlarged, auxiliary)

    def _start(self, name: str, feature: Tensor) -> Tensor:
        height, width = feature.shape[-2:]
        start = self.memory[name] if name in self.memory else feature.new_zeros(1)  # as wide as is added
        # A copy: torch's counter of operations cannot take a parameter's view made without gradients.
        return start[None, :, None, None].expand(feature.shape[0], -1, height, width).contiguous()


class MemorialExperts(nn.Module, Declares):
    """One memorial mixture-of-experts module, at one level.

    Args:
        names: of the tasks.
        channels: of the level.
        width: of experts and memories.
        experts: how many.
        grid: see `MapGate`.
        reads: whether the memory is one of the choices; at the first level it may still be empty.
    """

    def __init__(
        self,
        names: Sequence[str],
        channels: int,
        width: int,
        experts: int,
        grid: tuple[int, int] | None,
        *,
        reads: bool,
    ) -> None:
        super().__init__()
        self.experts = nn.ModuleList(
            nn.Sequential(*_unit(channels, width, 1), *_unit(width, width, 3)) for _ in range(experts)
        )
        self.gate = nn.ModuleDict({name: MapGate(channels, experts + reads, grid) for name in names})
        self.read = nn.ModuleDict({name: nn.Conv2d(width, width, 1) for name in names if reads})
        self.write = nn.ModuleDict({name: nn.Sequential(*_unit(width, width, 3)) for name in names})

    def declaration(self) -> Declaration:
        """What is read from a memory is added to the experts' maps, which all tasks share."""
        return Declaration(writes={f"read.{name}": SHARED for name in self.read})

    def decompose(self, feature: Tensor) -> Tensor:
        """The experts' maps (B, experts, width, h, w) of a level (B, C, h, w)."""
        return torch.stack([expert(feature) for expert in self.experts], dim=1)

    def forward(self, feature: Tensor, memory: Tensor, name: str, maps: Tensor) -> Tensor:
        """The memory (B, width, h, w) of task `name` after this level; `maps` are `decompose(feature)`."""
        weights = self.gate[name](feature).softmax(dim=1)
        count = len(self.experts)
        mixed = torch.einsum("be,bechw->bchw", weights[:, :count].to(maps.dtype), maps)
        if name in self.read:
            mixed = mixed + weights[:, count:, None, None] * self.read[name](memory)
        return cast(Tensor, memory + self.write[name](mixed))


def _unit(channels: int, width: int, kernel: int) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False)
    return conv, nn.BatchNorm2d(width), nn.GELU()
