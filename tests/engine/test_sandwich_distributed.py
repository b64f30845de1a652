"""Slimmable training on two processes, in half precision, and killed in the middle."""

from __future__ import annotations

import json
import time
from pathlib import Path

import discs
import pytest
import torch
from several_processes import begin, tool

from mtvision.runtime.checkpoint import load_checkpoint

TEXT = discs.CONFIG.replace(
    'backbone=dict(type="DropoutNet")', 'backbone=dict(type="DropoutNet", width=16, norm="group")'
)
TEXT = TEXT.replace("width=8)", 'width=16, norm="group")').replace(
    'head=dict(type="ConvHead"),', 'head=dict(type="ConvHead"),\n    adapters=[dict(type="Slimmable")],'
)
TEXT += 'step = dict(type="SandwichStep", encoder=[0.5, 0.75, 1.0], decoders=[0.5, 1.0], stages=3)\n'
OPTIONS = ("training.iterations=4", "training.val_interval=0", "optimizer.type=SGD", "optimizer.lr=0.05")


def state(folder: Path, step: int) -> dict[str, torch.Tensor]:
    content = load_checkpoint(folder / f"iter_{step}.pth")["state_dict"]
    return {name: value for name, value in content.items() if torch.is_tensor(value)}


@pytest.mark.conformance("slimmable", "2 ranks = 1")
@pytest.mark.slow
@pytest.mark.parametrize(
    "balancer",
    [*(pytest.param(name, marks=pytest.mark.long) for name in ("FixedWeights", "Uncertainty")), "UPGrad"],
)
def test_two_processes_of_two_images_take_the_steps_of_one_of_four(tmp_path, balancer):
    """Without batch norm and dropout, with every pixel labelled, the averaged gradients are the same."""
    config = discs.write_config(tmp_path, TEXT)
    options = [*OPTIONS, f"balancer.type={balancer}"]
    for processes, size in ((1, 4), (2, 2)):
        work = tmp_path / str(processes)
        arguments = ["--work-dir", work, "--cfg-options", *options, f"train_data.batch_size={size}"]
        tool(processes, "train", config, *arguments)
    torch.testing.assert_close(state(tmp_path / "2", 4), state(tmp_path / "1", 4), rtol=1e-4, atol=1e-5)


@pytest.mark.conformance("slimmable", "resume")
@pytest.mark.fault(
    "kill -9 of slimmable training in bf16", expected="weights and scores of an undisturbed run"
)
@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path):
    config = discs.write_config(tmp_path, TEXT)
    options = ["training.iterations=20", "training.val_interval=0", "training.checkpoint_interval=2"]
    options += ["training.precision=bf16", "training.keep_checkpoints=99"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    tool(1, "train", config, "--work-dir", whole, "--cfg-options", *options)
    process = begin("train", config, "--work-dir", cut, "--cfg-options", *options)
    deadline = time.monotonic() + 120
    while not list(cut.glob("iter_*.pth")) and process.exitcode is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.join()
    assert not (cut / "iter_20.pth").is_file()
    tool(1, "train", config, "--work-dir", cut, "--resume", "--cfg-options", *options)
    torch.testing.assert_close(state(cut, 20), state(whole, 20), rtol=0, atol=0)
    scores = [json.loads((folder / "record.json").read_text())["scores"] for folder in (whole, cut)]
    assert scores[0] == scores[1]
