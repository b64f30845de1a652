"""State dicts that stay in their files: a tensor is read when it is asked for."""

from __future__ import annotations

import gc
import json
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mtvision.core.files.foreign import ForeignError, foreign_errors
from mtvision.core.naming import UnknownNameError
from mtvision.runtime.checkpoint import (
    FORMAT,
    NOTES,
    CheckpointError,
    checkpoint_file,
    load_checkpoint,
    network_tensors,
)
from mtvision.runtime.state_dicts import StateDictError, find_state
from mtvision.runtime.whole import file_sha256

MAPPED = 2**24
"""Bytes, at least, that are read before a file is mapped anew: read pages count as memory of the process."""
SHARE = 32
"""A file is mapped anew whenever this part of it (1 / 32) was read."""


class StateFile(Mapping[str, Any]):
    """The network's tensors in a checkpoint, by the names of the network.

    Files are mapped into memory, so that a merger holds a few tensors of every parent, not all. A file that
    cannot be mapped (`torch.save` before version 1.6) is read whole.

    Args:
        path: `.pth` or `.safetensors`; `FILE#PART` as in `mtvision.runtime.checkpoint`.
        own: names of the network's tensors; a prefix in front of the file's names is removed.

    Attributes:
        path: of the file, without PART.
        meta: what the checkpoint says of itself.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError, UnknownNameError: the file is damaged, or does not fit the network.
    """

    def __init__(self, path: str | Path, own: Mapping[str, Any]) -> None:
        self.path = checkpoint_file(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"checkpoint {self.path} does not exist.")
        self._given = path
        self._part = str(path).rpartition("#")[2] if str(self.path) != str(path) else None
        tensors, self.meta = self._open()
        self._tensors: Mapping[str, Any] | None = tensors
        self._read, self._most = 0, max(MAPPED, self.path.stat().st_size // SHARE)
        self._seen: set[str] = set()
        content = {"meta": self.meta, "state_dict": {name: name for name in tensors}}
        self._names: dict[str, str] = network_tensors(content, own, path).tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __getitem__(self, name: str) -> Any:
        place = self._names[name]
        if self._read > self._most:
            self._tensors, self._read = None, 0
            self._seen.clear()
        if self._tensors is None:
            self._tensors, _ = self._open()
        value = self._tensors[place]
        if place not in self._seen:
            self._seen.add(place)
            self._read += value.nbytes if isinstance(value, torch.Tensor) else 0
        return value

    def sha256(self) -> str:
        """Hash of the file, for provenance."""
        return file_sha256(self.path)

    def _open(self) -> tuple[Mapping[str, Any], dict[str, Any]]:
        """The tensors by the file's own names, and the metadata."""
        content = _mapped(self.path)
        if content is None:
            content = load_checkpoint(self._given)
        if content.get("format") == FORMAT and self._part is None:
            return content["state_dict"], content.get("meta", {})
        if set(content) >= {"state_dict", "meta"} and self._part is None:
            return content["state_dict"], content["meta"]
        try:
            found = find_state(content, self._part)
        except StateDictError as error:
            raise CheckpointError(
                f"checkpoint {self.path}: {error}".replace("FILE#", f"{self.path}#")
            ) from error
        except UnknownNameError as error:
            error.args = (f"checkpoint {self.path}: {error}",)
            raise
        meta = content.get("meta")
        return found.tensors, dict(meta) if isinstance(meta, Mapping) else {}


def _mapped(path: Path) -> dict[str, Any] | None:
    """The content of a file, mapped; None where `load_checkpoint` has to read it, or to say what is wrong."""
    try:
        with foreign_errors(pickle.UnpicklingError):
            if path.suffix == ".safetensors":
                tensors = _SafeTensors(path)
                return {"format": FORMAT, "meta": tensors.meta, "state_dict": tensors}
            with _cycles_freed():
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (ForeignError, pickle.UnpicklingError):
        return None
    return content if isinstance(content, dict) and content else None


@contextmanager
def _cycles_freed() -> Iterator[None]:
    """Free the cycles of references that a block leaves; those of `torch.load` would hold its mapping.

    The collector is off inside the block, so that all of them are young and found at once.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.collect(0)
        if enabled:
            gc.enable()


class _SafeTensors(Mapping[str, Any]):
    """The tensors of a safetensors file, read one by one."""

    def __init__(self, path: Path) -> None:
        self._file = _safetensors(path)
        self._names = dict.fromkeys(self._file.keys())
        self.meta: dict[str, Any] = json.loads((self._file.metadata() or {}).get(NOTES, "{}"))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, name: str) -> Any:
        return self._file.get_tensor(name)


def _safetensors(path: Path) -> Any:
    from safetensors import safe_open

    return safe_open(str(path), framework="pt")  # type: ignore[no-untyped-call]
