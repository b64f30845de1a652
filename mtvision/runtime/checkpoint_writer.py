"""Writes the checkpoints of a run, in a thread of its own if asked to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from torch import Tensor

from mtvision.runtime.checkpoint import Saved, save_checkpoint


class CheckpointWriter:
    """Writes one checkpoint after another and enters them in the manifest of their folder.

    Args:
        in_background: copy the content and write it in a thread, while training continues. A write begins
            when the one before has ended. `finish` waits for the last one.
        done: called with every checkpoint that is on the disk, in the thread that wrote it.
    """

    def __init__(self, *, in_background: bool = False, done: Callable[[Saved], object] | None = None) -> None:
        self.done = done
        self._in_background = in_background
        self._pool: ThreadPoolExecutor | None = None
        self._pending: Future[None] | None = None

    def write(self, path: Path, content: Mapping[str, Any], *, wait: bool = False) -> None:
        """Write a checkpoint.

        Args:
            path: of the file.
            content: plain data and tensors; they may change as soon as this returns.
            wait: return when it is on the disk.

        Raises:
            OSError: this write failed, or the one before.
        """
        self.finish()
        if not self._in_background or wait:
            self._write(path, content)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._pending = self._pool.submit(self._write, path, copied(content))

    def finish(self) -> None:
        """Wait until everything is on the disk.

        Raises:
            OSError: a write failed.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _write(self, path: Path, content: Mapping[str, Any]) -> None:
        saved = save_checkpoint(path, content, entered=True)
        if self.done is not None:
            self.done(saved)


def copied(value: Any) -> Any:
    """Nested containers with copies of all tensors."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(copied(item) for item in value)
    return value
