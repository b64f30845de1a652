"""Checkpoints that are whole: their SHA-256 stands in a manifest beside them, and damage has a name.

The manifest of a work dir is `checkpoints.json`. A checkpoint without an entry (of other code, or moved on
its own) is compared with the checksums that its zip format holds. These cover all that is loaded, but not
every field of the format's headers.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from mtvision.core.files.arrays import zip_damage
from mtvision.core.files.foreign import ForeignError, foreign_errors
from mtvision.core.values import Count, check_value
from mtvision.runtime.atomic import write_text

MANIFEST = "checkpoints.json"
_FIELDS: Mapping[str, Any] = {
    "state_dict": dict[str, Any],
    "meta": dict[str, Any],
    "optimizer": dict[str, Any],
    "optimizer_names": list[Any],
    "param_schedulers": list[dict[str, Any]],
    "random_states": list[dict[str, Any]],
    "meta.iter": Count,
    "meta.seed": Count,
    "meta.config": str,
    "meta.options": dict[str, Any],
    "meta.architecture": dict[str, Any],
    "meta.tasks": list[str],
    "meta.batches": list[dict[str, Any]],
    "meta.changes": list[dict[str, Any]],
    "meta.phase": dict[str, Any],
}
"""{field of a checkpoint: what it must be, where it is}."""
CONTINUED = ("optimizer", "param_schedulers", "random_states", "meta.iter")
"""Fields without which a run cannot be continued."""
_NUMBERED = re.compile(r"iter_(\d+)\.pth")


@dataclass
class HashedFile:
    """A file to write to, which knows the SHA-256 and the number of bytes so far.

    Args:
        file: receives the bytes.
    """

    file: BinaryIO
    size: int = 0
    _hash: Any = field(default_factory=hashlib.sha256)

    def write(self, content: bytes) -> int:
        """Write bytes, like a file."""
        self._hash.update(content)
        written = self.file.write(content)
        self.size += written
        return written

    def flush(self) -> None:
        """Flush, like a file."""
        self.file.flush()

    @property
    def sha256(self) -> str:
        """Of what was written."""
        return str(self._hash.hexdigest())


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checkpoints_of(folder: Path) -> dict[int, Path]:
    """{iteration: path} of everything called `iter_N.pth`, in the order of iterations, whole or not."""
    there = folder.iterdir() if folder.is_dir() else iter(())
    found = {int(match[1]): path for path in there if (match := _NUMBERED.fullmatch(path.name))}
    return dict(sorted(found.items()))


def enter(path: Path, sha256: str, size: int) -> None:
    """Enter a checkpoint in its folder's manifest, just before its file gets its name.

    A process may be killed between both. The entry of the file that is replaced therefore stays valid.

    Raises:
        OSError: the manifest cannot be written.
    """
    files = {name: entry for name, entry in _entries(path.parent).items() if (path.parent / name).is_file()}
    before = files.get(path.name)
    files[path.name] = {"sha256": sha256, "bytes": size}
    if before is not None:
        files[path.name]["replaces"] = before["sha256"]
    write_text(path.parent / MANIFEST, json.dumps({"files": files}, indent=2) + "\n")


def is_entered(path: Path) -> bool:
    """Whether the manifest of a file's folder has an entry for it."""
    return path.name in _entries(path.parent)


def _entries(folder: Path) -> dict[str, dict[str, Any]]:
    """Entries of a manifest by file name; none where it is absent or not readable itself."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        return {str(name): dict(entry) for name, entry in files.items() if "sha256" in entry}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


@dataclass(frozen=True)
class Examined:
    """A file that was read and compared with what its folder knows of it.

    Args:
        path: of the file.
        problem: why it is not what was written, in words that follow `it`; empty if no fault is found.
        sha256: of the file, where it was compared.
    """

    path: Path
    problem: str
    sha256: str | None = None

    def hashed(self) -> str:
        """SHA-256; the file is read where it was not compared."""
        return self.sha256 or file_sha256(self.path)


def examine(path: Path) -> Examined:
    """Read a file and compare it.

    Args:
        path: an existing file. One that is neither in a manifest nor a zip file has nothing to compare with.

    Raises:
        OSError: the file cannot be read.
    """
    if path.is_dir():
        return Examined(path, "is a folder")
    size = path.stat().st_size
    if size == 0:
        return Examined(path, "is empty")
    entry = _entries(path.parent).get(path.name)
    if entry is None:
        return Examined(path, _broken_zip(path))
    sha256 = file_sha256(path)
    if sha256 in (entry["sha256"], entry.get("replaces")):
        return Examined(path, "", sha256)
    if size != entry.get("bytes"):
        return Examined(path, f"has {size} bytes, {MANIFEST} says {entry.get('bytes')}", sha256)
    return Examined(path, f"has another SHA-256 than {MANIFEST} says", sha256)


def damage(path: Path) -> str:
    """`Examined.problem` of a file.

    Raises:
        As `examine`.
    """
    return examine(path).problem


def _broken_zip(path: Path) -> str:
    """What does not agree with the checksums of a zip file, at which torch does not look."""
    try:
        with foreign_errors():
            found = zip_damage(path) if zipfile.is_zipfile(path) else None
    except ForeignError as error:
        found = error.first_line
    return f"has a damaged member ({found})" if found else ""


def missing_fields(content: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Those of some fields of a checkpoint that are not there; `meta.iter` is one inside `meta`."""
    return [name for name in names if _field(content, name) is None]


def require_kinds(content: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of this suite one of whose fields is of another kind than this suite writes.

    Raises:
        ValueError: the field, what it is, and what it must be.
    """
    for name, kind in _FIELDS.items():
        value = _field(content, name)
        if value is not None:
            check_value(name, value, kind)


def _field(content: Mapping[str, Any], name: str) -> Any:
    head, _, rest = name.partition(".")
    value = content.get(head)
    return _field(value, rest) if rest and value is not None else value


def newest_whole(folder: Path) -> tuple[Examined | None, dict[Path, str]]:
    """The newest whole checkpoint `iter_N.pth` of a folder, and the newer ones that are damaged.

    Returns:
        The file, or None if no checkpoint is whole, and {path: what is wrong with it}, newest first.
    """
    damaged: dict[Path, str] = {}
    for path in reversed(checkpoints_of(folder).values()):
        try:
            found = examine(path)
            problem = found.problem or ("" if zipfile.is_zipfile(path) else "is cut or not a checkpoint")
        except OSError as error:
            problem = f"cannot be read: {error.strerror or error}"
        if not problem:
            return found, damaged
        damaged[path] = problem
    return None, damaged
