"""MTAN on a small ResNet: a row of the synthetic leaderboard.

    python tools/train.py configs/mtan/mtan_tiny_synthetic_1xb8_300.py

No paper reports on this data. Ours: see docs/leaderboard.md.
A quarter of ResNet-18's width; the plain row's decoder reads the attended maps of all stages.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.resnet18_quarter import BACKBONE
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data
    from .._base_.synthetic_four_tasks import balancer, evaluation, optimizer, tasks, training

name = "mtan"
model = dict(
    backbone=BACKBONE,
    adapters=[dict(type="MTAN")],
    decoder=dict(type="ParallelDecoder", width=32),
    head=dict(type="ConvHead"),
)
