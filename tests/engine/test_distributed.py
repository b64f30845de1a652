"""Two CPU processes train, validate, save and resume, and score exactly as one does."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import discs
import pytest
import torch
from several_processes import begin, tool

from mtvision.runtime.checkpoint import load_checkpoint


def losses(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]


@pytest.mark.conformance("parallel", "2 ranks = 1", "resume")
@pytest.mark.slow
def test_two_processes_train_save_resume_and_score_like_one(tmp_path):
    config = discs.write_config(tmp_path)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    options = ("--cfg-options", "training.val_interval=8", "training.checkpoint_interval=7")
    tool(2, "train", config, "--work-dir", whole, *options[:2], dropout=True)
    tool(2, "train", config, "--work-dir", cut, *options, dropout=True)
    for name in ("iter_12.pth", "record.json"):
        (cut / name).unlink()
    tool(2, "train", config, "--work-dir", cut, "--resume", *options[:2], dropout=True)
    assert losses(cut) == losses(whole)
    assert (cut / "validations.jsonl").read_text() == (whole / "validations.jsonl").read_text()
    torch.testing.assert_close(
        load_checkpoint(cut / "iter_12.pth")["state_dict"],
        load_checkpoint(whole / "iter_12.pth")["state_dict"],
        rtol=0,
        atol=0,
    )
    scores = {}
    for processes in (1, 2):
        out = tmp_path / f"{processes}.json"
        tool(
            processes,
            "test",
            config,
            whole / "iter_12.pth",
            "--work-dir",
            tmp_path / "test",
            "--json",
            out,
            dropout=True,
        )
        scores[processes] = json.loads(out.read_text())["scores"]
    assert scores[1] == scores[2]


@pytest.mark.conformance("{balancer}", "2 ranks = 1")
@pytest.mark.slow
@pytest.mark.parametrize("balancer", ["FixedWeights", "UPGrad", "Uncertainty"])
def test_two_processes_of_two_images_take_the_steps_of_one_of_four(tmp_path, balancer):
    """Without BatchNorm and dropout, with every pixel labelled, the averaged gradients are the same."""
    text = discs.CONFIG.replace('type="DropoutNet"', 'type="DropoutNet", norm="group"').replace(
        'type="ParallelDecoder"', 'type="ParallelDecoder", norm="group"'
    )
    config = discs.write_config(tmp_path, text)
    options = [
        f"balancer.type={balancer}",
        "training.iterations=4",
        "training.val_interval=0",
        "optimizer.type=SGD",
    ]
    for processes, size in ((1, 4), (2, 2)):
        tool(
            processes,
            "train",
            config,
            "--work-dir",
            tmp_path / f"{processes}",
            "--cfg-options",
            *options,
            f"train_data.batch_size={size}",
        )
    one, two = (load_checkpoint(tmp_path / f"{n}" / "iter_4.pth")["state_dict"] for n in (1, 2))
    names = [name for name in one if torch.is_tensor(one[name])]
    assert any("balancer" in name for name in names) == (balancer == "Uncertainty")
    torch.testing.assert_close(
        {name: one[name] for name in names}, {name: two[name] for name in names}, rtol=1e-4, atol=1e-6
    )


JOINT = """
train_data = dict(
    dataset=dict(
        type="JointDataset",
        parts=[
            dict(type="TinyDiscs", name="rooms", tasks=["semseg"]),
            dict(type="TinyDiscs", name="streets", tasks=["depth"], length=3),
        ],
        ratios=[1, 1],
        mixing="homogeneous",
    ),
    batch_size=4,
)
"""


@pytest.mark.slow
def test_two_data_sets_train_alike_on_one_process_and_on_two(tmp_path):
    """Each step trains the task of one part only; the other head is unused on both processes."""
    text = discs.CONFIG.replace('type="DropoutNet"', 'type="DropoutNet", norm="group"').replace(
        'type="ParallelDecoder"', 'type="ParallelDecoder", norm="group"'
    )
    config = discs.write_config(tmp_path, text + JOINT)
    options = ["training.iterations=4", "training.val_interval=0", "optimizer.type=SGD"]
    for processes, size in ((1, 4), (2, 2)):
        arguments = ("--cfg-options", *options, f"train_data.batch_size={size}")
        folder = tmp_path / f"{processes}"
        tool(processes, "train", config, "--work-dir", folder, *arguments)
    rows = losses(tmp_path / "2")
    assert ["loss/semseg" in row for row in rows] == [True, False, True, False]
    one, two = (load_checkpoint(tmp_path / f"{n}" / "iter_4.pth")["state_dict"] for n in (1, 2))
    names = [name for name in one if torch.is_tensor(one[name])]
    torch.testing.assert_close(
        {name: one[name] for name in names}, {name: two[name] for name in names}, rtol=1e-4, atol=1e-6
    )


@pytest.mark.fault("SIGINT, resumed, kill -9, resumed", expected="the losses of an undisturbed run")
@pytest.mark.slow
def test_a_run_killed_between_checkpoints_resumes_exactly(tmp_path):
    config = discs.write_config(tmp_path)
    options = ["training.iterations=120", "training.checkpoint_interval=20", "training.val_interval=0"]
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    arguments = ["train", config, "--cfg-options", *options, "--work-dir"]
    process = begin(*arguments, cut, dropout=True)
    for number, name in ((signal.SIGINT, "iter_20.pth"), (signal.SIGKILL, "iter_60.pth")):
        while not (cut / name).exists():
            assert process.exitcode is None
            time.sleep(0.01)
        os.kill(process.pid, number)
        process.join(60)
        assert process.exitcode == {signal.SIGINT: 130, signal.SIGKILL: -9}[number]
        process = begin(*arguments, cut, "--resume", dropout=True)
    process.join(200)
    assert process.exitcode == 0
    tool(1, *arguments, whole, dropout=True)
    assert len(losses(whole)) == 120
    assert losses(cut) == losses(whole)
