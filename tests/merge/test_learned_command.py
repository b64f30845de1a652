"""`mtvision merge --method …` for methods that learn: held-out images, heads, provenance, refusals."""

from __future__ import annotations

import pytest
import torch
from merge_files import TASKS, run, state_of

from mtvision.runtime.checkpoint import load_checkpoint

FEW = ("--held-out", "0.6", "--option", "steps=2")


@pytest.mark.parametrize("method", ["adamerging", "atlas", "concrete"])
def test_shared_parts_are_learned(here, capsys, method):
    assert run(here, "--method", method, *FEW, "lr=0.1") == 0
    merged = state_of(here)
    learned = load_checkpoint(here)["meta"]["merge"]["learned"]
    images = learned["held_out"]["images"]
    assert 0 < images < 4
    assert f"learned from {images} held-out training images: 2 updates, loss " in capsys.readouterr().out
    assert (learned["updates"], len(learned["losses"])) == (2, 2)
    assert set(learned["coefficients"]) == set(TASKS)
    assert "backbone.model.conv1.0.weight" in learned["coefficients"]["depth"]
    assert run(here, "--method", method, *FEW[:2], "--option", "steps=0") == 0
    start = state_of(here)
    moved = {name for name, item in merged.items() if not torch.equal(item, start[name])}
    assert moved
    assert all(name.startswith("backbone.") for name in moved)


def test_tinting_moves_heads_too(here):
    assert run(here, "--method", "tinting", *FEW) == 0
    merged, parents = state_of(here), {task: state_of(f"{task}.pth") for task in TASKS}
    moved = {
        name
        for task in TASKS
        for name in merged
        if f".{task}." in name and not torch.equal(merged[name], parents[task][name])
    }
    assert moved == set(load_checkpoint(here)["meta"]["merge"]["learned"]["tuned"])
    assert all(name.startswith("heads.") for name in moved)


def test_no_step_is_task_arithmetic(here):
    assert run(here, "--method", "adamerging", "--option", "steps=0") == 0
    found = state_of(here)
    assert run(here, "--method", "task_arithmetic") == 0
    assert all(torch.equal(item, found[name]) for name, item in state_of(here).items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "adamerging", "--held-out", "1e-9"], "none of the 4 images of split 'train'"),
        (["--method", "adamerging", "--option", "step=2"], "Unknown adamerging argument 'step'"),
        (["--method", "atlas", "--option", "problem=2"], "'problem' is supplied by the suite"),
        (["--method", "atlas", "--cfg-options", "train_data=None"], "the config has no 'train_data'"),
        (
            ["--method", "tinting", *FEW, "layers=['head.*']"],
            "'head.*' matches no tensor. Did you mean 'heads.*'",
        ),
    ],
    ids=str,
)
def test_mistakes(here, capsys, options, message):
    assert run(here, *options) == 2
    assert message in capsys.readouterr().err
