"""Weights with everything that is needed to use them, in one safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtvision.models.weights_file import write_weights
from mtvision.runtime.checkpoint import CheckpointError, load_checkpoint
from mtvision.runtime.state_dicts import network_state

KEPT = ("config", "protocol", "tasks", "iter", "architecture", "licence", "width_table")
"""What the metadata say; states of a training are left out."""


def save_shared(
    path: Path, state: Mapping[str, Any], notes: Mapping[str, Any], *, half: bool = False
) -> Path:
    """Write weights and notes as one file that `load_checkpoint` reads.

    Args:
        path: of the file; `.safetensors`.
        state: {name: tensor} of the network.
        notes: JSON values: `config` (its text), `protocol`, `tasks`, `licence` and others.
        half: store real numbers in 16 bits; they are read as 32.

    Raises:
        ValueError: another ending, or a value beyond the range of 16 bits.
        OSError: it cannot be written.
    """
    tensors = {key: _stored(key, value, half) for key, value in state.items() if isinstance(value, Tensor)}
    return write_weights(path, tensors, notes)


def _stored(key: str, value: Tensor, half: bool) -> Tensor:
    """A tensor, in 16 bits where that is asked for."""
    if not half or not value.is_floating_point():
        return value
    stored = value.detach().to(torch.float16)
    if not bool(torch.isfinite(stored).all()):
        raise ValueError(f"{key} reaches {float(value.abs().max()):g}, beyond 16 bits. Leave out half=True.")
    return stored


def share_checkpoint(source: str, path: Path, *, licence: str | None = None, half: bool = False) -> Path:
    """Write the network of a checkpoint as a file for others, without the state of its training.

    Args:
        source: of the checkpoint, as `load_checkpoint` takes it.
        path: of the new file.
        licence: SPDX name of the weights' licence; None = that of the checkpoint, if it says one.
        half: as `save_shared`.

    Raises:
        CheckpointError: the checkpoint holds no config.
        FileNotFoundError, ValueError, OSError: it cannot be read or written.
    """
    content = load_checkpoint(source)
    if not content["meta"].get("config"):
        raise CheckpointError(
            f"checkpoint {source} holds no config, so that others could not use it. Load it with its config "
            "and save that: mtvision.load(FILE, config=CONFIG).save(PATH)."
        )
    notes = {key: content["meta"][key] for key in KEPT if content["meta"].get(key) is not None}
    if licence:
        notes["licence"] = licence
    return save_shared(path, network_state(content), notes, half=half)
