"""MTI-Net on a small ResNet: a row of the synthetic leaderboard.

    python tools/train.py configs/mti_net/mti_net_tiny_synthetic_1xb8_300.py

No paper reports on this data. Ours: see docs/leaderboard.md.
A quarter of ResNet-18's width, as in the other rows with this backbone.
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

name = "mti_net"
model = dict(
    backbone=dict(
        type="TimmBackbone", name="resnet18", channels=(16, 32, 64, 128), stem_type="deep", stem_width=8
    ),
    decoder=dict(type="MTINetDecoder"),
    head=dict(type="HighResolutionHead"),
)
