"""The single-task network of depth on a quarter of ResNet-18's width: what rows with it gain over.

    python tools/train.py configs/single_task/depth_resnet18_tiny_synthetic_1xb8_300.py

Like depth_tiny_synthetic_1xb8_300.py, with the backbone of
configs/cross_stitch/cross_stitch_tiny_synthetic_1xb8_300.py.
No paper reports on this data. Ours: see docs/leaderboard.md.
"""

from mmengine.config import read_base

with read_base():
    from .depth_tiny_synthetic_1xb8_300 import (
        balancer,
        evaluation,
        name,
        optimizer,
        protocol,
        provenance,
        tasks,
        test_data,
        train_data,
        training,
        val_data,
    )

model = dict(
    backbone=dict(
        type="TimmBackbone", name="resnet18", channels=(16, 32, 64, 128), stem_type="deep", stem_width=8
    ),
    decoder=dict(type="ParallelDecoder", width=32),
    head=dict(type="ConvHead"),
)
