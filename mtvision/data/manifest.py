"""A fingerprint of the data behind a result, independent of where the data lies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
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
        `hash` (sha256), `images`, `files`, `bytes`, `split`, `protocol`, `tasks`, `content` (was it hashed),
        and `encodings` {task: lines} where the meaning of numbers was decided from the files.

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
    decided = {name: item.describe() for name, item in dataset.encodings().items() if item.rules}
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
        **({"encodings": decided} if decided else {}),
    }


def scored_data(dataset: DenseDataset) -> dict[str, Any]:
    """Which images and labels a score is about, each task's labels on their own.

    So a network of one task and one of several are known to be scored on the same images. A hash covers ids,
    `dataset.parameters()`, and name and size of every file, as in `data_manifest`.

    Args:
        dataset: what is scored.

    Returns:
        `images` (their number), `split`, `fingerprint` (of the images), `labels` {task: fingerprint}.

    Raises:
        FileNotFoundError: a file that the data set announces is gone.
    """
    return {
        "images": len(dataset),
        "split": dataset.split,
        "fingerprint": _fingerprint(dataset, None),
        "labels": {task: _fingerprint(dataset, task) for task in dataset.protocol.task_names},
    }


def _fingerprint(dataset: DenseDataset, task: str | None) -> str:
    others = set(dataset.protocol.known_tasks) - {task}
    header = {"ids": dataset.ids, "task": task, "parameters": _without(dataset.parameters(), others)}
    files = dataset.files_of(task)
    lines = [f"{name}\t{_size(files[name])}" for name in sorted(files)]
    content = "\n".join([json.dumps(header, sort_keys=True, default=str), *lines])
    return hashlib.sha256(content.encode()).hexdigest()


def _without(value: Any, tasks: Collection[str]) -> Any:
    """Parameters without what they say about these tasks, as keys or in lists.

    A mapping that spoke of these tasks alone is left out: without them the data set would not have it.
    """
    if isinstance(value, Mapping):
        kept = {name: _without(item, tasks) for name, item in value.items() if name not in tasks}
        return {name: item for name, item in kept.items() if item != {} or value[name] == {}}
    if isinstance(value, list | tuple):
        return [item for item in value if not (isinstance(item, str) and item in tasks)]
    return value


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file, although the data set lists it.") from None
