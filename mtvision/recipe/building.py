"""From a config to its network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mtvision.models.factory import build_network
from mtvision.models.network import Network
from mtvision.protocols import Protocol
from mtvision.recipe.settings import to_plain_data
from mtvision.runtime.checkpoint import load_checkpoint, load_network_weights


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


def trained_network(
    config: Mapping[str, Any], protocol: Protocol, checkpoint: str | Path
) -> tuple[Network, dict[str, Any]]:
    """The config's network with a checkpoint's weights, in evaluation mode.

    Returns:
        The network and the checkpoint's `meta`.

    Raises:
        FileNotFoundError, CheckpointError: the file is absent, unreadable or of another architecture.
    """
    content = load_checkpoint(checkpoint)
    network = _formatted(build_network(without_pretrained(config["model"]), protocol.tasks), config)
    load_network_weights(network, content, checkpoint)
    return network.eval(), content["meta"]
