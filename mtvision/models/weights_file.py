"""Weights with what is known about them in one safetensors file, which `load_checkpoint` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mtvision.runtime.atomic import write_bytes
from mtvision.runtime.checkpoint import NOTES

ENDING = ".safetensors"


def write_weights(path: Path, state: Mapping[str, Tensor], notes: Mapping[str, Any]) -> Path:
    """Write tensors and notes; the file holds no code.

    Args:
        path: of the file, `.safetensors`.
        state: {name: tensor} of a network.
        notes: JSON values, e.g. `config` (its text) and `tasks`. They become `meta` of a loaded checkpoint.

    Returns:
        The path.

    Raises:
        ValueError: another ending.
        TypeError: a note is no JSON value.
        OSError: the file cannot be written.
    """
    from safetensors.torch import save

    if path.suffix != ENDING:
        raise ValueError(f"{path}: weights with notes are a {ENDING} file; end the name with that.")
    tensors = {name: item.detach().cpu().contiguous().clone() for name, item in state.items()}
    metadata = {"format": "pt", NOTES: json.dumps(dict(notes), sort_keys=True)}
    write_bytes(path, save(tensors, metadata))  # its own `save_file` makes files that only the owner may read
    return path
