"""VMamba (Liu et al., NeurIPS 2024, arXiv 2401.10166): a hierarchical backbone of state-space blocks.

States are maps with channels last. Parameter names are those of the official code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtvision.core.naming import look_up
from mtvision.core.registry import BACKBONES
from mtvision.core.values import Positive, Share
from mtvision.models.backbones.backbone import Backbone
from mtvision.models.convert.files import load_into
from mtvision.models.layers.ss2d import NORM_EPS, VSSBlock


@dataclass(frozen=True)
class VMambaVariant:
    """One published size.

    Args:
        depths: blocks per stage.
        width: channels of the first stage; doubled from stage to stage.
        expansion: inner channels of the scan over the block's channels.
        drop_path: of the last block, rising linearly from 0.
        modern: the later blocks instead of the first ones. Later: "v05_noz" with one state, no gate, an MLP,
            convolutional stem and downsampling. First: "v0" with 16 states, a gate, no MLP, patch embedding
            and merging.
    """

    depths: tuple[int, ...]
    width: int
    expansion: float
    drop_path: float
    modern: bool


VARIANTS = {
    "vanilla_tiny": VMambaVariant((2, 2, 9, 2), 96, 2, 0.2, modern=False),
    "vanilla_small": VMambaVariant((2, 2, 27, 2), 96, 2, 0.3, modern=False),
    "vanilla_base": VMambaVariant((2, 2, 27, 2), 128, 2, 0.6, modern=False),
    "tiny_s2l5": VMambaVariant((2, 2, 5, 2), 96, 2, 0.2, modern=True),
    "small_s2l15": VMambaVariant((2, 2, 15, 2), 96, 2, 0.3, modern=True),
    "base_s2l15": VMambaVariant((2, 2, 15, 2), 128, 2, 0.6, modern=True),
    "tiny_s1l8": VMambaVariant((2, 2, 8, 2), 96, 1, 0.2, modern=True),
    "small_s1l20": VMambaVariant((2, 2, 20, 2), 96, 1, 0.3, modern=True),
    "base_s1l20": VMambaVariant((2, 2, 20, 2), 128, 1, 0.5, modern=True),
}
"""Published sizes. ImageNet top-1 of the authors: tiny_s1l8 82.6 %, small_s2l15 83.6 %, base_s2l15 83.9 %."""


@BACKBONES.register_module()
class VMambaBackbone(Backbone):
    """VMamba with a norm after each of four stages, strides 4 to 32; any image size.

    The first blocks ("v0") cut the image into patches of 4 x 4 pixels, so images are padded to whole patches.

    Args:
        variant: a key of `VARIANTS`.
        pretrained: path of an official checkpoint (`.pth`) or of one that `convert_checkpoint` made; None =
            random start. A classification checkpoint holds no norms of the levels; they start fresh.
        depths: other numbers of blocks per stage.
        width: other channels of the first stage.
        drop_path_rate: another rate of stochastic depth.
        grad_checkpointing: recompute blocks in the backward pass.

    Raises:
        UnknownNameError: no such variant.
        FileNotFoundError: no such checkpoint.
        ValueError: the checkpoint belongs to another architecture.
    """

    def __init__(
        self,
        variant: str = "tiny_s1l8",
        *,
        pretrained: str | Path | None = None,
        depths: Sequence[Positive] | None = None,
        width: Positive | None = None,
        drop_path_rate: Share | None = None,
        grad_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        chosen = look_up("VMamba variant", variant, VARIANTS)
        counts = tuple(depths or chosen.depths)
        widths = [(width or chosen.width) * 2**index for index in range(len(counts))]
        top = chosen.drop_path if drop_path_rate is None else drop_path_rate
        rates = iter(torch.linspace(0, top, sum(counts), device="cpu").tolist())
        self.grad_checkpointing = grad_checkpointing
        self.patch_embed = _conv_stem(widths[0]) if chosen.modern else _patch_stem(widths[0])
        self.size_multiple = 1 if chosen.modern else 4
        self.layers = nn.ModuleList()
        for index, (count, channels) in enumerate(zip(counts, widths, strict=True)):
            stage = nn.Module()
            stage.blocks = nn.Sequential(*(_block(chosen, channels, next(rates)) for _ in range(count)))
            if index + 1 < len(widths):
                stage.downsample = _conv_down(channels) if chosen.modern else PatchMerging(channels)
            self.layers.append(stage)
            self.add_module(f"outnorm{index}", nn.LayerNorm(channels, eps=NORM_EPS))
        self.exits = tuple(sum(counts[: index + 1]) + index for index in range(len(counts)))
        self.measure()
        if pretrained is not None:
            load_into(self, Path(pretrained), "vmamba", fresh=("outnorm",))

    def stem(self, image: Tensor) -> Tensor:
        """State (B, H/4, W/4, C)."""
        state: Tensor = self.patch_embed(self.pad(image))
        return state

    def block_names(self) -> list[str]:
        """Blocks, and each downsampling as a unit of its own."""
        names = []
        for index, stage in enumerate(self.layers):
            names += [f"layers.{index}.blocks.{name}" for name, _ in stage.blocks.named_children()]  # type: ignore[union-attr]
            names += [f"layers.{index}.downsample"] if index + 1 < len(self.layers) else []
        return names

    def to_map(self, state: Tensor, level: int, size: tuple[int, int]) -> Tensor:
        """The normed state, channels in front."""
        normed: Tensor = self.get_submodule(f"outnorm{level}")(state)
        return normed.permute(0, 3, 1, 2)

    def state_shape(self, state: Tensor, size: tuple[int, int]) -> tuple[int, int]:
        """(channels, stride) of a state."""
        return int(state.shape[3]), size[0] // int(state.shape[1])


class PatchMerging(nn.Module):
    """2 x 2 positions become one with twice the channels; odd maps are padded.

    Args:
        channels: read.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels, eps=NORM_EPS)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, C) to (B, h/2, w/2, 2C)."""
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        corners = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        merged: Tensor = self.reduction(self.norm(torch.cat(corners, dim=-1)))
        return merged


class _Permute(nn.Module):
    """Axes in another order; has no parameters, but a number in the official Sequential."""

    def __init__(self, *order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.order)


def _block(variant: VMambaVariant, channels: int, drop_path: float) -> VSSBlock:
    return VSSBlock(
        channels,
        expansion=variant.expansion,
        states=1 if variant.modern else 16,
        drop_path=drop_path,
        mlp_ratio=4.0 if variant.modern else 0.0,
        gate=not variant.modern,
        conv_bias=not variant.modern,
    )


def _norm(channels: int) -> nn.Module:
    return nn.LayerNorm(channels, eps=NORM_EPS)


def _patch_stem(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, channels, 4, stride=4), _Permute(0, 2, 3, 1), _norm(channels))


def _conv_stem(channels: int) -> nn.Sequential:
    half = channels // 2
    first, second = (nn.Conv2d(*sides, 3, stride=2, padding=1) for sides in ((3, half), (half, channels)))
    last, front = _Permute(0, 2, 3, 1), _Permute(0, 3, 1, 2)
    return nn.Sequential(first, last, _norm(half), front, nn.GELU(), second, last, _norm(channels))


def _conv_down(channels: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1)
    return nn.Sequential(_Permute(0, 3, 1, 2), conv, _Permute(0, 2, 3, 1), _norm(2 * channels))
