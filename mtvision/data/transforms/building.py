"""From configs to transforms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtvision.core.registry import PRESETS, TRANSFORMS
from mtvision.data.transforms.config import check_transforms
from mtvision.data.transforms.transform import Pipeline, Transform, TransformConfig
from mtvision.protocols import Protocol


def build_transform(config: Mapping[str, Any] | Transform) -> Transform:
    """One transform from `{"type": name, **options}`; an instance is returned as it is.

    Raises:
        UnknownNameError: unknown name or option.
        TypeError: neither a mapping with a `type` nor callable.
    """
    transform: Transform = config if callable(config) else TRANSFORMS.build(config)
    return transform


def build_pipeline(config: TransformConfig, protocol: Protocol) -> Pipeline:
    """Pipeline of a preset's name, of `{"preset": name, **options}`, or of a sequence of transforms.

    Raises:
        UnknownNameError: unknown preset, transform or option.
        TypeError: something else was given.
    """
    check_transforms(config)
    if isinstance(config, str):
        config = {"preset": config}
    if isinstance(config, Mapping):
        options = {key: value for key, value in config.items() if key != "preset"}
        return Pipeline(tuple(PRESETS[config["preset"]](protocol, **options)))
    return Pipeline(tuple(build_transform(item) for item in config))
