"""Teachers: encoders that are never trained and are in no checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mtvision.core.naming import UnknownNameError
from mtvision.core.pyramid import size_of
from mtvision.core.registry import BACKBONES


class FrozenTeachers:
    """Encoders by name, in evaluation mode and without gradients.

    They are no submodule of anything, so that checkpoints and optimizers do not see them. Weights that are
    drawn depend on `seed` alone, so that a resumed run has the same teachers.

    Args:
        configs: {name: entry of a backbone}.
        sides: {name: longer side in pixels to which its images are resized}.
        seed: of weights that are drawn.

    Raises:
        UnknownNameError: `sides` names a teacher that is not there.
    """

    def __init__(
        self, configs: Mapping[str, Mapping[str, Any]], sides: Mapping[str, int], seed: int = 0
    ) -> None:
        for name in sides:
            if name not in configs:
                raise UnknownNameError("teacher in DistillStep.sides", name, list(configs))
        self.sides = dict(sides)
        self.encoders: dict[str, Any] = {}  # backbones, which this layer does not know
        for place, (name, config) in enumerate(configs.items()):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed + place)
                self.encoders[name] = BACKBONES.build(dict(config)).eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, name: str, image: Tensor) -> list[Tensor]:
        """Maps (B, C, h, w) of a teacher, fine to coarse, of the whole cells inside the image.

        Args:
            name: of the teacher.
            image: normalised RGB (B, 3, H, W).
        """
        encoder = self.encoders[name].to(image.device, image.dtype)
        if name in self.sides:
            height, width = size_of(image)
            factor = self.sides[name] / max(height, width)
            size = (int(height * factor + 0.5), int(width * factor + 0.5))
            image = F.interpolate(image, size, mode="bicubic", align_corners=False)
        pyramid = encoder(image)
        size = size_of(image)
        return [
            whole_cells(item, stride, size)
            for item, stride in zip(pyramid.maps, pyramid.strides, strict=True)
        ]


def whole_cells(feature: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """The part of a map whose cells lie inside an image of `size`; backbones pad images."""
    height, width = (max(1, side // stride) for side in size)
    return feature[..., :height, :width]
