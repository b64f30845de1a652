"""Phases that start from others by name: forks of a base, and their merge, in one run."""

from __future__ import annotations

from pathlib import Path

import discs
import pytest
import torch

from mtvision.core.naming import ReportedError, UnknownNameError
from mtvision.engine.training import fit
from mtvision.merge.table import merge
from mtvision.recipe.check import check_config
from mtvision.recipe.config import load_config
from mtvision.runtime.checkpoint import load_checkpoint
from mtvision.runtime.state_dicts import network_state

PHASES = """
phases = [
    dict(name="base", iterations=1),
    dict(name="classes", iterations=1, tasks=["semseg"], start=dict(phase="base")),
    dict(name="distance", iterations=1, tasks=["depth"], start=dict(phase="base")),
    dict(
        name="together", iterations=1,
        start=dict(
            merge="task_arithmetic", base="base", parents=dict(semseg="classes", depth="distance"),
            options=dict(scale=0.5),
        ),
        optimizer=dict(type="SGD", lr=0.0), training=dict(freeze=["backbone.*"]),
    ),
]
training.update(iterations=4, checkpoint_interval=4, val_interval=0, first_look=0)
"""


def config_of(folder: Path, old: str = "", new: str = ""):
    assert old in PHASES
    folder.mkdir(parents=True, exist_ok=True)
    return load_config(
        discs.write_config(folder, discs.CONFIG + PHASES.replace(old, new) if old else discs.CONFIG + PHASES)
    )


def states(folder):
    return [network_state(load_checkpoint(folder / f"iter_{step}.pth")) for step in (1, 2, 3, 4)]


@pytest.mark.slow
def test_forks_of_a_base_are_merged_in_one_run(tmp_path):
    fit(config_of(tmp_path), tmp_path / "run", quiet=True)
    base, classes, distance, together = states(tmp_path / "run")
    shared = [name for name in base if name.startswith("backbone.")]
    one, two = ({name: state[name] for name in shared} for state in (classes, distance))
    start = {name: base[name] for name in shared}
    assert any(not torch.equal(one[name], start[name]) for name in shared)
    wanted = merge("task_arithmetic", start, {"semseg": one, "depth": two}, scale=0.5)
    weights = [name for name in shared if name.endswith(("weight", "bias"))]
    assert all(torch.equal(together[name], wanted[name]) for name in weights)
    for name, item in together.items():
        if name.startswith("heads."):
            owner = classes if ".semseg." in name else distance
            assert torch.equal(item, owner[name])


WRONG = {
    "an unknown phase": (
        'parents=dict(semseg="classes"',
        'parents=dict(semseg="class"',
        "names the phase 'class'",
    ),
    "a later phase": (
        'start=dict(phase="base")',
        'start=dict(phase="together")',
        "names the phase 'together'",
    ),
    "no base": ('base="base", ', "", "Expected dict(phase=NAME)"),
    "a learned method": ('"task_arithmetic"', '"adamerging"', "learns from held-out images"),
    "an unknown method": ('"task_arithmetic"', '"task_arithmetics"', "task_arithmetics"),
    "an unknown option": ("dict(scale=0.5)", "dict(scales=0.5)", "scales"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_start_is_refused_before_the_first_step(case, tmp_path):
    old, new, words = WRONG[case]
    with pytest.raises((ReportedError, UnknownNameError, ValueError, TypeError)) as caught:
        check_config(config_of(tmp_path, old, new))
    assert words in str(caught.value)
    assert "phases" in str(caught.value)
