"""List of images that show a person, kept outside the data set's folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from mtvision.data.pascal_context.labels import PERSON, object_categories, read_objects
from mtvision.runtime.atomic import write_text


def cache_folder() -> Path:
    """`$MTVISION_CACHE`, or `mtvision` in the user's cache folder."""
    given = os.environ.get("MTVISION_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mtvision"


def images_with_person(root: Path, split: str, ids: Sequence[str]) -> list[str]:
    """The ids, in order, whose annotation has an object of category person with a non-empty mask.

    The published code writes the categories of all objects to `ImageSets/Parts/<split>.txt` inside the data
    set. That file is used if it exists and is complete. Otherwise the annotations are read once (about a
    minute), and the result is kept in `cache_folder()`.

    Raises:
        FileNotFoundError: an annotation is missing.
        ValueError: an annotation has another structure.
    """
    shipped = _read(root / "ImageSets" / "Parts" / f"{split}.txt", ids)
    if shipped is not None:
        return _select(shipped, ids)
    key = hashlib.sha256(json.dumps([str(root.resolve()), split, list(ids)]).encode()).hexdigest()
    path = cache_folder() / "pascal_parts" / f"{key[:16]}.json"
    categories = _read(path, ids)
    if categories is None:
        categories = {
            name: object_categories(read_objects(root / "human_parts" / f"{name}.mat")) for name in ids
        }
        write_text(path, json.dumps(categories))
    return _select(categories, ids)


def _select(categories: Mapping[str, Sequence[int]], ids: Sequence[str]) -> list[str]:
    return [name for name in ids if PERSON in categories[name]]


def _read(path: Path, ids: Sequence[str]) -> dict[str, list[int]] | None:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and set(content) == set(ids) else None
