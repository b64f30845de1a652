"""Checkpoint files: official ones to ours, ours back, and both into a module."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file as load_safetensors
from safetensors.torch import save_file as save_safetensors
from torch import Tensor, nn

from mtvision.core.files.arrays import zip_damage
from mtvision.core.files.foreign import ForeignError, cause, foreign_errors
from mtvision.core.naming import look_up
from mtvision.models.convert.conversion import Report, convert, revert
from mtvision.models.convert.layouts import LAYOUTS
from mtvision.models.convert.rules import ConversionError
from mtvision.runtime.atomic import atomic_file, atomic_path
from mtvision.runtime.state_dicts import StateDictError, find_state


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a checkpoint file. Nothing is unpickled but tensors and plain containers.

    Args:
        path: `.safetensors`, or anything `torch.load(weights_only=True)` takes. The state dict may lie in a
            wrapper, see `mtvision.runtime.state_dicts`.

    Raises:
        FileNotFoundError: there is no such file.
        ConversionError: it is damaged, needs code to be unpickled, or holds no tensors or several networks.
    """
    if not path.is_file():
        raise FileNotFoundError(f"No checkpoint at {path.absolute()}.")
    content: Any
    try:
        with foreign_errors():
            damage = zip_damage(path)
            if damage is not None:
                raise ValueError(damage)
            if path.suffix == ".safetensors":
                content = load_safetensors(path)
            else:
                content = torch.load(path, map_location="cpu", weights_only=True)
    except ForeignError as foreign:
        raise _unreadable(path, foreign.error) from foreign.error
    if not isinstance(content, Mapping):
        raise ConversionError(f"{path}: holds no tensors but a {type(content).__name__}.")
    try:
        found = find_state(content)
    except StateDictError as error:
        raise ConversionError(f"{path}: holds no tensors to convert: {error}") from error
    return {key: value for key, value in found.tensors.items() if isinstance(value, Tensor)}


def convert_file(source: str, read: Path, write: Path, *, reverse: bool = False) -> Report:
    """Convert a file.

    Args:
        source: one of `SOURCES`: the layout of the file read, or with `reverse` of the one written.
        read: checkpoint to read.
        write: file to write. To ours: `.safetensors` with metadata (source, sha256 of the file read, what was
            dropped). Back: a `.pth` laid out as the authors' files are.
        reverse: from ours to theirs.

    Raises:
        UnknownNameError: no such source.
        FileNotFoundError: nothing to read.
        FileExistsError: the file to write exists.
        ConversionError: the file is not what was said, or `write` has a wrong ending.
    """
    layout = look_up("checkpoint source", source, LAYOUTS)
    if write.exists():
        raise FileExistsError(f"{write} exists. Remove it or choose another name.")
    ending = ".pth" if reverse else ".safetensors"
    if write.suffix != ending:
        raise ConversionError(f"{write}: this direction writes {ending} files; end the name with that.")
    tensors = read_tensors(read)
    if reverse:
        state, report = revert(tensors, source)
        with atomic_file(write) as file:
            torch.save({layout.wrapper: {layout.prefix + key: value for key, value in state.items()}}, file)
        return report
    state, report = convert(tensors, source)
    metadata = {
        "source": source,
        "read": read.name,
        "sha256": hashlib.sha256(read.read_bytes()).hexdigest(),
        "dropped": json.dumps(dict(report.dropped)),
    }
    with atomic_path(write) as temporary:
        save_safetensors({key: item.contiguous().clone() for key, item in state.items()}, temporary, metadata)
    return report


def load_into(backbone: nn.Module, path: Path, source: str, fresh: Sequence[str] = ()) -> Report:
    """Load an official or a converted checkpoint into a backbone, strictly.

    Args:
        backbone: gets the values of `backbone.` in our layout.
        path: either kind of file.
        source: layout of the official kind.
        fresh: prefixes of the backbone's own keys that are optional in a checkpoint.

    Raises:
        FileNotFoundError: there is no such file.
        ConversionError: it does not fit; the message names up to five keys.
    """
    state, report = convert(read_tensors(path), source)
    own = {key.removeprefix("backbone."): value for key, value in state.items()}
    target = backbone.state_dict()
    missing = sorted(key for key in target if key not in own and not key.startswith(tuple(fresh)))
    unfit = sorted(key for key in own if key not in target or own[key].shape != target[key].shape)
    if missing or unfit:
        raise ConversionError(
            f"{path}: not a checkpoint of this {type(backbone).__name__}. {len(missing)} tensors are missing "
            f"({', '.join(missing[:5])}), {len(unfit)} do not fit ({', '.join(unfit[:5])})."
        )
    backbone.load_state_dict(own, strict=False)
    return report


def _unreadable(path: Path, error: Exception) -> ConversionError:
    return ConversionError(
        f"{path}: cannot be read as tensors ({cause(error)}). Files that need code to be "
        "unpickled are refused: re-save the state dict alone with the code that made them."
    )
