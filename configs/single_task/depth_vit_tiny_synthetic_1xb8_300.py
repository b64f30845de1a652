"""The single-task network of depth on a tiny ViT: what rows with it gain over.

    python tools/train.py configs/single_task/depth_vit_tiny_synthetic_1xb8_300.py

Like depth_tiny_synthetic_1xb8_300.py, with the backbone of
configs/invpt/invpt_tiny_synthetic_1xb8_300.py.
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
        type="TimmBackbone",
        name="vit_tiny_patch16_224",
        img_size=(96, 128),
        embed_dim=96,
        depth=6,
        num_heads=4,
        patch_size=8,
    ),
    decoder=dict(type="ParallelDecoder", width=32),
    head=dict(type="ConvHead"),
)
