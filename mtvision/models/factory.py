"""Networks from plain data."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from torch import nn

from mtvision.core.naming import building
from mtvision.core.registry import ADAPTERS, BACKBONES, DECODERS, HEADS, Registry
from mtvision.core.task import Task
from mtvision.models.adapters.adapter import Adapter
from mtvision.models.backbones.backbone import Backbone
from mtvision.models.check import check_model
from mtvision.models.layers.names import TAKEN
from mtvision.models.network import Network


def build_network(cfg: Mapping[str, Any], tasks: Sequence[Task]) -> Network:
    """Build the network that a config, or a checkpoint's `architecture`, describes.

        backbone = dict(type="TimmBackbone", name="resnet18", pretrained=True)
        adapters = [...]                        # changes to backbone or network, in this order; optional
        decoder = dict(type="ParallelDecoder")
        head = dict(type="ConvHead")            # of every task without an entry in
        heads = dict(depth=dict(type="ConvHead", hidden=64))

    Args:
        cfg: as above. It is not modified.
        tasks: what the network predicts, in order.

    Raises:
        TypeError: a part is missing.
        UnknownNameError: a key, a type or an option does not exist.
        ValueError: a task has no head, or a name that torch does not allow; or an `architecture` was made
            for other tasks.
        ValueError: an adapter does not work behind those before it.
    """
    for task in tasks:
        if task.name in TAKEN or "." in task.name:
            raise ValueError(
                f"protocol.tasks.{task.name}: torch's modules cannot have this name. Choose another, e.g. "
                f"'{task.name.replace('.', '_')}_map' with type='{task.name}' or the fields it has."
            )
    heads = check_model(cfg, tasks)
    backbone = BACKBONES.build(cfg["backbone"])
    adapters = [ADAPTERS.build(item) for item in cfg.get("adapters") or ()]
    kept = [adapter.plain(item) for adapter, item in zip(adapters, cfg.get("adapters") or (), strict=True)]
    backbone = _adapted(backbone, adapters, tasks)
    decoder = DECODERS.build(
        cfg["decoder"], channels=backbone.channels, strides=backbone.strides, tasks=tuple(tasks)
    )
    modules = {
        task.name: HEADS.build(heads[task.name], in_channels=decoder.out_channels[task.name], task=task)
        for task in tasks
    }
    network = Network(backbone, decoder, modules, tasks, architecture=_architecture(cfg, heads, tasks, kept))
    for adapter in adapters:
        with building(f"adapter '{type(adapter).__name__}'"):
            adapter.complete(network)
    return network


def _adapted(backbone: Backbone, adapters: Sequence[Adapter], tasks: Sequence[Task]) -> Backbone:
    """The backbone after all adapters. One that freezes it leaves what those before add or train as it is."""
    added: dict[nn.Parameter, bool] = {}
    for adapter in adapters:
        before = dict(backbone.named_parameters())
        old = {id(item) for item in before.values()}
        base = {name for name, item in before.items() if item not in added}
        name = type(adapter).__name__
        try:
            with building(f"adapter '{name}'"):
                backbone = adapter.apply(backbone, tasks)
        except NotImplementedError as error:
            if adapter is adapters[0]:
                raise
            raise ValueError(f"{name} behind other adapters: {error} Or put {name} first.") from error
        for item, trains in added.items():
            item.requires_grad_(trains)
        added |= {
            item: True
            for name, item in before.items()
            if item.requires_grad and any(fnmatchcase(name, glob) for glob in adapter.train)
        }
        added |= {
            item: item.requires_grad
            for name, item in backbone.named_parameters()
            if id(item) not in old and not _ends_with_one_of(base, name)
        }
    return backbone


def _ends_with_one_of(base: Collection[str], name: str) -> bool:
    """Whether a parameter takes the place of one of these names, or is its copy in another module."""
    words = name.split(".")
    return any(".".join(words[start:]) in base for start in range(len(words)))


def _architecture(
    cfg: Mapping[str, Any],
    heads: Mapping[str, Mapping[str, Any]],
    tasks: Sequence[Task],
    adapters: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Plain data: strings, numbers, lists and dicts. Weights come from a state dict, so none are named."""
    backbone = _plain(cfg["backbone"], BACKBONES)
    if "pretrained" in backbone:
        backbone["pretrained"] = False
    return {
        "backbone": backbone,
        "adapters": [_plain(item, ADAPTERS) for item in adapters],
        "decoder": _plain(cfg["decoder"], DECODERS),
        "heads": {task.name: _plain(heads[task.name], HEADS) for task in tasks},
        "tasks": {task.name: task.out_channels for task in tasks},
    }


def _plain(value: Any, registry: Registry) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item, registry) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, registry) for item in value]
    if isinstance(value, type):
        known = registry.get(value.__name__) is value
        return value.__name__ if known else f"{value.__module__}.{value.__qualname__}"
    return str(value) if isinstance(value, Path) else value
