"""NDDR-CNN on four small streams: a row of the synthetic leaderboard.

    python tools/train.py configs/nddr/nddr_tiny_synthetic_1xb8_300.py

No paper reports on this data. Ours: see docs/leaderboard.md.
Four streams of a quarter of ResNet-18's width cost about as much as the one RegNet of the plain row. The
units learn at the common rate: the published factor of 100 belongs to SGD, Adam's steps are larger already.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.resnet18_quarter import BACKBONE
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data
    from .._base_.synthetic_four_tasks import balancer, evaluation, optimizer, tasks, training

name = "nddr"
model = dict(
    backbone=BACKBONE,
    adapters=[dict(type="NDDR", places=["model.maxpool", "levels"])],
    decoder=dict(type="ParallelDecoder", width=32),
    head=dict(type="ConvHead"),
)
