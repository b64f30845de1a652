"""What a config may say about transforms, checked without importing one."""

from __future__ import annotations

from typing import Any

from mtvision.core.naming import gathering
from mtvision.core.registry import PIPELINE
from mtvision.core.registry.entries import check_kind


def check_transforms(config: Any) -> None:
    """Refuse what `build_pipeline` cannot build.

    Raises:
        UnknownNameError: unknown preset, transform or option.
        TypeError, ValueError: neither a preset's name, `{"preset": name, **options}` nor a
            list of transforms.
        ConfigError: several of these.
    """
    with gathering("transforms") as found, found.at("transforms"):
        check_kind(found, config, PIPELINE)
