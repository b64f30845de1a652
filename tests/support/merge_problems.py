"""Small problems for mergers that learn: linear maps of four pixels, with known answers."""

from __future__ import annotations

import torch

from mtvision.core.sample import Batch, Meta
from mtvision.merge.learned.problem import MergeProblem
from mtvision.protocols.tasks import semseg, values

TASKS = (semseg(("floor", "wall", "window")), values())
NAMES = tuple(task.name for task in TASKS)
SIZE = (2, 2)


def linear_state(seed, *, near=None, spread=0.3, dtype=torch.float64):
    """Two layers of a network with shared weights, and statistics that no output needs."""
    stream = torch.Generator().manual_seed(seed)
    shapes = {"mix.weight": (5, 3), "mix.bias": (5,), "out.weight": (4, 5)}
    state = {
        name: torch.randn(shape, generator=stream, dtype=torch.float64) for name, shape in shapes.items()
    }
    if near is not None:
        state = {name: near[name].double() + spread * item for name, item in state.items()}
    state["mix.running_mean"] = torch.randn(5, generator=stream, dtype=torch.float64)
    state = {name: item.to(dtype) for name, item in state.items()}
    state["mix.num_batches_tracked"] = torch.tensor(seed)
    return state


def predict(state, batch, names):
    """Logits of a shared layer of tanh, then three channels of classes and one value."""
    hidden = (
        torch.einsum("oc,bchw->bohw", state["mix.weight"], batch.image) + state["mix.bias"][:, None, None]
    )
    logits = torch.einsum("oc,bchw->bohw", state["out.weight"], torch.tanh(hidden))
    maps = {"semseg": logits[:, :3], "values": logits[:, 3:]}
    found = {name: maps[name] for name in names}
    return {name: item * state.get(f"heads.{name}.scale", 1.0) for name, item in found.items()}


def images(count=3, size=2, dtype=torch.float64, truth=None):
    """Batches of random images; labels are what the state `truth` predicts."""
    stream = torch.Generator().manual_seed(7)
    found = []
    for index in range(count):
        image = torch.randn(size, 3, *SIZE, generator=stream, dtype=torch.float64).to(dtype)
        meta = [Meta(id=f"{index}-{item}", size=SIZE, original_size=SIZE) for item in range(size)]
        batch = Batch(image=image, labels={}, present={}, meta=meta)
        if truth is not None:
            logits = predict(truth, batch, NAMES)
            batch.labels.update(semseg=logits["semseg"].argmax(dim=1), values=logits["values"])
            batch.present.update({name: torch.ones(size, dtype=torch.bool) for name in NAMES})
        found.append(batch)
    return found


def problem_of(batches, *, dtype=torch.float64, predict=predict, tasks=TASKS):
    """A problem whose heads are one factor each."""
    own = {task.name: {f"heads.{task.name}.scale": torch.ones((), dtype=dtype)} for task in tasks}
    return MergeProblem(tasks=tasks, predict=predict, batches=lambda: iter(batches), own=own)
