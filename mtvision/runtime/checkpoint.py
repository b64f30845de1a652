"""Checkpoint files: plain data, written atomically, refused with a clear message when they do not fit."""

from __future__ import annotations

import argparse
import json
import logging
import pickle
import random
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

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
)

_log = logging.getLogger("mtvision")

FORMAT = "mtvision-checkpoint-1"
_PLAIN_CLASSES = [argparse.Namespace]
"""Classes without behaviour that other training code stores beside weights; unpickling one runs nothing."""


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


def random_states() -> dict[str, Any]:
    """States of Python's, NumPy's, torch's and this process's CUDA generator, as plain data."""
    version, internal, gauss = random.getstate()
    states: dict[str, Any] = {
        "python": [version, list(internal), gauss],
        "numpy": to_plain(np.random.get_state(legacy=False)),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_states(states: Mapping[str, Any]) -> None:
    """Undo any drawing since `random_states` was called."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    numpy_state = dict(states["numpy"])
    key = np.asarray(numpy_state["state"]["key"], dtype=np.uint32)
    numpy_state["state"] = {**numpy_state["state"], "key": key}
    np.random.set_state(numpy_state)
    torch.set_rng_state(states["torch"].cpu())
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"].cpu())


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint; a crash at any moment leaves the old file or the new one, never half of one."""
    with atomic_file(path) as file:
        torch.save({"format": FORMAT, **content}, file)


def checkpoint_file(path: str | Path) -> Path:
    """The file of `FILE` or `FILE#PART`, where PART names one of several state dicts in it."""
    return _file_and_part(path)[0]


def _file_and_part(path: str | Path) -> tuple[Path, str | None]:
    text = str(path)
    if "#" not in text or Path(text).exists():
        return Path(text), None
    file, _, part = text.rpartition("#")
    return Path(file), part


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of this suite, or weights of other code (`.safetensors`, `.pth`).

    A state dict may lie in a wrapper (`{"model": ...}`, `{"ema": {"module": ...}}`). Where a file has
    several, `FILE#PART` names one of them.

    Returns:
        A dict with at least `state_dict` (tensors on the CPU) and `meta`. `found` says what was unwrapped,
        where something was.

    Raises:
        FileNotFoundError: no such file.
        UnknownNameError: PART is not in the file.
        CheckpointError: the file is truncated, not a checkpoint, holds pickled code, several state dicts, or
            weights that are NaN or infinite.
    """
    file, part = _file_and_part(path)
    if not file.is_file():
        raise FileNotFoundError(f"checkpoint {file} does not exist.")
    content = _read(file, part)
    state = content["state_dict"]
    found = non_finite((str(key), value) for key, value in state.items())
    if found:
        raise CheckpointError(
            f"checkpoint {file}: {in_words(found, len(state))} are NaN or infinite; what such a network "
            "predicts means nothing. Use an earlier checkpoint."
        )
    return content


def _read(file: Path, part: str | None) -> dict[str, Any]:
    if file.suffix == ".safetensors":
        return _unwrapped(_load_safetensors(file), file, part)
    try:
        with torch.serialization.safe_globals(_PLAIN_CLASSES):  # type: ignore[arg-type]
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "global" not in str(error).lower():  # no foreign class named: not a pickle at all
            raise CheckpointError(_unreadable(file, error)) from error
        raise CheckpointError(
            f"checkpoint {file} is refused: it holds more than tensors and plain data, which is not loaded "
            f"because it could run code ({str(error).splitlines()[0]}). Convert it in an environment you "
            "trust."
        ) from error
    except (RuntimeError, EOFError, OSError, zipfile.BadZipFile, ValueError, KeyError) as error:
        raise CheckpointError(_unreadable(file, error)) from error
    if not isinstance(content, dict) or not content:
        raise CheckpointError(
            f"checkpoint {file} holds a {type(content).__name__}, expected a dict of tensors."
        )
    return _unwrapped(content, file, part)


def _unwrapped(content: dict[str, Any], file: Path, part: str | None) -> dict[str, Any]:
    """The content with the weights under `state_dict`."""
    if content.get("format") == FORMAT and part is None:
        return {"meta": {}, **content}
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
        f"{str(error).splitlines()[0]}. Use an earlier one, or copy it again."
    )


def _load_safetensors(file: Path) -> dict[str, Any]:
    """The tensors, and as `meta` what this suite noted about them."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="pt") as content:  # type: ignore[no-untyped-call]
            state = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118  not a mapping
            notes = json.loads((content.metadata() or {}).get("mtvision", "{}"))
    except (SafetensorError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"checkpoint {file} ({file.stat().st_size} bytes) is truncated or not a safetensors file: "
            f"{error}."
        ) from error
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
    state = {str(key): value for key, value in checkpoint["state_dict"].items()}
    if any(key.startswith("network.") for key in state):  # a training module: network, balancer, step
        state = {key[len("network.") :]: value for key, value in state.items() if key.startswith("network.")}
    try:
        aligned = align(state, own)
    except StateDictError as error:
        raise CheckpointError(
            f"checkpoint {path}: {error}".replace("FILE#", f"{checkpoint_file(path)}#")
        ) from error
    said = [text for text in (checkpoint.get("found", ""), aligned.in_words()) if text]
    if said and is_main_process():
        _log.warning("%s: %s.", path, "; ".join(said))
    return aligned


def of_another_type(found: Any, own: Any) -> bool:
    """Whether a tensor's values cannot stand for another's: integers for real numbers, complex for real."""
    if not isinstance(found, Tensor) or not isinstance(own, Tensor):
        return isinstance(found, Tensor) != isinstance(own, Tensor)
    return (found.is_floating_point(), found.is_complex()) != (own.is_floating_point(), own.is_complex())


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
        lines.append("  Use the config it was trained with (it lies beside the checkpoint).")
        raise CheckpointError("\n".join(lines))
    network.load_state_dict(state)


def _type(value: Any) -> str:
    return str(value.dtype).removeprefix("torch.") if isinstance(value, Tensor) else type(value).__name__


def find_checkpoint(work_dir: Path) -> Path:
    """The newest readable checkpoint of a work dir.

    Raises:
        CheckpointError: there is none; resuming would silently start anew otherwise.
    """
    found = sorted(work_dir.glob("iter_*.pth"), key=lambda item: int(item.stem.split("_")[1]))
    for path in reversed(found):
        if zipfile.is_zipfile(path):
            return path
    raise CheckpointError(
        f"--resume: no checkpoint iter_*.pth in {work_dir}"
        + (f" is readable ({len(found)} found)." if found else ".")
        + " Check --work-dir, or start without --resume."
    )
