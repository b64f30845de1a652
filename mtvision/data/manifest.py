"""A fingerprint of the data behind a result, independent of where the data lies."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from mtvision.data.dataset import DenseDataset


def data_manifest(dataset: DenseDataset, *, content: bool = False) -> dict[str, Any]:
    """Hash and counts of a data set, for the record of a run.

    The hash covers the image ids in order, the tasks, `dataset.parameters()`, and name and size of every file
    in `dataset.files()`. Names are relative to the data set, so moving it changes nothing.

    Args:
        dataset: any data set of the suite.
        content: hash the content of the files too. Reads everything; use it to compare two copies.

    Returns:
        `hash` (sha256), `images`, `files`, `bytes`, `split`, `protocol`, `tasks`, `content` (was it hashed).

    Raises:
        FileNotFoundError: a file that the data set announces is gone.
    """
    digest = hashlib.sha256()
    header = {
        "ids": dataset.ids,
        "tasks": list(dataset.protocol.task_names),
        "parameters": dict(dataset.parameters()),
    }
    digest.update(json.dumps(header, sort_keys=True, default=str).encode())
    files = dataset.files()
    total = 0
    for name in sorted(files):
        size = _size(files[name])
        total += size
        digest.update(f"\n{name}\t{size}".encode())
        if content:
            digest.update(hashlib.sha256(files[name].read_bytes()).digest())
    return {
        "hash": digest.hexdigest(),
        "images": len(dataset),
        "files": len(files),
        "bytes": total,
        "split": dataset.split,
        "protocol": dataset.protocol.id,
        "tasks": list(dataset.protocol.task_names),
        "content": content,
    }


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file, although the data set lists it.") from None
