"""Families of timm's architectures with several strides, and the list of all families with blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models.convnext import ConvNeXt
from timm.models.efficientnet import EfficientNet
from timm.models.hiera import Hiera, Reroll, Unroll
from timm.models.hieradet_sam2 import HieraDet
from timm.models.mambaout import MambaOut
from timm.models.mobilenetv3 import MobileNetV3
from timm.models.resnet import ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from torch import Tensor, nn
from torch.nn import functional as F

from mtvision.models.backbones.family import ChannelsLastFamily, Family, call_qkv
from mtvision.models.backbones.plain_families import (
    BeitFamily,
    EvaFamily,
    NaFlexFamily,
    SAMFamily,
    ViTFamily,
)


def _children(model: nn.Module, path: str) -> list[str]:
    """Paths of what runs inside a stage; modules without effect are left out."""
    stage = model.get_submodule(path)
    return [f"{path}.{name}" for name, child in stage.named_children() if not isinstance(child, nn.Identity)]


class ResNetFamily(Family):
    """ResNet, ResNeXt, SE-ResNet, ...: level 0 is the stem, then the pooling and four stages of blocks."""

    classes = (ResNet,)
    example = "resnet50"

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
    example = "efficientnet_b0"

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
    example = "convnext_tiny"

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


class SwinFamily(ChannelsLastFamily):
    """Swin v1: windows and patch merging pad by themselves."""

    classes: tuple[type[nn.Module], ...] = (SwinTransformer,)
    example = "swin_tiny_patch4_window7_224"

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


class SwinV2Family(SwinFamily):
    """Swin v2: windows and masks are those of timm, made for the size of each image."""

    classes = (SwinTransformerV2,)
    example = "swinv2_tiny_window8_256"

    def prepare(self, model: Any) -> None:
        """Let attention call its `qkv`, so that adapters on it are used."""
        for stage in model.layers:
            call_qkv(stage.blocks)

    def size_multiple(self, model: Any) -> int:
        """The coarsest stride."""
        return _coarsest(model)


class MambaOutFamily(ChannelsLastFamily):
    """MambaOut: stages of gated convolutions."""

    classes = (MambaOut,)
    example = "mambaout_tiny"

    def size_multiple(self, model: Any) -> int:
        """The coarsest stride."""
        return _coarsest(model)

    def stem(self, model: Any, image: Tensor) -> Tensor:
        """Two convolutions, stride 4, (B, H/4, W/4, C)."""
        state: Tensor = model.stem(image)
        return state

    def units(self, model: Any) -> list[list[str]]:
        """A stage's downsampling is a unit of its own."""
        return [_stage(model, f"stages.{index}") for index in range(len(model.stages))]


class HieraDetFamily(ChannelsLastFamily):
    """Hiera of SAM 2: windows pad by themselves; the first block of a stage pools."""

    classes = (HieraDet,)
    example = "sam2_hiera_tiny"

    def size_multiple(self, model: Any) -> int:
        """The coarsest stride, and the windows of the position embedding."""
        return math.lcm(_coarsest(model), 4 * int(model.window_spec[0]))

    def stem(self, model: Any, image: Tensor) -> Tensor:
        """Patch embedding plus position embedding, (B, H/4, W/4, C)."""
        state: Tensor = model._pos_embed(model.patch_embed(image))
        return state

    def units(self, model: Any) -> list[list[str]]:
        """Blocks of each stage."""
        return _by_stage(model)


class HieraFamily(Family):
    """Hiera: tokens (B, h*w, C), ordered so that those of one window and of one pooling are neighbours."""

    classes = (Hiera,)
    example = "hiera_tiny_224"

    def size_multiple(self, model: Any) -> int:
        """The coarsest stride, and the mask units."""
        units = [a * b for a, b in zip(model.mask_unit_size, model.patch_stride, strict=True)]
        return math.lcm(_coarsest(model), *units)

    def stem(self, model: Any, image: Tensor) -> Tensor:
        """Patch embedding plus position embedding, resampled to the image's grid, in the model's order."""
        size = (image.shape[2], image.shape[3])
        grid = [side // stride for side, stride in zip(size, model.patch_stride, strict=True)]
        tokens = model.patch_embed(image) + self._positions(model, grid)
        ordered: Tensor = Unroll(size, model.patch_stride, model.unroll.schedule)(tokens)
        return ordered

    def units(self, model: Any) -> list[list[str]]:
        """Blocks of each stage."""
        return _by_stage(model)

    def to_map(self, model: Any, state: Tensor, size: tuple[int, int]) -> Tensor:
        """The order of the image again; the number of tokens tells how often they were pooled."""
        rows, columns = (side // stride for side, stride in zip(size, model.patch_stride, strict=True))
        poolings = round(math.log(rows * columns / state.shape[1], math.prod(model.q_stride)))
        schedule = model.unroll.schedule
        order = Reroll(size, model.patch_stride, schedule, model.stage_ends, model.q_pool)
        feature: Tensor = order(state, model.stage_ends[poolings])
        return feature.permute(0, 3, 1, 2)

    def _positions(self, model: Any, grid: Sequence[int]) -> Tensor:
        """(1, h*w, C)."""
        if model.pos_embed_win is None:
            positions: Tensor = resample_abs_pos_embed(
                model.pos_embed, list(grid), list(model.tokens_spatial_shape), num_prefix_tokens=0
            )
            return positions
        windows = [side // unit for side, unit in zip(grid, model.mask_unit_size, strict=True)]
        tiles = model.pos_embed_win.tile(windows)
        whole = F.interpolate(model.pos_embed, size=tiles.shape[-2:], mode="bicubic", antialias=True)
        return torch.add(whole, tiles).flatten(2).transpose(1, 2)


FAMILIES: tuple[Family, ...] = (
    ResNetFamily(),
    MobileFamily(),
    ConvNeXtFamily(),
    SwinFamily(),
    SwinV2Family(),
    HieraFamily(),
    HieraDetFamily(),
    MambaOutFamily(),
    SAMFamily(),
    ViTFamily(),
    EvaFamily(),
    NaFlexFamily(),
    BeitFamily(),
)
"""Architectures with blocks. Any other timm model works too, as one piece."""


def family_of(model: nn.Module) -> tuple[Family | None, str]:
    """Cutting rules of a timm model and, if it has none, why, as far as that is known."""
    family = next((item for item in FAMILIES if isinstance(model, item.classes)), None)
    refusal = "" if family is None else family.refusal(model)
    return (None if refusal else family), refusal


def examples(*, plain: bool) -> list[str]:
    """timm names of models with blocks, of one stride or of several."""
    return [family.example for family in FAMILIES if family.plain == plain]


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


def _by_stage(model: Any) -> list[list[str]]:
    """Units of a list of blocks in which some end a stage."""
    starts = [0, *(end + 1 for end in model.stage_ends)]
    return [
        [f"blocks.{index}" for index in range(start, end + 1)]
        for start, end in zip(starts, model.stage_ends, strict=False)
    ]


def _coarsest(model: Any) -> int:
    return int(model.feature_info[-1]["reduction"])
