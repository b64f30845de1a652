"""Random state dicts with every kind of tensor."""

from __future__ import annotations

import torch

SHAPES = {
    "stages.0.conv.weight": (4, 3, 3, 3),
    "stages.0.norm.weight": (4,),
    "stages.0.norm.bias": (4,),
    "stages.1.linear.weight": (5, 7),
    "stages.1.scale": (),
}


def random_state(seed, *, near=None, dtype=torch.float32, spread=0.1):
    """A state dict; with `near`, one that was fine-tuned from it."""
    stream = torch.Generator().manual_seed(seed)
    state = {
        name: torch.randn(shape, generator=stream, dtype=torch.float64) for name, shape in SHAPES.items()
    }
    state["stages.0.norm.running_mean"] = torch.randn(4, generator=stream, dtype=torch.float64)
    state["stages.0.norm.running_var"] = torch.rand(4, generator=stream, dtype=torch.float64)
    if near is not None:
        state = {
            name: item if "running" in name else near[name].double() + spread * item
            for name, item in state.items()
        }
    state = {name: item.to(dtype) for name, item in state.items()}
    state["stages.0.norm.num_batches_tracked"] = torch.tensor(100 + seed)
    state["stages.1.index"] = torch.arange(6)
    return state


def weights(state):
    """The tensors that methods merge."""
    return {name: item for name, item in state.items() if item.is_floating_point() and "running" not in name}
