"""MTI-Net: tasks exchange features at every scale, and coarse scales pass theirs to finer ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from mtvision.core.output import Auxiliary, DecoderOutput
from mtvision.core.pyramid import Pyramid, size_of
from mtvision.core.registry import DECODERS
from mtvision.core.task import Task
from mtvision.core.values import Factor, Positive
from mtvision.models.declarations import LAST_STAGE, SHARED, Channels, Declaration, Declares, Part
from mtvision.models.decoders.concat import concat_levels
from mtvision.models.decoders.decoder import Decoder
from mtvision.models.decoders.distillation import Distillation, helpers_for, split_helpers
from mtvision.models.heads.output import as_convolution
from mtvision.models.layers import resize
from mtvision.models.layers.residual import basic_block

MaskAxis = Literal["published", "tasks"]


@DECODERS.register_module()
class MTINetDecoder(Decoder):
    """MTI-Net (Vandenhende et al., ECCV 2020), as in its released code.

    The decoder goes from the coarsest scale to the finest. Per task, two residual blocks refine the scale's
    map and what the coarser scale propagated. A 1x1 convolution predicts the task there (supervised). A
    feature propagation module mixes the tasks before the next finer scale. Then every task adds the gated
    features of the others at each scale (`Distillation`), and all scales are resized to the finest and
    concatenated. The published head is `HighResolutionHead`.

    Args:
        channels: of each pyramid level, fine to coarse (supplied).
        strides: of each pyramid level (supplied).
        tasks: whose features are made (supplied).
        mask_axis: what the softmax of the propagation modules normalises over. `published`: as the released
            code does, T consecutive channels of one task (see `Propagation`). `tasks`: the T tasks of one
            channel, the evident intent.
        helpers: tasks with predictions at every scale but no final one. Their feature is the refined map of
            the finest scale and their head (published: `ConvHead`) makes the prediction of that scale.
        scale_weight: of the losses of the predictions at every scale.
        reduction: of the squeeze and excitation in the propagation modules.

    Raises:
        ValueError: a single level, every task a helper, or an unknown `mask_axis`.
        UnknownNameError: a helper is no task.
    """

    @classmethod
    def for_tasks(
        cls, options: Mapping[str, Any], tasks: Sequence[str], absent: Collection[str]
    ) -> dict[str, Any]:
        """Without helpers that are absent."""
        return helpers_for(options, tasks, absent)

    def __init__(
        self,
        *,
        channels: Sequence[int],
        strides: Sequence[int],
        tasks: Sequence[Task],
        mask_axis: MaskAxis = "published",
        helpers: Sequence[str] = (),
        scale_weight: Factor = 1.0,
        reduction: Positive = 16,
    ) -> None:
        super().__init__(channels=channels, strides=strides, tasks=tasks)
        if len(self.channels) < 2:
            raise ValueError("MTINetDecoder: needs a pyramid of two levels or more; choose more levels.")
        names, self.main = [task.name for task in tasks], split_helpers(tasks, helpers)
        self.scale_weight = scale_weight
        self.scales = nn.ModuleList(
            Scale(width, coarser, {task.name: task.out_channels for task in tasks}, () if index else helpers)
            for index, (width, coarser) in enumerate(zip(self.channels, (*self.channels[1:], 0), strict=True))
        )
        self.propagation = nn.ModuleList(
            Propagation(width, names, mask_axis=mask_axis, reduction=reduction) for width in self.channels[1:]
        )
        self.distillation = nn.ModuleList(Distillation(width, self.main, names) for width in self.channels)
        total = sum(self.channels)
        self.out_channels = {name: total if name in self.main else self.channels[0] for name in names}

    def declaration(self) -> Declaration:
        """Scales that tasks mix have one width, the finest follows each task.

        The coarsest scale adds what it computes to the backbone's last map, so it is as wide as that.
        """
        parts: dict[str, Part] = {}
        last = len(self.channels) - 1
        for index in range(1, last + 1):
            inside = (f"scales.{index}", f"propagation.{index - 1}", f"distillation.{index}")
            parts |= dict.fromkeys(inside, SHARED if index < last else LAST_STAGE)
        return Declaration(parts=parts)

    def recomputed(self) -> list[str]:
        """Also the masks, which mix the features of all tasks."""
        masks = (
            f"propagation.{i}.{name}" for i in range(len(self.propagation)) for name in ("mask", "reduce")
        )
        return [*super().recomputed(), *masks]

    def output_layers(self, task: str) -> list[nn.Conv2d]:
        """Of deep supervision."""
        predict = [cast(Scale, scale).predict for scale in self.scales]
        return [as_convolution(layers[task]) for layers in predict if task in layers]

    def forward(self, pyramid: Pyramid, tasks: Sequence[str] | None = None) -> DecoderOutput:
        """Features at the finest scale: (B, sum of channels, h, w), of helpers (B, channels[0], h, w)."""
        asked = [task.name for task in self.asked(tasks)]
        targets = [name for name in asked if name in self.main]
        refined = self._refine(pyramid)
        final = [layer(maps, targets) for layer, maps in zip(self.distillation, refined, strict=True)]
        features = {
            name: concat_levels([maps[name] for maps in final]) if name in self.main else refined[0][name]
            for name in asked
        }
        return DecoderOutput(features, self._supervision(refined, asked) if self.training else [])

    def _supervision(self, refined: Sequence[Mapping[str, Tensor]], names: Sequence[str]) -> list[Auxiliary]:
        """Predictions at every scale, finest first."""
        scales: Any = self.scales  # torch's types do not tell what a ModuleList holds
        return [
            Auxiliary(name, scale.predict[name](maps[name]), self.scale_weight)
            for scale, maps in zip(scales, refined, strict=True)
            for name in names
            if name in scale.predict
        ]

    def _refine(self, pyramid: Pyramid) -> list[dict[str, Tensor]]:
        """Task features of every scale, fine to coarse. All tasks are needed: propagation mixes them."""
        own = {task.name: pyramid.for_task(task.name).maps for task in self.tasks}
        refined: list[dict[str, Tensor]] = []
        coarser: dict[str, Tensor] = {}
        for index in range(len(self.channels) - 1, -1, -1):
            maps = self.scales[index]({name: item[index] for name, item in own.items()}, coarser)
            refined.insert(0, maps)
            if index:
                coarser = self.propagation[index - 1](maps)
        return refined


class Scale(nn.Module):
    """Refinement and initial prediction of every task at one scale.

    Args:
        width: channels of the scale's map and of the refined ones.
        coarser: channels of the propagated maps; 0 at the coarsest scale.
        tasks: {name: channels of its logits}.
        unpredicted: tasks without a prediction here.
    """

    def __init__(
        self, width: int, coarser: int, tasks: Mapping[str, int], unpredicted: Sequence[str]
    ) -> None:
        super().__init__()
        self.refine = nn.ModuleDict(
            {
                name: nn.Sequential(basic_block(width + coarser, width), basic_block(width, width))
                for name in tasks
            }
        )
        self.predict = nn.ModuleDict(
            {name: nn.Conv2d(width, count, 1) for name, count in tasks.items() if name not in unpredicted}
        )

    def forward(self, maps: Mapping[str, Tensor], coarser: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Refined maps (B, width, h, w) from the scale's maps and the propagated ones, which are enlarged."""
        refined = {}
        for name, feature in maps.items():
            if name in coarser:
                size = size_of(feature)
                feature = torch.cat([feature, resize(coarser[name], size)], dim=1)
            refined[name] = self.refine[name](feature)
        return refined


