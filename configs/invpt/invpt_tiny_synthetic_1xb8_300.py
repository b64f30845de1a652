"""A narrow InvPT on a tiny ViT: a row of the synthetic leaderboard.

    python tools/train.py configs/invpt/invpt_tiny_synthetic_1xb8_300.py

No paper reports on this data. Ours: see docs/leaderboard.md.
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

name = "invpt"
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
    decoder=dict(type="InvPTDecoder", width=32, hidden=32),
    head=dict(type="ConvHead"),
)
