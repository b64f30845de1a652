"""PAD-Net with narrow tasks: a row of the synthetic leaderboard.

    python tools/train.py configs/pad_net/pad_net_tiny_synthetic_1xb8_300.py

No paper reports on this data. Ours: see docs/leaderboard.md.
A quarter of ResNet-18's width, and 32 channels a task in place of 256, as all of it runs at stride 4.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.resnet18_quarter import BACKBONE
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data
    from .._base_.synthetic_four_tasks import balancer, evaluation, optimizer, tasks, training

name = "pad_net"
model = dict(
    backbone=BACKBONE,
    decoder=dict(type="PADNetDecoder", width=32),
    head=dict(type="ResidualHead"),
)
