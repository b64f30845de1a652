"""Which experts tokens go to, counted on some images."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mtvision.core.context import current_context
from mtvision.models.layers.experts.router import Router, Routing

EVERY = "all tasks"
"""Stands for the tasks where one pass serves all of them."""

Usage = dict[str, dict[str, list[float]]]
"""{path of a router: {task: share of the tokens' places of each expert}}; shares sum to 1."""


def expert_usage(network: nn.Module, image: Tensor) -> Usage:
    """How tokens are spread over experts, for every router and task.

    A token has as many places as experts per token. `mtvision.visualize.experts.plot_expert_usage` draws it.

    Args:
        network: with `MixtureOfExperts` or `PRISM`; it is in evaluation mode afterwards.
        image: normalised RGB (B, 3, H, W).

    Raises:
        ValueError: the network has no router.
    """
    routers = {path: item for path, item in network.named_modules() if isinstance(item, Router)}
    if not routers:
        raise ValueError("expert_usage: the network has no experts with a router, as MixtureOfExperts has.")
    found: dict[str, dict[str, Tensor]] = {path: {} for path in routers}

    def note(path: str, router: nn.Module, given: tuple[Any, ...], routing: Routing) -> None:
        del router, given
        chosen = routing.experts.flatten().bincount(minlength=routing.probabilities.shape[1])
        counts, task = found[path], current_context().task or EVERY
        counts[task] = counts.get(task, torch.zeros_like(chosen)) + chosen

    handles = [item.register_forward_hook(partial(note, path)) for path, item in routers.items()]
    network.eval()
    try:
        with torch.no_grad():
            network(image)
    finally:
        for handle in handles:
            handle.remove()
    return {
        path: {task: (item / item.sum()).tolist() for task, item in counts.items()}
        for path, counts in found.items()
    }
