"""From a config to a network and the module around it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from mtvision.core.registry import BALANCERS, STEPS
from mtvision.core.task import Task
from mtvision.engine.checkpoint import load_checkpoint, load_network_weights
from mtvision.engine.module import TrainingModule
from mtvision.engine.settings import Settings, to_plain_data
from mtvision.models.factory import build_network
from mtvision.models.network import Network
from mtvision.protocols import Protocol


def network_of(config: Mapping[str, Any], protocol: Protocol) -> Network:
    """The config's network, with freshly initialised (or the config's pretrained) weights."""
    if not config["model"]:
        raise ValueError("config: 'model' is missing; expected dict(backbone=..., decoder=..., head=...).")
    return build_network(to_plain_data(config["model"]), protocol.tasks)


def without_pretrained(model: Mapping[str, Any]) -> dict[str, Any]:
    """The model config with every `pretrained` switched off: its weights come from a checkpoint."""
    plain: dict[str, Any] = to_plain_data(model)
    backbone = plain.get("backbone")
    if isinstance(backbone, dict) and "pretrained" in backbone:
        backbone["pretrained"] = False
    return plain


def trained_network(
    config: Config, protocol: Protocol, checkpoint: str | Path
) -> tuple[Network, dict[str, Any]]:
    """The config's network with a checkpoint's weights, in evaluation mode.

    Returns:
        The network and the checkpoint's `meta`.

    Raises:
        FileNotFoundError, CheckpointError: the file is absent, unreadable or of another architecture.
    """
    content = load_checkpoint(checkpoint)
    network = build_network(without_pretrained(config["model"]), protocol.tasks)
    load_network_weights(network, content, checkpoint)
    return network.eval(), content["meta"]


def tasks_with_losses(protocol: Protocol, options: Mapping[str, Mapping[str, Any]]) -> tuple[Task, ...]:
    """The protocol's tasks with some options of their losses replaced.

    Raises:
        UnknownNameError: options for a task that the protocol does not have.
    """
    for name in options:
        protocol.task(name)
    return tuple(
        replace(task, loss={**task.loss, **options[task.name]}) if task.name in options else task
        for task in protocol.tasks
    )


def training_module(config: Config, settings: Settings, network: Network) -> TrainingModule:
    """Network, losses, balancer and step of a config as one trainable module."""
    protocol, training = settings.protocol, settings.training
    balancer = BALANCERS.build(
        to_plain_data(config["balancer"]), tasks=protocol.task_names, default_weights=protocol.loss_weights
    )
    module = TrainingModule(
        network,
        tasks_with_losses(protocol, training.loss_options),
        balancer,
        STEPS.build(to_plain_data(config["step"])),
        micro_batches=training.micro_batches,
        role_overrides=training.role_overrides,
        evaluation_precision=settings.evaluation.precision,
    )
    if training.channels_last:
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module
