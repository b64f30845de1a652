"""Updates of a hypernetwork on a narrow ViT with a random, frozen base: a smoke row on synthetic scenes.

    python tools/train.py configs/low_rank/hyper_low_rank_tiny_synthetic_1xb8_300.py

No paper reports on this data. Ours: see docs/leaderboard.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.vit_tiny_narrow import BACKBONE
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data
    from .._base_.synthetic_four_tasks import balancer, evaluation, optimizer, tasks, training

name = "hyper_low_rank"
model = dict(
    backbone=BACKBONE,
    adapters=[dict(type="HyperLowRank", shared={"*.attn.qkv": 4, "*.mlp.*": 4})],
    decoder=dict(type="ParallelDecoder", width=32),
    head=dict(type="ConvHead"),
)
