"""Checkpoint files: plain data, written atomically, refused with a clear message when they do not fit."""

from __future__ import annotations

import argparse
import json
import logging
import pickle
import re
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mtvision.core.files.foreign import ForeignError, cause, foreign_errors, stand_in_of
from mtvision.core.naming import ReportedError, UnknownNameError
from mtvision.core.non_finite import in_words, non_finite
from mtvision.runtime.atomic import atomic_file
from mtvision.runtime.launch import is_main_process
from mtvision.runtime.state_dicts import (
    AlignedState,
    FoundState,
    StateDictError,
    align,
    find_state,
    nearest_prefixes,
    network_state,
    of_another_type,
)
from mtvision.runtime.whole import (
    MANIFEST,
    HashedFile,
    damage,
    enter,
    is_entered,
    missing_fields,
    newest_whole,
    require_kinds,
)

_log = logging.getLogger("mtvision")

FORMAT = "mtvision-checkpoint-1"
NOTES = "mtvision"
"""Key under which other files hold what is known about the network, as JSON."""
_PLAIN_CLASSES = [argparse.Namespace]
"""Classes without behaviour that other training code stores beside weights; unpickling one runs nothing."""


_SHARD = re.compile(r"-([0-9]{5})-of-([0-9]{5})\.")
_JOIN = "Join the tensors of all parts in one file with safetensors.torch.save_file."


_CHANGED = "Something else than this suite has written or changed the file; use another checkpoint."


class CheckpointError(ReportedError, RuntimeError):
    """A checkpoint file cannot be read, or does not belong to the network it is loaded into."""


def to_plain(value: Any) -> Any:
    """Copy nested containers: tensors to the CPU, NumPy values as Python ones, for `weights_only=True`."""
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(to_plain(item) for item in value)
    return value


@dataclass(frozen=True)
class Saved:
    """A checkpoint that is on the disk.

    Args:
        path: of the file.
        size: bytes.
        seconds: that writing took.
    """

    path: Path
    size: int
    seconds: float

    def __str__(self) -> str:
        unit, divisor = ("GB", 1e9) if self.size >= 1e9 else ("MB", 1e6)
        return f"checkpoint {self.path.name}: {self.size / divisor:.2f} {unit} in {self.seconds:.1f} s"


def save_checkpoint(path: Path, content: Mapping[str, Any], *, entered: bool = False) -> Saved:
    """Write a checkpoint; a crash at any moment leaves the old file or the new one, never half of one.

    Args:
        path: of the file.
        content: plain data and tensors.
        entered: enter its SHA-256 in the folder's manifest (`mtvision.runtime.whole`). A file that has an
            entry already gets the new one in any case.

    Raises:
        OSError: the file or the manifest cannot be written.
    """
    begun = time.monotonic()
    with atomic_file(path) as file:
        hashed = HashedFile(file)
        torch.save({"format": FORMAT, **content}, hashed)  # type: ignore[arg-type]
        if entered or is_entered(path):
            enter(path, hashed.sha256, hashed.size)
    return Saved(path, hashed.size, time.monotonic() - begun)


def save_network(path: Path, state: Mapping[str, Any], meta: Mapping[str, Any]) -> Saved:
    """Write a network alone, its tensors named as in a run's checkpoints.

    Args:
        path: of the file.
        state: {name: tensor} of the network.
        meta: what is known about it.
    """
    named = {f"network.{name}": item for name, item in to_plain(state).items()}
    return save_checkpoint(path, {"meta": meta, "state_dict": named})


def checkpoint_file(path: str | Path) -> Path:
    """The file of `FILE` or `FILE#PART`, where PART names one of several state dicts in it."""
    return _file_and_part(path)[0]


def _file_and_part(path: str | Path) -> tuple[Path, str | None]:
    text = str(path)
    if "#" not in text or Path(text).exists():
        return Path(text), None
    file, _, part = text.rpartition("#")
    return Path(file), part


def load_checkpoint(path: str | Path, *, examined: bool = False) -> dict[str, Any]:
    """Read a checkpoint of this suite, or weights of other code (`.safetensors`, `.pth`).

    A state dict may lie in a wrapper (`{"model": ...}`, `{"ema": {"module": ...}}`). Where a file has
    several, `FILE#PART` names one of them.

    Args:
        path: of the file.
        examined: the caller has found it whole already; a large file is not read twice.

    Returns:
        A dict with at least `state_dict` (tensors on the CPU) and `meta`. `found` says what was unwrapped,
        where something was.

    Raises:
        FileNotFoundError: no such file.
        UnknownNameError: PART is not in the file.
        CheckpointError: the file is truncated, damaged, not a checkpoint, holds pickled code, several state
            dicts, or weights that are NaN or infinite.
    """
    file, part = _usable_file(path, examined=examined)
    content = _read(file, part)
    state = content["state_dict"]
    found = non_finite((str(key), value) for key, value in state.items())
    if found:
        raise CheckpointError(
            f"checkpoint {file}: {in_words(found, len(state))} are NaN or infinite; what such a network "
            "predicts means nothing. Use an earlier checkpoint."
        )
    return content


