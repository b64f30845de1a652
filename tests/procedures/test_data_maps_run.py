"""Data maps recorded by a search's own training, through the command line; resumed and on two processes."""

from __future__ import annotations

import json
import shutil

import discs
import pytest
import torch
from several_processes import tool

from mtvision.cli.main import call
from mtvision.core.random import is_held_out
from mtvision.runtime.checkpoint import load_checkpoint
from mtvision.steps.data_map import DataMap

STEPS = 12
GROUPING = f"""
step = dict(type="DataMapStep")
search = dict(type="GroupingSearcher", affinity="data_maps", networks=1, held_out=0.4)
training.update(iterations={STEPS}, checkpoint_interval=4, val_interval=0, keep_checkpoints=9)
"""


def config_in(folder, text=discs.CONFIG):
    folder.mkdir(exist_ok=True, parents=True)
    return discs.write_config(folder, text + GROUPING)


def map_in(checkpoint):
    return DataMap.from_state(load_checkpoint(checkpoint)["state_dict"]["step._extra_state"])


@pytest.mark.slow
def test_a_search_records_groups_and_resumes_to_the_same_result(tmp_path):
    config, work = config_in(tmp_path), tmp_path / "work"
    assert call("search", [str(config), "--work-dir", str(work)]) == 0
    found = json.loads((work / "architecture.json").read_text())
    assert found["groups"] == [["semseg", "depth"]]
    assert (work / "architecture.affinity.png").is_file()
    last = work / "training" / f"iter_{STEPS}.pth"
    recorded = map_in(last)
    images = recorded.images(["semseg", "depth"])
    assert images == sorted(f"disc-{i}" for i in range(12) if not is_held_out(f"disc-{i}", 0.4))
    counts = [recorded.moments["depth"][name][0] for name in images]
    assert sum(counts) == STEPS * 4  # every image of every batch
    killed = tmp_path / "killed"
    shutil.copytree(work, killed)
    (killed / "architecture.json").unlink()
    for iteration in (8, STEPS):
        (killed / "training" / f"iter_{iteration}.pth").unlink()
    assert call("search", [str(config), "--work-dir", str(killed), "--resume"]) == 0
    again = json.loads((killed / "architecture.json").read_text())
    assert again["affinities"] == found["affinities"]
    assert map_in(killed / "training" / f"iter_{STEPS}.pth").moments == recorded.moments


def test_a_run_without_recording_says_which_step_is_needed(tmp_path, capsys):
    config = config_in(tmp_path)
    options = ["--cfg-options", "step.type=PlainStep"]
    assert call("search", [str(config), "--work-dir", str(tmp_path / "work"), *options]) == 2
    assert "DataMapStep" in capsys.readouterr().err


def test_recording_around_a_search_step_leaves_it_the_held_out_images(tmp_path):
    config = config_in(tmp_path)
    options = ["--cfg-options", "training.iterations=12", "step.step={'type': 'SearchStep', 'held_out': 0.4}"]
    assert call("search", [str(config), "--work-dir", str(tmp_path / "work"), *options]) == 0
    recorded = map_in(tmp_path / "work" / "training" / f"iter_{STEPS}.pth")
    seen = recorded.images(["depth"])
    assert any(is_held_out(name, 0.4) for name in seen)
    assert len(seen) == 12


@pytest.mark.slow
def test_two_processes_record_what_one_does(tmp_path):
    text = discs.CONFIG.replace('type="DropoutNet"', 'type="DropoutNet", norm="group"')
    config = config_in(
        tmp_path, text.replace('type="ParallelDecoder"', 'type="ParallelDecoder", norm="group"')
    )
    found = []
    for processes in (1, 2):
        work = tmp_path / str(processes)
        options = [f"train_data.batch_size={4 // processes}", "optimizer.type=SGD", "optimizer.lr=0.05"]
        tool(processes, "search", config, "--work-dir", work, "--cfg-options", *options)
        found.append(map_in(work / "training" / f"iter_{STEPS}.pth"))
    one, two = found
    images = one.images(["semseg", "depth"])
    assert images == two.images(["semseg", "depth"])
    for task in ("semseg", "depth"):
        assert [one.moments[task][name][0] for name in images] == [
            two.moments[task][name][0] for name in images
        ]
        torch.testing.assert_close(
            one.mean_and_std(task, images), two.mean_and_std(task, images), rtol=1e-3, atol=1e-5
        )
