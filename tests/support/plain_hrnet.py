"""HRNet from plain tensor operations, on a state dict with timm's (and the authors') names."""

from __future__ import annotations

import torch
from plain import batch_norm, conv, count, same_conv
from plain_cnn import residual_block
from torch.nn import functional as F


class PlainHRNet:
    """Branches at strides 4, 8, 16, 32 of an image whose sides are multiples of 32.

    Args:
        w: tensors by name.
        prefix: of the network's names.
        mode: how fusions enlarge a map.
        norm: (map, tensors, name of a batch norm) to a map.
    """

    def __init__(self, w, prefix="", mode="bilinear", norm=batch_norm):
        self.w, self.prefix, self.mode, self.norm = w, prefix, mode, norm

    def conv_norm(self, x, conv_name, norm_name, **options):
        return self.norm(same_conv(x, self.w, conv_name, **options), self.w, norm_name)

    def blocks(self, x, name):
        for index in range(count(self.w, f"{name}.")):
            x = residual_block(x, self.w, f"{name}.{index}", norm=self.norm)
        return x

    def transition(self, maps, name):
        """Maps of the next stage: a new branch starts at the coarsest map, a 3x3 may change the width."""
        maps, coarsest = list(maps), maps[-1]
        for index in range(len(maps) + 1):
            part = f"{name}.{index}"
            if f"{part}.0.weight" in self.w:
                maps[index] = self.conv_norm(maps[index], f"{part}.0", f"{part}.1").relu()
            elif f"{part}.0.0.weight" in self.w:
                maps.append(self.conv_norm(coarsest, f"{part}.0.0", f"{part}.0.1", stride=2).relu())
        return maps

    def fuse(self, maps, name):
        result = []
        for i, target in enumerate(maps):
            total = torch.zeros_like(target)
            for j, x in enumerate(maps):
                part = f"{name}.{i}.{j}"
                if j > i:
                    x = self.norm(conv(x, self.w, f"{part}.0"), self.w, f"{part}.1")
                    align = {"align_corners": False} if self.mode == "bilinear" else {}
                    x = F.interpolate(x, target.shape[-2:], mode=self.mode, **align)
                for step in range(i - j):
                    x = self.conv_norm(x, f"{part}.{step}.0", f"{part}.{step}.1", stride=2)
                    x = x.relu() if step < i - j - 1 else x
                total = total + x
            result.append(total.relu())
        return result

    def __call__(self, image):
        x, at = image, self.prefix
        for index in (1, 2):
            x = self.conv_norm(x, f"{at}conv{index}", f"{at}bn{index}", stride=2).relu()
        maps = [self.blocks(x, f"{at}layer1")]
        for stage in (2, 3, 4):
            maps = self.transition(maps, f"{at}transition{stage - 1}")
            for module in range(count(self.w, f"{at}stage{stage}.")):
                part = f"{at}stage{stage}.{module}"
                maps = [self.blocks(x, f"{part}.branches.{index}") for index, x in enumerate(maps)]
                maps = self.fuse(maps, f"{part}.fuse_layers")
        return maps
