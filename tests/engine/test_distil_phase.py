"""Distil, then tune: a run in two phases with drawn teachers, its files, and its resume."""

from __future__ import annotations

import discs
import pytest
import torch
from mmengine.hooks import Hook

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
