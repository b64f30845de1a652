"""The id of a run in trackers. It lives in the run's folder, so that every folder has one of its own."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path

from mtvision.runtime.atomic import write_text

RUN_ID_FILE = "run_id.txt"
GRID_FILE = "grid.json"


def run_id_of(work_dir: Path, *, earlier: str | None = None, keeps: bool = True) -> str:
    """The id of the run in a folder; a new one is random and written to `run_id.txt`.

    A run that `wandb agent` has started takes the id that W&B's sweep gave it.

    Args:
        work_dir: of the run.
        earlier: id of a run that was started before ids had a file.
        keeps: whether this process writes the file, i.e. is the main one.
    """
    file = work_dir / RUN_ID_FILE
    if file.is_file():
        found = file.read_text(encoding="utf-8").strip()
        if found:
            return found
    of_sweep = os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None
    own = earlier or of_sweep or uuid.uuid4().hex[:12]
    if keeps:
        write_text(file, own + "\n")
    return own


def write_grid(folder: Path, name: str) -> str:
    """The id of the grid whose runs stand in a folder; a new one is random and written to `grid.json`.

    Args:
        folder: receives one folder per run.
        name: of the grid, for people.
    """
    known = grid_of(folder / "run")
    if known:
        return known["id"]
    own = uuid.uuid4().hex[:12]
    write_text(folder / GRID_FILE, json.dumps({"id": own, "name": name}) + "\n")
    return own


def grid_of(work_dir: Path) -> dict[str, str]:
    """`id` and `name` of the grid that a run belongs to; empty without one, or if its file is damaged."""
    file = work_dir.parent / GRID_FILE
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {key: str(found[key]) for key in ("id", "name")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
