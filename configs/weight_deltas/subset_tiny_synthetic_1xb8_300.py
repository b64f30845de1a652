"""SubTuning on a narrow ViT, whose base is random and frozen here: a smoke row on synthetic scenes.

    python tools/train.py configs/weight_deltas/subset_tiny_synthetic_1xb8_300.py

No paper reports on this data. Ours: see docs/leaderboard.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.vit_tiny_narrow import BACKBONE
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data
    from .._base_.synthetic_four_tasks import balancer, evaluation, optimizer, tasks, training

name = "subset"
BLOCKS = dict(semseg=["model.blocks.4", "model.blocks.5"], depth=["model.blocks.5"])
model = dict(
    backbone=BACKBONE,
    adapters=[dict(type="Subset", blocks=BLOCKS)],
    decoder=dict(type="ParallelDecoder", width=32),
    head=dict(type="ConvHead"),
)
