"""Change trials: a change by a stranger takes at most one Python file, one config and one attempt."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mtvision.cli.main import command_line
from mtvision.core import registry
from mtvision.core.registry.outside import OUTSIDE
from mtvision.recipe import plugins

CONFIG, MODULE = "config.py", "mine.py"
TINY = (
    "training.iterations=2",
    "training.checkpoint_interval=2",
    "train_data.batch_size=2",
    "train_data.num_workers=0",
    "test_data.num_workers=0",
    "evaluation.constant_predictor=0",
)
"""Options that make any training short."""


@contextmanager
def no_plugins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No plugin is loaded; afterwards, tables are as before and modules below the folder are forgotten."""
    saved = {name: table.saved() for name, table in registry.tables().items()}
    modules = set(sys.modules)
    monkeypatch.setattr(plugins, "_plugins", {})
    monkeypatch.setattr(OUTSIDE, "named", [])
    monkeypatch.setattr(OUTSIDE, "search", plugins.load_announced)
    yield
    for name, table in registry.tables().items():
        table.restore(saved[name])
    for name in set(sys.modules) - modules:
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None and Path(file).is_relative_to(folder):
            del sys.modules[name]


class Trial:
    """Files of a stranger in an empty folder, and commands there.

    Args:
        folder: which becomes the working folder.
        monkeypatch: changes it back.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        monkeypatch.chdir(folder)

    def write(self, config: str, module: str | None = None) -> None:
        """The one config, and the one Python file where the trial needs one."""
        (self.folder / CONFIG).write_text(config)
        if module is not None:
            (self.folder / MODULE).write_text(module)

    def train(self, *options: str) -> dict[str, Any]:
        """Train the config for two steps; returns the record, in which nothing is missing."""
        assert command_line(["train", CONFIG, "--work-dir", "run", "--cfg-options", *TINY, *options]) == 0
        self.check_files()
        record: dict[str, Any] = json.loads((self.folder / "run" / "record.json").read_text())
        assert record["missing"] == record["failures"] == []
        return record

    def check_files(self) -> None:
        """The stranger wrote at most one Python file and one config."""
        assert {path.name for path in self.folder.glob("*.py")} <= {CONFIG, MODULE}
