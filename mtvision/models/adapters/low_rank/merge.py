"""Changes become part of the weights: the network without its adapter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from mtvision.core.context import current_context, use_context
from mtvision.core.naming import UnknownNameError
from mtvision.core.registry import ADAPTERS
from mtvision.models.adapters.mergeable import MergeableAdapter, SharedChange, mergeable_layers
from mtvision.models.factory import build_network
from mtvision.models.layers.conditioned import is_conditioned
from mtvision.models.network import Network


def merge_into_weights(network: Network, task: str | None = None) -> Network:
    """A network without its adapters of updates that computes the same.

    Args:
        network: with adapters of the low-rank family, or with changes of weights; it stays as it is.
        task: whose updates are merged; needed where updates differ between tasks. The backbone of the result
            then serves this task, whichever logits are read.

    Returns:
        A network of the same classes without updates, in evaluation mode on the same device. Its
        `architecture` builds it again.

    Raises:
        UnknownNameError: the network has no such task.
        ValueError: there is nothing to merge, an update is not linear, or tasks differ and none is named.
    """
    layers = mergeable_layers(network)
    if not layers:
        raise ValueError(
            "merge_into_weights: the network has no layer with low-rank updates or other changes of weights. "
            "Use it as it is."
        )
    if task is not None and task not in network.task_names:
        raise UnknownNameError("task of this network", task, network.task_names)
    if any(is_conditioned(network.get_submodule(path)) for path in layers):
        _check_task(network, task)
    changes = tuple(f"{path}.{part}." for path, layer in layers.items() for part in layer.change_prefixes)
    changes += tuple(f"{path}." for path, item in network.named_modules() if isinstance(item, SharedChange))
    state = {name: item for name, item in network.state_dict().items() if not name.startswith(changes)}
    with torch.no_grad(), use_context(replace(current_context(), task=task)):
        for path, layer in layers.items():
            state |= {f"{path}.{name}": item for name, item in layer.merged(task).items()}
    kept = [item for item in network.architecture["adapters"] if not _is_merged(item)]
    plain = build_network({**network.architecture, "adapters": kept}, network.tasks)
    plain.to(next(network.parameters()))  # device and precision
    plain.load_state_dict(state)
    return plain.eval()


def _check_task(network: Network, task: str | None) -> None:
    if task is None:
        raise ValueError(
            "merge_into_weights: tasks have updates of their own, so one set of weights serves one task. "
            f"Name it, e.g. task='{network.task_names[0]}'."
        )
    passes = network.backbone.task_passes
    if passes is not None and passes.side:
        raise ValueError(
            "merge_into_weights: with side=True a task's result stands on the shared state, which one set of "
            "weights cannot hold as well. Keep the adapter."
        )


def _is_merged(entry: Mapping[str, Any]) -> bool:
    found = ADAPTERS.get(entry["type"])
    return isinstance(found, type) and issubclass(found, MergeableAdapter)
