"""Medusa on a quarter of a ResNet-18: a smoke row on synthetic scenes.

    python tools/train.py configs/medusa/medusa_tiny_synthetic_1xb8_300.py

No paper reports on this data. Ours: see docs/leaderboard.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.resnet18_quarter import BACKBONE
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data
    from .._base_.synthetic_four_tasks import balancer, evaluation, optimizer, tasks, training

name = "medusa"
model = dict(
    backbone=BACKBONE,
    decoder=dict(type="MedusaDecoder", width=32),
    head=dict(type="ConvHead"),
)
