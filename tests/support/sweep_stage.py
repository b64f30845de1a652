"""Grids over the tiny config whose runs are pretended: `pretend_train.py` with records made before."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import discs
from report_records import make_record

from mtvision.recipe.config import load_config
from mtvision.report.provenance import config_entry
from mtvision.sweep.grid import expand, look_up_states, parse_axes
from mtvision.sweep.local import run_locally

PRETEND = (sys.executable, str(Path(discs.__file__).with_name("pretend_train.py")))


def grid(folder, *settings, seeds=(0, 1), options=(), work="work"):
    config = discs.write_config(folder)
    return expand([config], seeds=seeds, axes=parse_axes(settings), work_dir=folder / work, options=options)


class Stage:
    """A grid of pretended runs with prepared records."""

    def __init__(self, folder, runs):
        self.folder, self.runs = folder / "prepared", runs
        self.folder.mkdir()
        for index, run in enumerate(runs):
            text = load_config(run.config, [*run.options, f"seed={run.seed}"]).text
            (self.folder / f"{run.name}.py").write_text(text)
            method = load_config(run.config, run.options)["name"] or run.config.stem
            self.record(run, text, method, index).save(self.folder / f"{run.name}.json")
        self.command = (*PRETEND, str(self.folder))

    @staticmethod
    def record(run, text, method, index):
        entry = config_entry(run.config.stem, text)
        return make_record(0.4 + 0.01 * index, 0.9 - 0.01 * index, seed=run.seed, method=method, config=entry)

    def plan(self, index, what):
        (self.folder / f"{self.runs[index].name}.txt").write_text(what)

    def calls(self):
        file = self.folder / "calls.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []

    def states(self, *folders, **options):
        return look_up_states(self.runs, folders, **options)

    def train(self, runs, **options):
        return run_locally(runs, command=self.command, poll_seconds=0.02, **options)
