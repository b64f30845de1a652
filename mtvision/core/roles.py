"""Which losses reach which parameter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

SHARED = "shared"
ARCHITECTURE = "architecture"
BALANCER = "balancer"


def task_role(name: str) -> str:
    """Role of a parameter that only task `name` uses."""
    return f"task:{name}"


def find_roles(
    losses: Mapping[str, Tensor],
    parameters: Iterable[tuple[str, nn.Parameter]],
    overrides: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Name each trainable parameter's role from one dry run.

    A parameter that two or more losses reach is `shared`, one that a single loss reaches is
    `task:<name>`, one that none reaches is left out (it is dead for these tasks). With a single task
    everything is `task:<name>`.

    Args:
        losses: {task: scalar} of one forward pass. Their graph is kept, nothing is written to `.grad`.
        parameters: `(name, parameter)` pairs; frozen ones are skipped.
        overrides: {glob pattern of parameter names: role}; the first that matches wins.
    """
    named = [(name, item) for name, item in parameters if item.requires_grad]
    reached_by: dict[str, list[str]] = {name: [] for name, _ in named}
    for task, loss in losses.items():
        if not loss.requires_grad:
            continue
        gradients = torch.autograd.grad(
            loss, [item for _, item in named], retain_graph=True, allow_unused=True, materialize_grads=False
        )
        for (name, _), gradient in zip(named, gradients, strict=True):
            if gradient is not None:
                reached_by[name].append(task)
    roles = {}
    for name, tasks in reached_by.items():
        forced = next((role for glob, role in (overrides or {}).items() if fnmatchcase(name, glob)), None)
        if forced is not None:
            roles[name] = forced
        elif tasks:
            roles[name] = SHARED if len(tasks) > 1 else task_role(tasks[0])
    return roles
