"""The books of a run: every process that worked on it, and what they add up to.

`attempts/001.json` and so on hold one attempt each: hosts, steps, images, seconds, how it ended, and the
environment. A killed attempt counts up to its last entry, at most half a minute before its end. Durations
come from a monotonic clock.
"""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from mmengine.hooks import Hook

from mtvision.report.provenance import now
from mtvision.runtime.atomic import write_text
from mtvision.runtime.signals import TrainingInterruptedError
from mtvision.runtime.whole import Examined
from mtvision.tracking.run_id import run_id_of

ATTEMPTS = "attempts"
LOSS_FILE = "losses.jsonl"
METRICS_FILE = "metrics.jsonl"
ENTRY_SECONDS = 30.0
"""Least time between two entries of an attempt, besides those at checkpoints."""
_SIGNAL = re.compile(r"signal (\d+)")


class Books(Hook):
    """Keeps the books of one attempt; a context that ends with it.

    Args:
        work_dir: of the run.
        hosts: machines of all processes.
        images: per step, over all processes.
        about: further plain data, e.g. the environment.
        patch: what the code differs in from its commit; a file of its own.
        keeps: whether this process writes, i.e. is the main one.

    Attributes:
        run_id: of the run in the loggers (`mtvision.tracking.run_id`); it stays when the folder is moved.
    """

    priority = "LOW"  # after the losses, before a checkpoint is written

    def __init__(
        self,
        work_dir: Path,
        *,
        hosts: Sequence[str],
        images: int,
        about: Mapping[str, Any],
        patch: str = "",
        keeps: bool = True,
    ) -> None:
        self._keeps, self._images, self._patch = keeps, images, patch
        earlier = next((str(entry["run_id"]) for entry in _read(work_dir) if "run_id" in entry), None)
        self.run_id = run_id_of(work_dir, earlier=earlier, keeps=keeps)
        numbers = [int(path.stem) for path in attempts_of(work_dir)]
        self._path = work_dir / ATTEMPTS / f"{max(numbers, default=0) + 1:03d}.json"
        self._entered = self._begun = time.monotonic()
        self._steps = self._seen = 0
        self._entry: dict[str, Any] = {
            "run_id": self.run_id,
            "started": now(),
            "hosts": list(hosts),
            "pid": os.getpid(),
            "job": job(),
            "from": None,
            "images_per_step": images,
            "steps": 0,
            "images": 0,
            "seconds": 0.0,
            "ended": None,
            **about,
        }

    def begins_from(self, checkpoint: Examined) -> None:
        """Note the checkpoint that this attempt continues from."""
        self._entry["from"] = {"file": checkpoint.path.name, "sha256": checkpoint.hashed()}

    def images_per_step(self, images: int) -> None:
        """A phase begins whose steps have so many images, over all processes."""
        self._images = images
        self._entry["images_per_step"] = images

    def __enter__(self) -> Books:
        if self._keeps and self._patch:
            write_text(self._path.with_suffix(".diff"), self._patch)
        self._write()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        text = "done" if kind is None else f"{kind.__name__}: {error}".splitlines()[0][:300]
        self._entry["ended"] = text
        stopped = kind is not None and issubclass(kind, KeyboardInterrupt | TrainingInterruptedError)
        number = _SIGNAL.search(text) if stopped else None
        if number is not None:
            self._entry["signal"] = signal.Signals(int(number[1])).name
        self._write()

    def after_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
        """Count a step."""
        self._steps += 1
        self._seen += self._images
        if time.monotonic() - self._entered > ENTRY_SECONDS:
            self._write()

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """The books never lag behind a checkpoint."""
        self._write()

    def _write(self) -> None:
        self._entered = time.monotonic()
        seconds = self._entered - self._begun
        self._entry.update(steps=self._steps, images=self._seen, seconds=round(seconds, 3))
        if self._keeps:
            write_text(self._path, json.dumps(self._entry, indent=2) + "\n")


def job() -> str:
    """What stays the same when a launcher runs a command again: Slurm's job, or torchrun's own process."""
    return os.environ.get("SLURM_JOB_ID") or f"{platform.node()}:{os.getppid()}"


def attempts_of(work_dir: Path) -> list[Path]:
    """Files of the attempts, in their order."""
    return sorted((work_dir / ATTEMPTS).glob("[0-9][0-9][0-9]*.json"), key=lambda path: int(path.stem))


def _read(work_dir: Path) -> list[dict[str, Any]]:
    found = []
    for path in attempts_of(work_dir):
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # damaged: the others count
            continue
        if isinstance(entry, dict):
            found.append(entry)
    return found


def last_job(work_dir: Path) -> str | None:
    """`job` of the last attempt; None without one."""
    return next((str(entry.get("job")) for entry in reversed(_read(work_dir))), None)


def began_from(work_dir: Path, sha256: str) -> bool:
    """Whether an attempt began from a checkpoint with this SHA-256."""
    return any((entry.get("from") or {}).get("sha256") == sha256 for entry in _read(work_dir))


def totals(work_dir: Path) -> dict[str, Any]:
    """What all attempts add up to, for a record's `training`.

    Returns:
        `hours`; `images` that were trained on, those of repeated steps included; `restarts`; `hosts`;
        `signals` that ended attempts, in their order.
    """
    entries = _read(work_dir)
    return {
        "hours": sum(float(entry.get("seconds", 0.0)) for entry in entries) / 3600,
        "images": sum(int(entry.get("images", 0)) for entry in entries),
        "restarts": max(len(entries) - 1, 0),
        "hosts": list(dict.fromkeys(host for entry in entries for host in entry.get("hosts", ()))),
        "signals": [entry["signal"] for entry in entries if entry.get("signal")],
    }
