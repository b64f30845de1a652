"""Networks away from their initial values, so that a wrong formula shows."""

from __future__ import annotations

import torch


def disturb(module):
    """Weights and running statistics that no formula can get right by accident."""
    with torch.no_grad():
        for item in module.parameters():
            item.add_(torch.randn_like(item) * 0.2)
        for name, item in module.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                item.copy_(torch.rand_like(item) + 0.5)
    return module
