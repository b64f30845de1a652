"""PAD-Net with narrow tasks: a row of the synthetic leaderboard.

    python tools/train.py configs/pad_net/pad_net_tiny_synthetic_1xb8_300.py

No paper reports on this data. Ours: see docs/leaderboard.md.
A quarter of ResNet-18's width, and 32 channels a task in place of 256, as all of it runs at stride 4.
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

name = "pad_net"
model = dict(
    backbone=dict(
        type="TimmBackbone", name="resnet18", channels=(16, 32, 64, 128), stem_type="deep", stem_width=8
    ),
    decoder=dict(type="PADNetDecoder", width=32),
    head=dict(type="ResidualHead"),
)
