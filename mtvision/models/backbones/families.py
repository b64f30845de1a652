"""Rules that cut timm's architectures into stem, blocks and exits.

One small class per family of architectures; every method gets the timm model, none keeps it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from timm.models.convnext import ConvNeXt
from timm.models.efficientnet import EfficientNet
from timm.models.mobilenetv3 import MobileNetV3
from timm.models.resnet import ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn


class Family:
    """Cutting rules of one family. The default methods suit networks whose states are NCHW maps."""

    classes: tuple[type[nn.Module], ...] = ()

    def size_multiple(self, model: Any) -> int:
        """Images are padded to a multiple of this; 1 where the network's own padding loses no border."""
        return 1

    def stem(self, model: Any, image: Tensor) -> Tensor:
        """State before the first block."""
        raise NotImplementedError

    def units(self, model: Any) -> list[list[str]]:
        """Names of the blocks, grouped by timm's feature levels; the first group precedes level 0."""
        raise NotImplementedError

    def to_map(self, model: Any, state: Tensor, size: tuple[int, int]) -> Tensor:
        """NCHW map of a state of an image of (padded) size `size`."""
        return state

    def shape(self, model: Any, state: Tensor, size: tuple[int, int]) -> tuple[int, int]:
        """(channels, stride) of a state."""
        feature = self.to_map(model, state, size)
        return int(feature.shape[1]), size[0] // int(feature.shape[2])


def _children(model: nn.Module, path: str) -> list[str]:
    """Paths of what runs inside a stage; modules without effect are left out."""
    stage = model.get_submodule(path)
    return [f"{path}.{name}" for name, child in stage.named_children() if not isinstance(child, nn.Identity)]


class ResNetFamily(Family):
    """ResNet, ResNeXt, SE-ResNet, ...: level 0 is the stem, then the pooling and four stages of blocks."""

    classes = (ResNet,)

    def stem(self, model: Any, image: Tensor) -> Tensor:
        """First convolution, stride 2."""
        state: Tensor = model.act1(model.bn1(model.conv1(image)))
        return state

    def units(self, model: Any) -> list[list[str]]:
        """`maxpool` belongs to the first stage."""
        stages = [_children(model, f"layer{index}") for index in (1, 2, 3, 4)]
        return [[], ["maxpool", *stages[0]], *stages[1:]]


class MobileFamily(Family):
    """EfficientNet, MobileNet v1-v4, MNASNet, ...: levels are the last stages before a stride."""

    classes = (EfficientNet, MobileNetV3)

    def stem(self, model: Any, image: Tensor) -> Tensor:
        """First convolution, stride 2."""
        state: Tensor = model.bn1(model.conv_stem(image))
        return state

    def units(self, model: Any) -> list[list[str]]:
        """`stage_ends[i]` stages have run at level i."""
        stages = [_children(model, f"blocks.{index}") for index in range(len(model.blocks))]
        starts = [0, *model.stage_ends]
        return [
            [name for stage in stages[start:end] for name in stage]
            for start, end in zip(starts, model.stage_ends, strict=False)
        ]


class ConvNeXtFamily(Family):
    """ConvNeXt v1, v2: patch convolutions without padding, so borders must be multiples of the stride."""

    classes = (ConvNeXt,)

    def size_multiple(self, model: Any) -> int:
        """The coarsest stride."""
        return int(model.feature_info[-1]["reduction"])

    def stem(self, model: Any, image: Tensor) -> Tensor:
        """Patch convolution, stride 4 (2 or more convolutions in some variants)."""
        state: Tensor = model.stem(image)
        return state

    def units(self, model: Any) -> list[list[str]]:
        """A stage's downsampling is a unit of its own."""
        return [_stage(model, f"stages.{index}") for index in range(len(model.stages))]


class SwinFamily(Family):
    """Swin v1: NHWC states; windows and patch merging pad by themselves."""

    classes = (SwinTransformer,)

    def size_multiple(self, model: Any) -> int:
        """The patch size."""
        return math.lcm(*model.patch_embed.patch_size)

    def stem(self, model: Any, image: Tensor) -> Tensor:
        """Patch embedding, (B, H/4, W/4, C)."""
        state: Tensor = model.patch_embed(image)
        return state

    def units(self, model: Any) -> list[list[str]]:
        """A stage's patch merging is a unit of its own."""
        return [_stage(model, f"layers.{index}") for index in range(len(model.layers))]

    def to_map(self, model: Any, state: Tensor, size: tuple[int, int]) -> Tensor:
        """A view with the channels in front."""
        return state.permute(0, 3, 1, 2)


class ViTFamily(Family):
    """Plain ViT, DeiT, DINOv2, CLIP image towers: token states (B, prefix + h*w, C), one stride."""

    classes = (VisionTransformer,)

    def size_multiple(self, model: Any) -> int:
        """The patch size."""
        return math.lcm(*model.patch_embed.patch_size)

    def stem(self, model: Any, image: Tensor) -> Tensor:
        """Patch embedding plus position embedding, resampled to the image's grid."""
        tokens: Tensor = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(image))))
        return tokens

    def units(self, model: Any) -> list[list[str]]:
        """One level after each transformer block."""
        return [[f"blocks.{index}"] for index in range(len(model.blocks))]

    def to_map(self, model: Any, state: Tensor, size: tuple[int, int]) -> Tensor:
        """Class, register and distillation tokens are dropped."""
        height, width = (
            side // patch for side, patch in zip(size, model.patch_embed.patch_size, strict=True)
        )
        patches = state[:, model.num_prefix_tokens :]
        feature: Tensor = patches.transpose(1, 2).reshape(len(state), -1, height, width)
        return feature


FAMILIES: tuple[Family, ...] = (ResNetFamily(), MobileFamily(), ConvNeXtFamily(), SwinFamily(), ViTFamily())
"""Architectures with blocks. Any other timm model works too, as one piece."""


def family_of(model: nn.Module) -> Family | None:
    """Cutting rules of a timm model; None if it has none."""
    return next((family for family in FAMILIES if isinstance(model, family.classes)), None)


def default_levels(reductions: Sequence[int]) -> list[int]:
    """Default choice of timm's feature levels for the pyramid.

    Networks with several strides: those from stride 4 on, at most the last four. Networks with one
    stride: four at equal distances, the last block included (2, 5, 8, 11 of 12).
    """
    count = len(reductions)
    if len(set(reductions)) == 1:
        return [(index + 1) * count // 4 - 1 for index in range(4)] if count >= 4 else list(range(count))
    return [index for index, stride in enumerate(reductions) if stride >= 4][-4:]


def _stage(model: nn.Module, path: str) -> list[str]:
    """Units of a stage that is `downsample` and then `blocks`."""
    downsample = model.get_submodule(f"{path}.downsample")
    first = [] if isinstance(downsample, nn.Identity) else [f"{path}.downsample"]
    return first + _children(model, f"{path}.blocks")
