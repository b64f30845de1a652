"""`predictions.json`: what predictions on disk are of, and which sizes they have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from mtvision.core.files.foreign import DecodeError
from mtvision.core.files.json_file import read_json
from mtvision.core.files.names import composed
from mtvision.core.naming import ReportedError

MANIFEST = "predictions.json"
VERSION = 1
SUFFIXES = (".png", ".npy")
_AGAIN = "Write the predictions again, or delete the manifest to score the files alone."


class PredictionFilesError(ReportedError, ValueError):
    """Files are missing, too many, unreadable, of another size or not to be scored; the message lists all."""


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Content of `predictions.json`, None if there is none.

    Raises:
        PredictionFilesError: it is no JSON object, or of a newer version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        content = read_json(path, strict=True)
    except DecodeError as error:
        raise PredictionFilesError(f"{error} Without it, the files alone are scored.") from error
    version = content.get("version", VERSION) if isinstance(content, dict) else None
    if type(version) is not int or version > VERSION:
        raise PredictionFilesError(f"{path}: not a manifest of version {VERSION} or older; update mtvision.")
    _require_kinds(path, content)
    return dict(content)


def _require_kinds(path: Path, content: Mapping[str, Any]) -> None:
    """Refuse a manifest whose parts are no lists of what they should be.

    Raises:
        PredictionFilesError: names the key.
    """
    tasks, sizes = content.get("tasks", {}), content.get("sizes", {})
    if not isinstance(tasks, dict) or not all(suffix in SUFFIXES for suffix in tasks.values()):
        raise PredictionFilesError(f"{path}: 'tasks' is no object of {{task: suffix}}. {_AGAIN}")
    for name in tasks:
        try:
            relative_path(name)
        except ValueError as error:
            raise PredictionFilesError(f"{path}: {error}") from None
    plain = isinstance(sizes, dict) and all(
        isinstance(size, list) and len(size) == 2 and all(type(side) is int for side in size)
        for size in sizes.values()
    )
    if not plain:
        raise PredictionFilesError(f"{path}: 'sizes' is no object of {{image: [height, width]}}. {_AGAIN}")
    if type(content.get("complete", True)) is not bool:
        raise PredictionFilesError(f"{path}: 'complete' is neither true nor false. {_AGAIN}")


def relative_path(image: str) -> PurePosixPath:
    """Path of an image's file below a folder, without the ending.

    Raises:
        ValueError: the id leads out of the folder.
    """
    path = PurePosixPath(composed(image))
    if path.is_absolute() or not path.parts or any(part in (".", "..") for part in path.parts):
        raise ValueError(f"the image id {image!r} cannot be a file name inside a folder.")
    return path
