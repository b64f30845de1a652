"""The config that a checkpoint was trained with, from the checkpoint itself."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtvision.recipe.config import RunConfig, load_config
from mtvision.runtime.atomic import write_text
from mtvision.runtime.checkpoint import CheckpointError


def config_of_checkpoint(
    content: Mapping[str, Any], path: str | Path, options: Sequence[str] = (), plugins: Sequence[str] = ()
) -> RunConfig:
    """The config in a checkpoint's `meta`.

    Args:
        content: of the checkpoint, as `load_checkpoint` returns it.
        path: of the checkpoint, for messages.
        options: `--cfg-options`.
        plugins: `--plugin`.

    Raises:
        CheckpointError: the checkpoint holds no config.
        ValueError, PluginError, UnknownNameError: the config in it cannot be used here.
    """
    text = content["meta"].get("config")
    if not isinstance(text, str) or not text.strip():
        raise CheckpointError(
            f"checkpoint {path} holds weights only, no config. Name the config that it was trained with: "
            "--config CONFIG."
        )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config_in_checkpoint.py"
        write_text(file, text)
        return load_config(file, options, plugins)
