"""Checkpoint files: plain data, written atomically, refused with a clear message when they do not fit."""

from __future__ import annotations

import json
import pickle
import random
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mtvision.core.naming import ReportedError
from mtvision.core.non_finite import in_words, non_finite
from mtvision.runtime.atomic import atomic_file

FORMAT = "mtvision-checkpoint-1"


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


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of this suite, or bare weights (`.safetensors`, a state dict in `.pth`).

    Returns:
        A dict with at least `state_dict` (tensors on the CPU) and `meta`.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: the file is truncated, not a checkpoint, holds pickled code, or weights that are NaN
            or infinite.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"checkpoint {file} does not exist.")
    content = _read(file)
    state = content["state_dict"]
    found = non_finite((str(key), value) for key, value in state.items())
    if found:
        raise CheckpointError(
            f"checkpoint {file}: {in_words(found, len(state))} are NaN or infinite; what such a network "
            "predicts means nothing. Use an earlier checkpoint."
        )
    return content


def _read(file: Path) -> dict[str, Any]:
    if file.suffix == ".safetensors":
        return _load_safetensors(file)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "global" not in str(error).lower():  # no foreign class named: not a pickle at all
            raise CheckpointError(_unreadable(file, error)) from error
        raise CheckpointError(
            f"checkpoint {file} holds more than tensors and plain data, which is not loaded because it "
            f"could run code ({str(error).splitlines()[0]}). Convert it in an environment you trust."
        ) from error
    except (RuntimeError, EOFError, OSError, zipfile.BadZipFile, ValueError) as error:
        raise CheckpointError(_unreadable(file, error)) from error
    if not isinstance(content, dict) or not content:
        raise CheckpointError(
            f"checkpoint {file} holds a {type(content).__name__}, expected a dict of tensors."
        )
    if "state_dict" in content:
        return {"meta": {}, **content}
    if all(isinstance(value, Tensor) for value in content.values()):
        return {"meta": {}, "state_dict": content}
    raise CheckpointError(
        f"checkpoint {file} has no 'state_dict'; its keys are {sorted(map(str, content))[:8]}."
    )


def _unreadable(file: Path, error: Exception) -> str:
    return (
        f"checkpoint {file} ({file.stat().st_size} bytes) is truncated or not a checkpoint: "
        f"{str(error).splitlines()[0]}. Use an earlier one, or copy it again."
    )


def _load_safetensors(file: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="pt") as content:  # type: ignore[no-untyped-call]
            state = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118  not a mapping
            notes = content.metadata() or {}
    except SafetensorError as error:
        raise CheckpointError(
            f"checkpoint {file} is truncated or not a safetensors file: {error}."
        ) from error
    return {"state_dict": state, "meta": json.loads(notes.get("mtvision", "{}"))}


def load_network_weights(network: nn.Module, checkpoint: Mapping[str, Any], path: str | Path) -> None:
    """Put a checkpoint's weights into a network, strictly.

    Accepts the training module's keys (`network.…`) and a bare network's keys.

    Raises:
        CheckpointError: keys or shapes differ; the message counts and shows them and says what was trained.
    """
    state = {str(key): value for key, value in checkpoint["state_dict"].items()}
    if any(key.startswith("network.") for key in state):
        state = {key[len("network.") :]: value for key, value in state.items() if key.startswith("network.")}
    own = network.state_dict()
    missing = sorted(set(own) - set(state))
    unexpected = sorted(set(state) - set(own))
    shapes = [
        f"{key}: {tuple(state[key].shape)} in the file, {tuple(own[key].shape)} in the network"
        for key in sorted(set(own) & set(state))
        if state[key].shape != own[key].shape
    ]
    if missing or unexpected or shapes:
        lines = [f"checkpoint {path} is of another architecture than the config's network."]
        for title, items in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes)):
            if items:
                more = f", … ({len(items)} in all)" if len(items) > 5 else ""
                lines.append(f"  {len(items)} {title}: {', '.join(items[:5])}{more}")
        trained = checkpoint["meta"].get("architecture")
        if trained:
            lines.append(f"  The file was trained as {json.dumps(trained)[:600]}")
        lines.append("  Use the config it was trained with (it lies beside the checkpoint).")
        raise CheckpointError("\n".join(lines))
    network.load_state_dict(state)


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