def load_meta(path: str | Path, *, examined: bool = False) -> dict[str, Any]:
    """`meta` of a checkpoint, whose tensors are mapped and not read.

    Arguments and exceptions are those of `load_checkpoint`, which also looks at the values of the weights.
    """
    file, part = _usable_file(path, examined=examined)
    meta: dict[str, Any] = _read(file, part, mapped=zipfile.is_zipfile(file))["meta"]
    return meta


def _usable_file(path: str | Path, *, examined: bool) -> tuple[Path, str | None]:
    """The file and the part that `path` names, if the file can be a whole checkpoint."""
    file, part = _file_and_part(path)
    if not file.exists():
        raise FileNotFoundError(f"checkpoint {file} does not exist.")
    other = stand_in_of(file)
    if other is not None:
        raise CheckpointError(f"checkpoint {file}: {other}")
    if file.name.endswith(".index.json"):
        raise CheckpointError(f"checkpoint {file} is the index of a checkpoint in parts. {_JOIN}")
    if not examined:
        _require_whole(file)
    return file, part


def _require_whole(file: Path) -> None:
    """Refuse a file that is not what was written, by its entry in the manifest or its own checksums."""
    problem = damage(file)
    if not problem:
        return
    advice = "Use an earlier one, or copy it again."
    if is_entered(file):
        advice += f" If you replaced it on purpose, remove its entry from {file.parent / MANIFEST}."
    raise CheckpointError(f"checkpoint {file} is damaged: it {problem}. {advice}")


def _read(file: Path, part: str | None, *, mapped: bool = False) -> dict[str, Any]:
    if file.suffix == ".safetensors" or _is_safetensors(file):
        return _unwrapped(_load_safetensors(file), file, part)
    try:
        with (
            foreign_errors(pickle.UnpicklingError),
            torch.serialization.safe_globals(_PLAIN_CLASSES),  # type: ignore[arg-type]
        ):
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        if "global" not in str(error).lower():  # no foreign class named: not a pickle at all
            raise CheckpointError(_unreadable(file, error)) from error
        raise CheckpointError(
            f"checkpoint {file} is refused: it holds more than tensors and plain data, which is not loaded "
            f"because it could run code ({_torch_cause(error)}). Convert it in an environment you trust."
        ) from error
    except ForeignError as foreign:
        raise CheckpointError(_unreadable(file, foreign.error)) from foreign.error
    if not isinstance(content, dict) or not content:
        raise CheckpointError(
            f"checkpoint {file} holds a {type(content).__name__}, expected a dict of tensors."
        )
    return _unwrapped(content, file, part)


def _unwrapped(content: dict[str, Any], file: Path, part: str | None) -> dict[str, Any]:
    """The content with the weights under `state_dict`."""
    if content.get("format") == FORMAT and part is None:
        known = {"meta": {}, **content}
        try:
            require_kinds(known)
        except ValueError as error:
            raise CheckpointError(f"checkpoint {file}: {error} {_CHANGED}") from error
        absent = missing_fields(known, ("state_dict", "meta"))
        if absent:
            raise CheckpointError(f"checkpoint {file} has no {' and no '.join(absent)}. {_CHANGED}")
        return known
    try:
        found: FoundState = find_state(content, part)
    except StateDictError as error:
        raise CheckpointError(f"checkpoint {file}: {error}".replace("FILE#", f"{file}#")) from error
    except UnknownNameError as error:
        error.args = (f"checkpoint {file}: {error}",)
        raise
    meta = content.get("meta")
    kept = {"meta": meta if isinstance(meta, Mapping) else {}, "state_dict": found.tensors}
    return {**kept, "found": found.in_words()} if found.in_words() else kept


def _unreadable(file: Path, error: Exception) -> str:
    return (
        f"checkpoint {file} ({file.stat().st_size} bytes) is truncated or not a checkpoint: "
        f"{_torch_cause(error)}. Use an earlier one, or copy it again."
    )


def _torch_cause(error: Exception) -> str:
    """Why torch did not load a file, without its advice to let the file run code."""
    text = str(error)
    named = re.search(r"GLOBAL ([\w.]+)", text)
    if named:
        return f"it names {named[1]}"
    if "TorchScript" in text:
        return (
            "a TorchScript archive, expected tensors, as torch.save(network.state_dict(), FILE) writes them"
        )
    if ".tar format" in text:
        return "a tar archive, or torch's format before 2018; unpack it"
    if text.startswith("Weights only load failed") or isinstance(error, LookupError):
        return "no pickle of tensors"
    return cause(error)


