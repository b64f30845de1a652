"""What `mtvision benchmark` compares does the same work; times are not looked at."""

from __future__ import annotations

import tempfile

import numpy as np
import pytest
import torch
from torch import nn

from mtvision.cli.machine import engine_speed, step_costs
from mtvision.cli.machine.loader_speed import benchmark_loader

pytestmark = pytest.mark.slow


def test_the_bare_loop_is_the_suites_step(monkeypatch):
    monkeypatch.setattr(engine_speed, "SIZE", (32, 48))
    modules = []
    make = engine_speed._module
    monkeypatch.setattr(engine_speed, "_module", lambda rule: modules.append(make(rule)) or modules[-1])
    for call in engine_speed.steps().values():
        call()
    bare, plain, _ = modules
    for (name, one), two in zip(bare.network.named_parameters(), plain.network.parameters(), strict=True):
        torch.testing.assert_close(one, two, msg=name)


def test_the_loop_over_a_folder_writes_what_predict_writes(monkeypatch, tmp_path):
    monkeypatch.setattr(engine_speed, "PICTURES", 2)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for call in engine_speed.prediction().values():
        call()
    loop, suite = sorted(tmp_path.rglob("out*"))
    for folder in (loop, suite):
        assert sorted(path.name for path in folder.iterdir()) == ["0.npz", "0.png", "1.npz", "1.png"]
    for name in ("0.npz", "1.npz"):
        with np.load(loop / name) as one, np.load(suite / name) as two:
            assert set(one) == set(two) == {"semseg", "depth", "normals", "edge"}
            assert all(np.array_equal(one[task], two[task]) for task in one)
    assert (loop / "0.png").read_bytes() == (suite / "0.png").read_bytes()


def test_every_loader_is_measured():
    lines = []
    table = benchmark_loader(1, lines.append, batches=1)
    assert len(lines) == len(table) == 5
    assert all(0 < values["least"] <= values["clock"] <= values["most"] for values in table.values())


def test_ratios_of_steps_have_closed_forms(monkeypatch):
    seconds = iter([0, 9, 0, 1, 1, 3, 3, 5, 5, 8])  # turn 0 is not counted; then 1, 2 and 2, 3 seconds
    monkeypatch.setattr(step_costs.time, "process_time", lambda: next(seconds))
    steps = {
        "one": (lambda: torch.zeros(1000), nn.Linear(2, 2)),
        "two": (lambda: torch.zeros(3000), nn.Linear(2, 5)),
    }
    lines = []
    found = step_costs.step_costs("steps", steps, 2, lines.append)
    assert found["one"] == {"time": 1, "least": 1, "most": 1, "memory": 1, "trained": 1}
    assert found["two"] == {"time": 2.5 / 1.5, "least": 1.5, "most": 2, "memory": 3, "trained": 2.5}
    assert lines[2].split() == ["two", "1.67", "1.50", "to", "2.00", "3.00", "2.500"]
