"""Training of the corrections of a merged backbone on held-out images (Representation Surgery)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mtvision.core.naming import UnknownNameError
from mtvision.core.random import HELD_OUT_SHARE, is_held_out
from mtvision.core.sample import Batch
from mtvision.merge.files import StateFile
from mtvision.merge.states import MergeError
from mtvision.models.adapters.surgery import CorrectedBackbone
from mtvision.models.backbones.backbone import Backbone
from mtvision.models.factory import build_network
from mtvision.models.network import Network
from mtvision.procedures.merge_images import held_out_batches, training_set
from mtvision.recipe.building import without_pretrained
from mtvision.recipe.config import RunConfig
from mtvision.recipe.settings import protocol_of, to_plain_data
from mtvision.runtime.checkpoint import save_network

_BACKBONE, _SHARED = "backbone.", "backbone.shared."


@dataclass(frozen=True, kw_only=True)
class SurgeryRequest:
    """What is trained, besides the config, which has the adapter `Surgery`.

    Args:
        merged: checkpoint of the merged network, without corrections.
        parents: {task: checkpoint of its single-task network}.
        out: the checkpoint to write.
        steps: per task.
        lr: of Adam.
        held_out: share of the training images that are read; their labels are not.
    """

    merged: Path
    parents: Mapping[str, str]
    out: Path
    steps: int = 1000
    lr: float = 1e-3
    held_out: float = HELD_OUT_SHARE


def operate(config: RunConfig, request: SurgeryRequest) -> dict[str, tuple[float, float]]:
    """Train corrections and write the corrected network; returns {task: loss at first, loss at last}.

    Raises:
        FileNotFoundError, CheckpointError: a file is absent, damaged or of another network.
        MergeError: the config has no adapter `Surgery` as its last one, or a task has no parent.
        UnknownNameError: a parent of no task.
        ValueError: no image is held out.
    """
    is_held_out("", request.held_out)  # refuses a share out of range
    protocol = protocol_of(config)
    for name in request.parents:
        if name not in protocol.task_names:
            raise UnknownNameError("task of --parents", name, protocol.task_names)
    lacking = [name for name in protocol.task_names if name not in request.parents]
    if lacking:
        raise MergeError(f"no parent of {', '.join(lacking)}; give the single-task network of every task.")
    model = without_pretrained(config["model"])
    network = build_network(model, protocol.tasks)
    if not isinstance(network.backbone, CorrectedBackbone):
        raise MergeError("the last of model.adapters must be dict(type='Surgery'), whose units are trained.")
    plain = {**model, "adapters": list(model.get("adapters") or ())[:-1]}
    bare = build_network(plain, protocol.tasks)
    merged = StateFile(request.merged, bare.state_dict())
    _load_merged(network, merged)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device).eval().requires_grad_(False)
    images = partial(held_out_batches, config, request.held_out, device, training_set(config))
    found = {}
    for task in protocol.task_names:
        teacher = build_network(plain, protocol.select([task]).tasks)
        file = StateFile(request.parents[task], teacher.state_dict())
        own = {name: file[name] for name in teacher.state_dict() if name.startswith(_BACKBONE)}
        teacher.load_state_dict(own, strict=False)
        teacher.to(device).eval().requires_grad_(False)
        found[task] = train_corrections(
            network.backbone, task, teacher.backbone, images, steps=request.steps, lr=request.lr
        )
    _write(config, network, request, merged.meta, found)
    return found


def train_corrections(
    backbone: CorrectedBackbone,
    task: str,
    teacher: Backbone,
    batches: Callable[[], Iterable[Batch]],
    *,
    steps: int,
    lr: float,
) -> tuple[float, float]:
    """Adam on the mean absolute difference from a teacher's maps, added over scales; all else stays.

    Args:
        backbone: whose corrections of the task are trained.
        task: which.
        teacher: backbone of the single-task network.
        batches: starts a pass over images.
        steps: of the optimizer.
        lr: of the optimizer.

    Returns:
        The loss of the first and of the last step.

    Raises:
        ValueError: there is no batch.
    """
    units: nn.ModuleList = backbone.corrections[task]  # type: ignore[assignment]
    units.requires_grad_(True)
    optimizer = torch.optim.Adam(units.parameters(), lr=lr)
    losses: list[float] = []
    for batch, _ in zip(chain.from_iterable(batches() for _ in repeat(None)), range(steps), strict=False):
        with torch.no_grad():
            shared = backbone.shared(batch.image).for_task(task).maps
            wanted = teacher(batch.image).for_task(task).maps
        corrected = [unit(item) for unit, item in zip(units, shared, strict=True)]
        differences = [(one - two).abs().mean() for one, two in zip(corrected, wanted, strict=True)]
        loss: Tensor = torch.stack(differences).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    units.requires_grad_(False)
    return losses[0], losses[-1]


def _load_merged(network: Network, merged: Mapping[str, Any]) -> None:
    """The merged weights in the network with corrections, whose own weights stay."""
    renamed = {
        _SHARED + name.removeprefix(_BACKBONE) if name.startswith(_BACKBONE) else name: merged[name]
        for name in merged
    }
    fresh = {name: item for name, item in network.state_dict().items() if ".corrections." in name}
    network.load_state_dict({**renamed, **fresh})


def _write(
    config: RunConfig,
    network: Network,
    request: SurgeryRequest,
    meta: Mapping[str, Any],
    found: Mapping[str, tuple[float, float]],
) -> None:
    about = {
        "config": config.text,
        "protocol": meta.get("protocol"),
        "tasks": list(network.task_names),
        "architecture": network.architecture,
        "merge": meta.get("merge"),
        "surgery": {
            "merged": str(request.merged),
            "parents": dict(request.parents),
            "steps": request.steps,
            "lr": request.lr,
            "held_out": request.held_out,
            "losses": to_plain_data({name: list(pair) for name, pair in found.items()}),
        },
    }
    save_network(request.out, network.state_dict(), about)
