"""Feature pyramids with four strides from the single stride of a plain ViT."""

from __future__ import annotations

from typing import Literal

from timm.layers.norm import LayerNorm2d
from torch import nn

PyramidKind = Literal["simple", "dpt"]
LEVELS = 4
_FINEST = 4
"""Smallest stride of a pyramid; a finer one would cost more than the encoder."""


def pyramid_scales(patch: int) -> tuple[float, ...]:
    """By what the map of a ViT is enlarged at every level, fine to coarse.

    Args:
        patch: pixels of a patch. 16 gives strides 4, 8, 16, 32; 14 gives 7, 14, 28, 56.

    >>> pyramid_scales(16), pyramid_scales(14)
    ((4.0, 2.0, 1.0, 0.5), (2.0, 1.0, 0.5, 0.25))
    """
    finest = next(up for up in (4, 2, 1) if up == 1 or (patch % up == 0 and patch // up >= _FINEST))
    return tuple(finest / 2**level for level in range(LEVELS))


def make_pyramid(kind: PyramidKind, channels: int, width: int, patch: int) -> nn.ModuleList:
    """A module for every level, from a map of the ViT to a map of another stride.

    Args:
        kind: `simple`, all levels of the last map (ViTDet, Li et al., ECCV 2022). `dpt`, each level of a map
            of its own (DPT, Ranftl et al., ICCV 2021).
        channels: of the ViT.
        width: of every level of the result.
        patch: pixels of a patch.
    """
    make = {"simple": SimpleLevel, "dpt": ReassembledLevel}[kind]
    return nn.ModuleList(make(channels, width, scale) for scale in pyramid_scales(patch))


class SimpleLevel(nn.Sequential):
    """A level of the simple feature pyramid: transposed convolutions or pooling, then two convolutions.

    Args:
        channels: that are read.
        width: that is written.
        scale: by what the map is enlarged.
    """

    def __init__(self, channels: int, width: int, scale: float) -> None:
        layers: list[nn.Module] = []
        if scale == 4:
            layers = [_enlarge(channels, channels // 2, 2), LayerNorm2d(channels // 2), nn.GELU()]
            channels //= 2
        if scale >= 2:
            layers.append(_enlarge(channels, channels // 2, 2))
            channels //= 2
        if scale < 1:
            layers.append(nn.MaxPool2d(round(1 / scale)))
        super().__init__(
            *layers,
            nn.Conv2d(channels, width, 1, bias=False),
            LayerNorm2d(width),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            LayerNorm2d(width),
        )


class ReassembledLevel(nn.Sequential):
    """A level as DPT reassembles it; decoders fuse the levels.

    Args:
        channels: that are read.
        width: that is written.
        scale: by what the map is enlarged.
    """

    def __init__(self, channels: int, width: int, scale: float) -> None:
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 1)]
        if scale > 1:
            layers.append(_enlarge(width, width, round(scale)))
        elif scale < 1:
            step = round(1 / scale)
            layers.append(nn.Conv2d(width, width, step + 1, stride=step, padding=step // 2))
        super().__init__(*layers, nn.Conv2d(width, width, 3, padding=1, bias=False))


def check_pyramid(name: str, *, plain: bool, levels: int, kind: PyramidKind, level_norms: bool) -> None:
    """Refuse a pyramid where it cannot be made.

    Raises:
        ValueError: the network has several strides already or no blocks, has other than four levels for
            `dpt`, or has norms of levels.
    """
    problem = ""
    if not plain:
        problem = "it is no plain ViT with blocks. Leave `pyramid` out, or choose e.g. vit_base_patch16_224"
    elif kind == "dpt" and levels != LEVELS:
        problem = f"'dpt' reads {LEVELS} levels, and {levels} are chosen. Give four block indices as `levels`"
    elif level_norms:
        problem = "its levels have norms of their own. Leave `level_norms` out"
    if problem:
        raise ValueError(f"timm model {name}: pyramid='{kind}' cannot be made: {problem}.")


def _enlarge(channels: int, width: int, scale: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(channels, width, scale, stride=scale)
