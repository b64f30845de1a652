"""A narrow InvPT on a tiny ViT: a row of the synthetic leaderboard.

    python tools/train.py configs/invpt/invpt_tiny_synthetic_1xb8_300.py

No paper reports on this data. Ours: see docs/leaderboard.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.vit_tiny_narrow import BACKBONE
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data
    from .._base_.synthetic_four_tasks import balancer, evaluation, optimizer, tasks, training

name = "invpt"
model = dict(
    backbone=BACKBONE,
    decoder=dict(type="InvPTDecoder", width=32, hidden=32),
    head=dict(type="ConvHead"),
)
