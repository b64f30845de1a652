"""Swin Transformer as the multi-task papers use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from timm.models.swin_transformer import SwinTransformerBlock, window_partition, window_reverse
from torch import Tensor, nn
from torch.nn import functional as F

from mtvision.core.registry import BACKBONES
from mtvision.core.values import Share
from mtvision.models.backbones.names import TimmName
from mtvision.models.backbones.timm_backbone import TimmBackbone


@BACKBONES.register_module()
class SwinBackbone(TimmBackbone):
    """timm's Swin with two details of mmsegmentation's Swin, which MTMamba's checkpoints need.

    The original Swin pads a map to whole windows and then shifts it; timm shifts first. Both agree where no
    padding is needed; at 448x576, 512x512 or 512x1024 with window 12 they do not (differences up to 0.5 on
    random weights). The original also keeps shifting maps no larger than a window. Every level gets a
    LayerNorm of its own, which pre-trained weights do not hold.

    Args:
        name: timm name of a Swin, e.g. `swin_large_patch4_window12_384.ms_in22k_ft_in1k`.
        pretrained: as in `TimmBackbone`.
        pad_before_shift: False = timm's order.
        drop_path_rate: stochastic depth, rising linearly over the blocks.
        level_norms: a LayerNorm for every level.
        options: as in `TimmBackbone`.

    Raises:
        UnknownNameError: timm has no such model.
        ValueError: the model is not a Swin.
    """

    def __init__(
        self,
        name: TimmName,
        *,
        pretrained: bool | str | Path = False,
        pad_before_shift: bool = True,
        drop_path_rate: Share = 0.1,
        level_norms: bool = True,
        **options: Any,
    ) -> None:
        if not name.startswith("swin_"):
            raise ValueError(f"SwinBackbone: '{name}' is not a Swin v1; use TimmBackbone for other models.")
        options = {"always_partition": pad_before_shift, "drop_path_rate": drop_path_rate, **options}
        super().__init__(name, pretrained=pretrained, level_norms=level_norms, **options)
        for name, block in list(self.model.named_modules()):
            if pad_before_shift and type(block) is SwinTransformerBlock:
                self.model.set_submodule(name, PadFirstBlock(block))


class PadFirstBlock(SwinTransformerBlock):
    """timm's block with padding before the shift.

    Args:
        block: timm's, whose layers, buffers and options it takes over.
    """

    def __init__(self, block: SwinTransformerBlock) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(block.__dict__)

    def _attn(self, x: Tensor) -> Tensor:
        _, height, width, channels = x.shape
        bottom, right = (
            -side % window for side, window in zip((height, width), self.window_size, strict=True)
        )
        x = F.pad(x, (0, 0, 0, right, 0, bottom))
        shift = tuple(self.shift_size)
        if any(shift):
            x = torch.roll(x, shifts=(-shift[0], -shift[1]), dims=(1, 2))
        padded = (height + bottom, width + right)
        # The padding carries no mask, as in the original: windows at the border attend to it.
        mask = self.get_attn_mask(x) if self.dynamic_mask else self.attn_mask
        windows = window_partition(x, self.window_size).view(-1, self.window_area, channels)
        windows = self.attn(windows, mask=mask).view(-1, *self.window_size, channels)
        x = window_reverse(windows, self.window_size, *padded)
        if any(shift):
            x = torch.roll(x, shifts=shift, dims=(1, 2))
        return x[:, :height, :width].contiguous()
