"""From a config to its network."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mtvision.models.factory import build_network
from mtvision.models.network import Network
from mtvision.models.partial import load_partly
from mtvision.protocols import Protocol
from mtvision.recipe.config import RunConfig
from mtvision.recipe.settings import protocol_of, to_plain_data
from mtvision.runtime.checkpoint import CheckpointError, load_checkpoint, load_network_weights

_log = logging.getLogger("mtvision")
_HEAD = re.compile(r"(?:^|\.)heads\.(\w+)\.")  # behind `network.`, `module.` or nothing


def network_of(config: Mapping[str, Any], protocol: Protocol) -> Network:
    """The config's network, with freshly initialised (or the config's pretrained) weights."""
    if not config["model"]:
        raise ValueError("config: 'model' is missing; expected dict(backbone=..., decoder=..., head=...).")
    return _formatted(build_network(to_plain_data(config["model"]), protocol.tasks), config)


def _formatted(network: Network, config: Mapping[str, Any]) -> Network:
    """The network in the memory format that `training.channels_last` asks for."""
    if config["training"]["channels_last"]:
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
    return network


def without_pretrained(model: Mapping[str, Any]) -> dict[str, Any]:
    """The model config with every `pretrained` switched off: its weights come from a checkpoint."""
    plain: dict[str, Any] = to_plain_data(model)
    backbone = plain.get("backbone")
    if isinstance(backbone, dict) and "pretrained" in backbone:
        backbone["pretrained"] = False
    return plain


def start_from(network: Network, path: str, *, partly: bool = False) -> None:
    """Give a network the weights of a checkpoint before it is trained.

    Args:
        network: gets the weights.
        path: `training.load_from`.
        partly: load what fits and report the rest, see `mtvision.models.partial`.

    Raises:
        FileNotFoundError, CheckpointError: the file is absent, unreadable or of another architecture.
    """
    content = load_checkpoint(path)
    if partly:
        load_partly(network, content, path)
        return
    try:
        load_network_weights(network, content, path)
    except CheckpointError as error:
        error.args = (f"{error}\n  training.load_partly=True loads what fits and reports the rest.",)
        raise


def trained_network(
    config: RunConfig,
    protocol: Protocol,
    checkpoint: str | Path,
    *,
    other_tasks: bool = False,
    content: Mapping[str, Any] | None = None,
) -> tuple[Network, dict[str, Any]]:
    """The config's network with a checkpoint's weights, in evaluation mode.

    Args:
        config: of the run.
        protocol: of the config.
        checkpoint: file with the weights.
        other_tasks: accept a checkpoint that has further tasks of the protocol. The network then has them
            too, because the tasks asked for may read them; a log line says so.
        content: of the file, where it was read already.

    Returns:
        The network and the checkpoint's `meta`.

    Raises:
        FileNotFoundError, CheckpointError: the file is absent, unreadable or of another architecture.
    """
    content = load_checkpoint(checkpoint) if content is None else content
    found = tasks_of_checkpoint(content, protocol)
    more = [name for name in found if name not in protocol.task_names]
    if more and other_tasks:
        config = config.with_options({"tasks": found})
        _log.warning(
            "%s also has the tasks %s; they are left out: only %s is read from the network.",
            checkpoint, ", ".join(more), ", ".join(protocol.task_names),
        )  # fmt: skip
        protocol = protocol_of(config)
    network = _formatted(build_network(without_pretrained(config["model"]), protocol.tasks), config)
    load_network_weights(network, content, checkpoint)
    return network.eval(), content["meta"]


def tasks_of_checkpoint(content: Mapping[str, Any], protocol: Protocol) -> list[str]:
    """Tasks of the protocol that a checkpoint has, as it says itself or as its heads tell.

    Args:
        content: of the file.
        protocol: possibly restricted to some tasks; the others count too.
    """
    names = content["meta"].get("tasks")
    if names is None:
        found = (_HEAD.search(str(key)) for key in content["state_dict"])
        names = {match[1] for match in found if match}
    return [name for name in protocol.known_tasks if name in names]
