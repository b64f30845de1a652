"""One light decoder per task on a quarter of ResNet-18's width, on synthetic scenes.

    python tools/train.py configs/parallel/parallel_resnet18_tiny_synthetic_1xb8_300.py

The backbone is that of configs/cross_stitch/cross_stitch_tiny_synthetic_1xb8_300.py, the rest of
parallel_tiny_synthetic_1xb8_300.py. With tasks=['depth'] it is the single-task network of depth: rows
with this backbone gain over those (see `make leaderboard-demo`). No paper reports on this data.
Ours: the single-task networks, see docs/leaderboard.md; the row with all tasks was not run yet.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.synthetic_four_tasks import (
        balancer,
        evaluation,
        optimizer,
        protocol,
        provenance,
        tasks,
        test_data,
        train_data,
        training,
        val_data,
    )

name = "parallel"
model = dict(
    backbone=dict(
        type="TimmBackbone", name="resnet18", channels=(16, 32, 64, 128), stem_type="deep", stem_width=8
    ),
    decoder=dict(type="ParallelDecoder", width=32),
    head=dict(type="ConvHead"),
)
