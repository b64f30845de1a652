"""Houlsby adapters on a narrow ViT, whose base is random and frozen here: a smoke row on synthetic scenes.

    python tools/train.py configs/low_rank/houlsby_tiny_synthetic_1xb8_300.py

No paper reports on this data. Ours: see docs/leaderboard.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.vit_tiny_narrow import BACKBONE
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data
    from .._base_.synthetic_four_tasks import balancer, evaluation, optimizer, tasks, training

name = "houlsby"
model = dict(
    backbone=BACKBONE,
    adapters=[dict(type="Houlsby", shared={"*.attn.proj": 16, "*.mlp.fc2": 16})],
    decoder=dict(type="ParallelDecoder", width=32),
    head=dict(type="ConvHead"),
)
