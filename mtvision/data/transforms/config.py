"""What a config may say about transforms, checked without importing one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtvision.core.naming import UnknownNameError
from mtvision.core.registry import PRESETS, TRANSFORMS


def check_transforms(config: Any) -> None:
    """Refuse what `build_pipeline` cannot build.

    Raises:
        UnknownNameError: unknown preset, transform or option.
        TypeError: neither a preset's name, `{"preset": name, **options}` nor a list of transforms.
    """
    if isinstance(config, Mapping) and "preset" in config:
        _check_preset(config["preset"], config)
    elif isinstance(config, str):
        _check_preset(config, {})
    elif isinstance(config, Mapping) or not isinstance(config, Sequence):
        raise TypeError(
            f"transforms: expected a preset's name, dict(preset=name, ...) or a list, got {config!r}."
        )
    else:
        for item in config:
            check_transform(item)


def check_transform(config: Any) -> None:
    """Refuse what `build_transform` cannot build.

    Raises:
        UnknownNameError, TypeError: as `check_transforms`.
    """
    if isinstance(config, Mapping) and "type" not in config:
        raise TypeError(f"transforms: expected a dict with the key 'type', got {dict(config)!r}.")
    if isinstance(config, Mapping):
        TRANSFORMS.check(config)
    elif not callable(config):
        raise TypeError(f"transforms: expected a dict with the key 'type' or a transform, got {config!r}.")


def _check_preset(name: Any, config: Mapping[str, Any]) -> None:
    known = list(PRESETS.parameters(name))[1:]  # the first one is the protocol
    for option in config:
        if option != "preset" and option not in known:
            raise UnknownNameError(f"option of the preset '{name}'", option, known)
