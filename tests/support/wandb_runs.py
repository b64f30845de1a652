"""Reading back the file of a W&B run."""

from __future__ import annotations

import json
import time
from pathlib import Path


def log_records(content: bytes):
    """Payloads of a W&B run file: a 7-byte header, then LevelDB's log format in blocks of 32 KiB."""
    position, parts = 7, b""
    while position + 7 <= len(content):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        size, kind = int.from_bytes(content[position + 4 : position + 6], "little"), content[position + 6]
        if position + 7 + size > len(content):
            return  # W&B's own process is still writing it
        parts += content[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            yield parts
            parts = b""


class WandbRun:
    """Everything a run file holds: `history` (one dict per step), `summary`, `config`, `run`, `artifacts`."""

    def __init__(self, file: Path) -> None:
        from wandb.proto import wandb_internal_pb2

        self.history, self.summary, self.config = [], {}, {}
        self.run, self.artifacts, self.files, self.finished = None, [], [], False
        for data in log_records(file.read_bytes()):
            entry = wandb_internal_pb2.Record()
            entry.ParseFromString(data)
            kind = entry.WhichOneof("record_type")
            if kind == "history":
                self.history.append(
                    {self._key(item): json.loads(item.value_json) for item in entry.history.item}
                )
            elif kind == "summary":
                self.summary |= {
                    self._key(item): json.loads(item.value_json) for item in entry.summary.update
                }
            elif kind == "config":
                self.config |= {self._key(item): json.loads(item.value_json) for item in entry.config.update}
            elif kind == "run":
                self.run = entry.run
                self.config |= {
                    self._key(item): json.loads(item.value_json) for item in entry.run.config.update
                }
            elif kind == "artifact":
                self.artifacts.append(entry.artifact)
            elif kind == "files":
                self.files += [item.path for item in entry.files.files]
            elif kind == "exit":
                self.finished = True

    @staticmethod
    def _key(item) -> str:
        return "/".join(item.nested_key) or item.key

    def values(self, name: str) -> list:
        """All logged values of a name, in order."""
        return [row[name] for row in self.history if name in row]


def read_runs(folder: Path, count: int = 1, seconds: float = 60) -> list[WandbRun]:
    """The offline runs below `folder/wandb`, once `count` are complete: W&B's own process writes them."""
    deadline = time.monotonic() + seconds
    while True:
        files = sorted((folder / "wandb").glob("offline-run-*/run-*.wandb"))
        runs = [WandbRun(file) for file in files if file.stat().st_size > 7]
        if sum(run.finished for run in runs) >= count or time.monotonic() > deadline:
            assert sum(run.finished for run in runs) >= count, f"{len(runs)} runs, not all finished"
            return runs
        time.sleep(0.2)
