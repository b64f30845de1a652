"""Which tensors of a network its tasks share, and which belong to one of them."""

from __future__ import annotations

import torch

from mtvision.core.roles import SHARED, find_roles, task_of
from mtvision.models.dry_run import in_mode
from mtvision.models.network import Network


def parts_of(network: Network) -> dict[str, str]:
    """{tensor of the state dict: `shared`, or the only task that uses it}.

    Roles are those of `mtvision.core.roles`, from one dry run. Buffers, and parameters that no task reaches,
    follow the parameters of the nearest module around them.
    """
    device = next(network.parameters()).device
    image = torch.zeros(1, 3, *network.backbone.trial_size(), device=device)
    with in_mode(network, training=False), torch.device(device):
        output = network.outputs(image)
        losses = {name: item.sum() for name, item in output.logits.items()}
        for extra in output.auxiliary:
            losses[extra.task] = losses[extra.task] + extra.logits.sum()
        roles = find_roles(losses, network.named_parameters())
    known = {name: task_of(role) or SHARED for name, role in roles.items()}
    around: dict[str, set[str]] = {}
    for name, part in known.items():
        for prefix in _prefixes(name):
            around.setdefault(prefix, set()).add(part)
    found = {}
    for name in network.state_dict():
        near = next(around[prefix] for prefix in _prefixes(name) if prefix in around)
        found[name] = known.get(name) or (next(iter(near)) if len(near) == 1 else SHARED)
    return found


def _prefixes(name: str) -> list[str]:
    """`a.b`, `a`, `` of `a.b.c`."""
    pieces = name.split(".")[:-1]
    return [".".join(pieces[:count]) for count in range(len(pieces), -1, -1)]
