"""Distil, then tune: a run in two phases with drawn teachers, its files, its resume, and two processes."""

from __future__ import annotations

import discs
import pytest
import torch
from mmengine.hooks import Hook
from several_processes import tool

from mtvision.engine.training import fit
from mtvision.recipe.config import load_config
from mtvision.runtime.checkpoint import load_checkpoint

PHASES = """
VIT = dict(type="TimmBackbone", name="vit_tiny_patch16_224", embed_dim=8, depth=2, num_heads=2, levels=[0, 1])
model = dict(
    backbone=VIT,
    adapters=[dict(type="PRISM", teachers=dict(clip=8, sam=8), experts=3, top_k=2)],
    decoder=dict(type="ConcatDecoder"),
    head=dict(type="LevelsHead", levels=2),
)
STEP = dict(type="DistillStep", teachers=dict(clip=VIT, sam=VIT))
phases = [
    dict(name="distil", iterations=2, step=dict(**STEP, only=True)),
    dict(name="tune", iterations=2, step=STEP),
]
"""
SHORT = ("training.iterations=4", "training.checkpoint_interval=1", "training.val_interval=0")


class StoppedError(Exception):
    pass


class Stop(Hook):
    """Ends the run after a step."""

    def after_train_iter(self, runner, *_, **__):
        if runner.iter + 1 == 3:
            raise StoppedError


def run(folder, **options):
    config = load_config(discs.write_config(folder, discs.CONFIG + PHASES), SHORT)
    fit(config, folder / "run", quiet=True, resume="auto", **options)
    return [load_checkpoint(folder / f"run/iter_{step}.pth") for step in (2, 4)]


@pytest.mark.slow
def test_a_first_phase_distils_and_a_second_tunes_also_after_a_stop(tmp_path):
    distilled, tuned = run(tmp_path)
    first, last = distilled["state_dict"], tuned["state_dict"]
    assert not any(part in name for name in last for part in ("teachers.", "step.", "encoders"))
    assert first.keys() == last.keys()
    moved = {name for name, item in first.items() if not torch.equal(item, last[name])}
    assert any(name.startswith("network.heads.") for name in moved)
    assert len(distilled["optimizer"]["state"]) < len(tuned["optimizer"]["state"])  # heads have not moved
    (tmp_path / "again").mkdir()
    with pytest.raises(StoppedError):
        run(tmp_path / "again", hooks=[Stop()])
    again = run(tmp_path / "again")[1]["state_dict"]  # teachers and their images are drawn alike
    assert all(torch.equal(item, again[name]) for name, item in last.items())


@pytest.mark.slow
@pytest.mark.long
def test_two_processes_of_two_images_take_the_steps_of_one_of_four(tmp_path):
    """Of both phases: without noise and batch norm, with every pixel labelled, gradients are the same."""
    student = 'dict(type="SAK", teachers=dict(clip=8, sam=8), align=True, noise="none")'
    text = PHASES.replace('dict(type="PRISM", teachers=dict(clip=8, sam=8), experts=3, top_k=2)', student)
    text = text.replace('type="ConcatDecoder"', 'type="ParallelDecoder", width=8, norm="group"')
    text = text.replace('type="LevelsHead", levels=2', 'type="ConvHead"')
    text = text.replace("num_heads=2", "num_heads=2, patch_size=8")  # maps of more than one pixel
    config = discs.write_config(tmp_path, discs.CONFIG + text)
    options = [*SHORT, "optimizer.type=SGD", "optimizer.lr=0.05"]
    for processes, size in ((1, 4), (2, 2)):
        arguments = ["--work-dir", tmp_path / str(processes), "--cfg-options", *options]
        tool(processes, "train", config, *arguments, f"train_data.batch_size={size}")
    for step in (2, 4):
        one, two = (load_checkpoint(tmp_path / f"{count}/iter_{step}.pth")["state_dict"] for count in (1, 2))
        torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_process_without_an_image_of_a_teacher_keeps_up(tmp_path):
    """One image per process: each shows maps for one of two teachers."""
    config = discs.write_config(tmp_path, discs.CONFIG + PHASES)
    options = [*SHORT, "train_data.batch_size=1", "balancer.type=UPGrad"]
    tool(2, "train", config, "--work-dir", tmp_path / "run", "--cfg-options", *options)
    assert (tmp_path / "run/iter_4.pth").is_file()
