"""Transforms on raw samples: one code path for all tasks, by the geometry that each task declares."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from mtvision.core.naming import UnknownNameError, look_up
from mtvision.data.transforms.albumentations_adapter import AlbumentationsAdapter
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
from mtvision.data.transforms.presets import PRESETS
from mtvision.data.transforms.survey import FixedResize, ScaleNRotate
from mtvision.data.transforms.transform import Pipeline, Transform, TransformConfig
from mtvision.protocols import Protocol

TRANSFORMS: dict[str, Callable[..., Transform]] = {
    item.__name__: item
    for item in (
        AddIgnoreRegions,
        AlbumentationsAdapter,
        FixedResize,
        Normalize,
        PadImage,
        PhotoMetricDistortion,
        RandomCrop,
        RandomHorizontalFlip,
        RandomScale,
        RandomScaleCrop,
        ResizeImage,
        ResizeLabels,
        ScaleNRotate,
        ToBytes,
    )
}
"""Name -> class, for configs."""


def build_transform(config: Mapping[str, Any] | Transform) -> Transform:
    """One transform from `{"type": name, **options}`; an instance is returned as it is.

    Raises:
        UnknownNameError: unknown name or option.
        TypeError: neither a mapping with a `type` nor callable.
    """
    if not isinstance(config, Mapping):
        if callable(config):
            return config
        raise TypeError(f"transforms: expected a dict with the key 'type' or a transform, got {config!r}.")
    if "type" not in config:
        raise TypeError(f"transforms: expected a dict with the key 'type', got {dict(config)!r}.")
    given = {key: value for key, value in config.items() if key != "type"}
    kind = config["type"]
    factory = look_up("transform", kind, TRANSFORMS) if isinstance(kind, str) else kind
    known = inspect.signature(factory).parameters
    for name in given:
        if name not in known:
            raise UnknownNameError(f"{factory.__name__} argument", name, known)
    transform: Transform = factory(**given)
    return transform


def build_pipeline(config: TransformConfig, protocol: Protocol) -> Pipeline:
    """Pipeline of a preset's name, of `{"preset": name, **options}`, or of a sequence of transforms.

    Raises:
        UnknownNameError: unknown preset, transform or option.
        TypeError: something else was given.
    """
    if isinstance(config, str):
        config = {"preset": config}
    if isinstance(config, Mapping):
        if "preset" not in config:
            raise TypeError(
                f"transforms: expected a preset's name, dict(preset=name, ...) or a list, got "
                f"{dict(config)!r}."
            )
        options = {key: value for key, value in config.items() if key != "preset"}
        preset = look_up("transforms preset", config["preset"], PRESETS)
        known = list(inspect.signature(preset).parameters)[1:]
        for name in options:
            if name not in known:
                raise UnknownNameError(f"option of the preset '{config['preset']}'", name, known)
        return Pipeline(tuple(preset(protocol, **options)))
    return Pipeline(tuple(build_transform(item) for item in config))


__all__ = [
    "PRESETS",
    "TRANSFORMS",
    "Pipeline",
    "Transform",
    "TransformConfig",
    "build_pipeline",
    "build_transform",
]
