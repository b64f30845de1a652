"""Files with the trained part of a network alone, for networks on a frozen base."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtvision.models.network import Network
from mtvision.runtime.checkpoint import CheckpointError, load_checkpoint, save_checkpoint, to_plain
from mtvision.runtime.state_dicts import some


def trained_state(network: Network) -> dict[str, Tensor]:
    """Parameters that are trained, and buffers outside frozen modules."""
    still = frozen_names(network)
    return {name: item for name, item in network.state_dict().items() if name not in still}


def frozen_names(network: Network) -> frozenset[str]:
    """Names of the frozen parameters and of the buffers in frozen modules."""
    inside = tuple(f"{path}." for path in network.frozen_modules)
    parameters = {name for name, item in network.named_parameters() if not item.requires_grad}
    return frozenset(parameters | {name for name, _ in network.named_buffers() if name.startswith(inside)})


def save_trained(network: Network, path: str | Path) -> None:
    """Write what trains, with the architecture and a digest of the rest.

    Raises:
        ValueError: the network has no frozen parameter; an ordinary checkpoint does the same.
    """
    if not any(not item.requires_grad for item in network.parameters()):
        raise ValueError("save_trained: no parameter of the network is frozen. Save an ordinary checkpoint.")
    meta = {"architecture": network.architecture, "base": base_digest(network), "part": "trained"}
    save_checkpoint(Path(path), {"meta": to_plain(meta), "state_dict": to_plain(trained_state(network))})


def load_trained(network: Network, path: str | Path) -> None:
    """Put a file of `save_trained` onto a network whose base has its weights already.

    Args:
        network: of the same architecture, with the same frozen weights.
        path: the file.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: the file is of another architecture or of another base, or holds other tensors.
    """
    content = load_checkpoint(path)
    meta, state = content["meta"], content["state_dict"]
    if "base" not in meta:
        raise CheckpointError(
            f"checkpoint {path} is no file of `save_trained`. Load it as a whole checkpoint."
        )
    difference = _difference(meta["architecture"], json.loads(json.dumps(network.architecture)))
    if difference:
        raise CheckpointError(
            f"checkpoint {path}: {difference}. Build the network with the architecture in the file's `meta`."
        )
    own = trained_state(network)
    unfit = [name for name in own.keys() | state.keys() if _shape(own, name) != _shape(state, name)]
    if unfit:
        raise CheckpointError(
            f"checkpoint {path}: {len(unfit)} tensors are missing, left over or of another shape: "
            f"{some(sorted(unfit))}. Freeze the same parameters as in training."
        )
    if meta["base"] != base_digest(network):
        raise CheckpointError(
            f"checkpoint {path} was trained on other frozen weights. Load the base's weights first, e.g. "
            "backbone.pretrained=True with the same name."
        )
    network.load_state_dict(state, strict=False)


def base_digest(network: Network) -> str:
    """SHA-256 over names, types, shapes and values of everything frozen."""
    digest = hashlib.sha256()
    state = network.state_dict()
    for name in sorted(frozen_names(network) & state.keys()):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


def _shape(state: dict[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(state[name].shape) if name in state else None


def _difference(there: Any, here: Any, path: str = "architecture") -> str:
    """The first place where two plain values differ; empty if they do not."""
    if isinstance(there, dict) and isinstance(here, dict):
        pairs = [(f"{path}.{key}", there.get(key), here.get(key)) for key in {**there, **here}]
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        pairs = [
            (f"{path}[{index}]", one, other)
            for index, (one, other) in enumerate(zip(there, here, strict=True))
        ]
    else:
        return "" if there == here else f"{path} is {there!r} in the file and {here!r} in the network"
    return next((found for name, one, other in pairs if (found := _difference(one, other, name))), "")
