"""A checkpoint with the config and the tasks that it holds; what commands and `mtvision.load` begin with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtvision.models.network import Network
from mtvision.protocols import Protocol
from mtvision.recipe.building import trained_network
from mtvision.recipe.config import RunConfig, load_config
from mtvision.recipe.from_checkpoint import config_of_checkpoint
from mtvision.recipe.settings import protocol_of, task_names
from mtvision.runtime.checkpoint import load_checkpoint
from mtvision.share.source import Source, find_source


@dataclass(frozen=True)
class OpenCheckpoint:
    """A checkpoint that was read; its network is not built yet.

    Args:
        source: where it is.
        content: of the file, see `load_checkpoint`.
        config: of its training, or the one that was given.
        protocol: its tasks.
    """

    source: Source
    content: Mapping[str, Any]
    config: RunConfig
    protocol: Protocol

    def network(self) -> tuple[Network, dict[str, Any]]:
        """The network in evaluation mode, and the checkpoint's `meta`.

        Raises:
            CheckpointError: the weights are of another architecture than the config's network.
        """
        return trained_network(
            self.config, self.protocol, self.source.file, other_tasks=True, content=self.content
        )


def open_checkpoint(
    source: str | Path,
    *,
    config: str | Path | RunConfig | None = None,
    options: Sequence[str] = (),
    plugins: Sequence[str] = (),
    tasks: str | Sequence[str] | None = None,
) -> OpenCheckpoint:
    """Read a checkpoint and its config.

    Args:
        source: see `mtvision.share.source.find_source`.
        config: for weights without a config: the one they were trained with.
        options: `key=value`, as `--cfg-options`.
        plugins: as `--plugin`.
        tasks: only these.

    Raises:
        FileNotFoundError, CheckpointError, ShareError: no such checkpoint, or it cannot be used.
        ValueError, PluginError, UnknownNameError: mistakes in config, options or tasks.
    """
    found = find_source(source)
    content = load_checkpoint(found.file)
    if config is None:
        config = config_of_checkpoint(content, found.file, options, plugins, trusted=found.trusted)
    elif not isinstance(config, RunConfig):
        config = load_config(config, options, plugins)
    if tasks is not None:
        config = config.with_options({"tasks": task_names(tasks)})
    return OpenCheckpoint(found, content, config, protocol_of(config))