class Propagation(nn.Module, Declares):
    """Feature propagation module: all tasks of a scale mixed, then handed to each through its own gate.

    mask = softmax(g(x)) of the concatenated task features x (B, T·C, h, w); shared = r(mask ⊙ x) of C
    channels; result_t = shared ⊙ excitation_t(mean of shared) + x_t.

    The released code views both tensors as (B, C, T, h, w) before the softmax over T. The concatenation is
    task-major, so that view groups T *consecutive channels*, not the T tasks. `mask_axis="published"` does
    the same, which released weights need; `"tasks"` takes the softmax over the tasks.

    Args:
        width: C.
        tasks: names, in the order of the concatenation.
        mask_axis: `published` or `tasks`.
        reduction: of the squeeze and excitation.

    Raises:
        ValueError: another `mask_axis`.
    """

    def __init__(self, width: int, tasks: Sequence[str], *, mask_axis: MaskAxis, reduction: int = 16) -> None:
        super().__init__()
        if mask_axis not in ("published", "tasks"):
            raise ValueError(f"MTINetDecoder: mask_axis={mask_axis!r}; choose 'published' or 'tasks'.")
        self.mask_axis, self.names, self.width = mask_axis, tuple(tasks), width
        total = width * len(self.names)
        hidden = max(1, total // 4)
        self.mask = nn.Sequential(
            basic_block(total, hidden), basic_block(hidden, hidden), nn.Conv2d(hidden, total, 1)
        )
        self.reduce = basic_block(total, width)
        squeezed = max(1, width // reduction)
        self.excite = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Linear(width, squeezed), nn.ReLU(), nn.Linear(squeezed, width), nn.Sigmoid()
                )
                for name in self.names
            }
        )

    def declaration(self) -> Declaration:
        """The mask has a run for every task; the published softmax mixes neighbours, so runs are told."""
        runs = (Channels(self.width),) * len(self.names)
        layers = ["conv1", *([] if self.reduce.downsample is None else ["downsample.0"])]
        return Declaration(writes={"mask.2": runs}, reads={f"reduce.{name}": runs for name in layers})

    def forward(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Propagated maps (B, width, h, w) of every task."""
        joined = torch.cat([maps[name] for name in self.names], dim=1)
        shared = self.reduce(joined * self._softmax(self.mask(joined)))
        mean = shared.mean(dim=(2, 3))
        return {name: shared * self.excite[name](mean)[:, :, None, None] + maps[name] for name in self.names}

    def _softmax(self, logits: Tensor) -> Tensor:
        batch, _, height, width = logits.shape
        count = len(self.names)
        if self.mask_axis == "tasks":
            return logits.reshape(batch, count, -1, height, width).softmax(dim=1).reshape(logits.shape)
        return logits.reshape(batch, -1, count, height, width).softmax(dim=2).reshape(logits.shape)
