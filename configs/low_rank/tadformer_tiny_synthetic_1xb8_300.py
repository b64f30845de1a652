"""TADFormer on a narrow ViT, whose base is random and frozen here: a smoke row on synthetic scenes.

    python tools/train.py configs/low_rank/tadformer_tiny_synthetic_1xb8_300.py

No paper reports on this data. Ours: see docs/leaderboard.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.vit_tiny_narrow import BACKBONE
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data
    from .._base_.synthetic_four_tasks import balancer, evaluation, optimizer, tasks, training

name = "tadformer"
LAYERS = dict(shared={"*.attn.*": 8, "*.mlp.*": 8}, own={"*.mlp.*": 3})
model = dict(
    backbone=BACKBONE,
    adapters=[dict(type="TADFormer", **LAYERS, dynamic=True, side=True)],
    decoder=dict(type="ParallelDecoder", width=32),
    head=dict(type="ConvHead"),
)