def _is_safetensors(file: Path) -> bool:
    """Whether a file of any name begins as the format does: bytes of the header, then the header, as JSON."""
    with file.open("rb") as content:
        start = content.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") < file.stat().st_size


def _load_safetensors(file: Path) -> dict[str, Any]:
    """The tensors, and as `meta` what this suite noted about them."""
    from safetensors import safe_open

    try:
        with foreign_errors(), safe_open(str(file), framework="pt") as content:  # type: ignore[no-untyped-call]
            state = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118  not a mapping
            notes = json.loads((content.metadata() or {}).get(NOTES, "{}"))
            if not isinstance(notes, dict):
                raise ValueError("its note 'mtvision' is no JSON object")
    except ForeignError as foreign:
        raise CheckpointError(
            f"checkpoint {file} ({file.stat().st_size} bytes) is truncated or not a safetensors file: "
            f"{cause(foreign.error)}. Copy it again."
        ) from foreign.error
    return {"format": FORMAT, "meta": notes, "state_dict": state} if notes else state


def network_tensors(checkpoint: Mapping[str, Any], own: Mapping[str, Any], path: str | Path) -> AlignedState:
    """A checkpoint's tensors under a network's names. What was unwrapped or removed is said in one log line.

    Args:
        checkpoint: from `load_checkpoint`.
        own: state dict of the network.
        path: of the file, for messages.

    Raises:
        CheckpointError: several parts of the file fit the network.
    """
    try:
        aligned = align(network_state(checkpoint), own)
    except StateDictError as error:
        raise CheckpointError(
            f"checkpoint {path}: {error}".replace("FILE#", f"{checkpoint_file(path)}#")
        ) from error
    said = [text for text in (checkpoint.get("found", ""), aligned.in_words()) if text]
    if said and is_main_process():
        _log.warning("%s: %s.", path, "; ".join(said))
    return aligned


def load_network_weights(network: nn.Module, checkpoint: Mapping[str, Any], path: str | Path) -> None:
    """Put a checkpoint's weights into a network, strictly.

    Accepts the training module's keys (`network.…`), a bare network's keys, and those with a prefix of other
    code in front.

    Raises:
        CheckpointError: keys or shapes differ; the message counts and shows them and says what was trained.
    """
    own = network.state_dict()
    state = network_tensors(checkpoint, own, path).tensors
    common = sorted(set(own) & set(state))
    missing, unexpected = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    types = [key for key in common if of_another_type(state[key], own[key])]
    shapes = [
        f"{key}: {tuple(state[key].shape)} in the file, {tuple(own[key].shape)} in the network"
        for key in common
        if key not in types and isinstance(own[key], Tensor) and state[key].shape != own[key].shape
    ]
    problems = {
        "missing": missing,
        "unexpected": unexpected,
        "of another shape": shapes,
        "of another type": [f"{key} ({_type(state[key])} for {_type(own[key])})" for key in types],
    }
    if any(problems.values()):
        lines = [f"checkpoint {path} is of another architecture than the config's network."]
        for title, items in problems.items():
            if items:
                more = f", … ({len(items)} in all)" if len(items) > 5 else ""
                lines.append(f"  {len(items)} {title}: {', '.join(items[:5])}{more}")
        if not common:
            lines.append(f"  {nearest_prefixes(state, own)}")
        trained = checkpoint["meta"].get("architecture")
        if trained:
            lines.append(f"  The file was trained as {json.dumps(trained)[:600]}")
        shard = _SHARD.search(str(path))
        remedy = "Use the config it was trained with (it lies beside the checkpoint)."
        if shard and missing:
            remedy = f"The file is part {int(shard[1])} of {int(shard[2])}. {_JOIN}"
        lines.append(f"  {remedy}")
        raise CheckpointError("\n".join(lines))
    network.load_state_dict(state)


def _type(value: Any) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    kinds = [str(value.dtype)] + ([str(value.layout)] if value.layout != torch.strided else [])
    return " ".join(item.removeprefix("torch.") for item in kinds)


def find_checkpoint(work_dir: Path) -> Path:
    """The newest whole checkpoint of a work dir.

    Raises:
        CheckpointError: there is none; the message names those that are damaged.
    """
    newest, damaged = newest_whole(work_dir)
    if newest is None:
        found = "".join(f"\n  {path.name} {problem}" for path, problem in damaged.items())
        raise CheckpointError(
            f"no checkpoint iter_*.pth in {work_dir} is whole:{found}"
            if found
            else f"no checkpoint iter_*.pth in {work_dir}."
        )
    return newest.path
