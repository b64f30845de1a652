"""The pipelines of the published protocols, and two plain ones, by name.

A preset is a function of the protocol (and options that a config may set) that returns the transforms in
order. Configs choose one by `transforms="name"` or `transforms=dict(preset="name", ...)`.
"""

from __future__ import annotations

from mtvision.core.registry import PRESETS
from mtvision.core.values import Rate
from mtvision.data.transforms.frame import Size
from mtvision.data.transforms.geometry import (
    RandomCrop,
    RandomHorizontalFlip,
    RandomScale,
    ResizeImage,
    ResizeLabels,
)
from mtvision.data.transforms.mtan import RandomScaleCrop
from mtvision.data.transforms.padding import AddIgnoreRegions, PadImage
from mtvision.data.transforms.photometric import Normalize, PhotoMetricDistortion, ToBytes
from mtvision.data.transforms.survey import FixedResize, ScaleNRotate
from mtvision.data.transforms.transform import Transform
from mtvision.protocols import Protocol

Zooms = tuple[Rate, ...]
_RAW = Normalize(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))  # 0..1, no ImageNet statistics
_SYMMETRIC = Normalize(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))  # -1..1


def _size(given: Size | None, size: Size | None, protocol: Protocol, what: str) -> Size:
    chosen = given or size
    if chosen is None:
        raise ValueError(
            f"protocol {protocol.id} has no {what}; give one: transforms=dict(preset=..., size=(height, "
            "width))."
        )
    return chosen


@PRESETS.register_module("tensor")
def tensor(_: Protocol) -> list[Transform]:
    """Normalise; sizes stay, so batches need images of one size."""
    return [Normalize()]


@PRESETS.register_module("light")
def light(protocol: Protocol, size: Size | None = None) -> list[Transform]:
    """Moderate augmentation for any data: zoom 0.75..1.5, crop, flip, colours; out comes `size`.

    `size` is the protocol's training size by default, and that of each image file where it has none.
    """
    size = size or protocol.train_size
    return [
        RandomScale(low=0.75, high=1.5),
        RandomCrop(size=size),
        ToBytes(clip=False),
        RandomHorizontalFlip(),
        PhotoMetricDistortion(brightness=24.0, contrast=(0.7, 1.3), saturation=(0.7, 1.3), hue=9),
        Normalize(),
        PadImage(size=size),
        AddIgnoreRegions(),
    ]


@PRESETS.register_module("pad")
def pad(protocol: Protocol, size: Size | None = None) -> list[Transform]:
    """Normalise and pad to `size`, by default the protocol's, so that images of any smaller size batch."""
    return [
        Normalize(),
        PadImage(size=_size(size, protocol.eval_size or protocol.train_size, protocol, "eval_size")),
    ]


@PRESETS.register_module("invpt-train")
def invpt_train(protocol: Protocol, size: Size | None = None) -> list[Transform]:
    """Family A: scale 0.5..2, crop, flip, colours, normalise, pad, ignore."""
    size = _size(size, protocol.train_size, protocol, "train_size")
    return [
        RandomScale(low=0.5, high=2.0),
        RandomCrop(size=size),
        ToBytes(clip=False),  # the cast that begins the colour changes; a flip of bytes is faster
        RandomHorizontalFlip(),
        PhotoMetricDistortion(),
        Normalize(),
        PadImage(size=size),
        AddIgnoreRegions(),
    ]


@PRESETS.register_module("invpt-eval")
def invpt_eval(protocol: Protocol, size: Size | None = None) -> list[Transform]:
    """Family A: normalise, pad, ignore; never resized."""
    size = size or protocol.eval_size
    padding: list[Transform] = [] if size is None else [PadImage(size=size)]
    return [Normalize(), *padding, AddIgnoreRegions()]


@PRESETS.register_module("survey-train")
def survey_train(
    protocol: Protocol,
    size: Size | None = None,
    rotation: float = 0.0,
    scale: tuple[float, float] = (1.0, 1.0),
    scales: Zooms = (1.0, 1.2, 1.5),
) -> list[Transform]:
    """Family B with NYUD's numbers: flip, zoom 1, 1.2 or 1.5, resize."""
    return [
        RandomHorizontalFlip(),
        ScaleNRotate(rotation=rotation, scale=scale, scales=scales),
        *survey_eval(protocol, _size(size, protocol.train_size, protocol, "train_size")),
    ]


@PRESETS.register_module("survey-pascal-train")
def survey_pascal_train(protocol: Protocol, size: Size | None = None) -> list[Transform]:
    """Family B with PASCAL's numbers: flip, rotation within 20 degrees, zoom 0.75..1.25, resize."""
    return survey_train(protocol, size, rotation=20.0, scale=(0.75, 1.25), scales=())


@PRESETS.register_module("survey-eval")
def survey_eval(protocol: Protocol, size: Size | None = None, labels: bool = True) -> list[Transform]:
    """Family B: resize, ignore, normalise.

    With `labels=False` labels stay in the file's resolution, for the scores that the papers print (batch size
    1).
    """
    size = _size(size, protocol.eval_size, protocol, "eval_size")
    return [FixedResize(size=size, labels=labels), AddIgnoreRegions(), ToBytes(), Normalize()]


@PRESETS.register_module("mtan-train")
def mtan_train(_: Protocol, scales: Zooms = (1.0, 1.2, 1.5)) -> list[Transform]:
    """Family C (Nash-MTL, FAMO; optional in MTAN): zooming crop, flip; image in 0..1."""
    return [RandomScaleCrop(scales=scales), RandomHorizontalFlip(), _RAW]


@PRESETS.register_module("mtan-eval")
def mtan_eval(_: Protocol) -> list[Transform]:
    """Family C: image in 0..1, nothing else; also MTAN's training without augmentation."""
    return [_RAW]


@PRESETS.register_module("autolambda-train")
def autolambda_train(
    protocol: Protocol, size: Size | None = None, scales: Zooms = (1.0, 1.2, 1.5)
) -> list[Transform]:
    """Auto-Lambda: zoom, untested crop, flip; image in -1..1."""
    size = _size(size, protocol.train_size, protocol, "train_size")
    return [
        RandomScale(scales=scales),
        RandomCrop(size=size, max_share=1.0),
        RandomHorizontalFlip(),
        _SYMMETRIC,
    ]


@PRESETS.register_module("autolambda-eval")
def autolambda_eval(_: Protocol) -> list[Transform]:
    """Auto-Lambda: image in -1..1."""
    return [_SYMMETRIC]


@PRESETS.register_module("mtmamba-cityscapes")
def mtmamba_cityscapes(protocol: Protocol, size: Size | None = None) -> list[Transform]:
    """Cityscapes of MTMamba, training and test: image resized, labels in full resolution, no augmentation."""
    return [ResizeImage(size=_size(size, protocol.train_size, protocol, "train_size")), Normalize()]


@PRESETS.register_module("taskprompter-cityscapes")
def taskprompter_cityscapes(_: Protocol, size: Size = (512, 1024)) -> list[Transform]:
    """Cityscapes-3D of TaskPrompter, training and test: labels resized to `size`, image in full
    resolution."""
    return [ResizeLabels(size=size), Normalize()]
