"""A narrow TaskPrompter on a tiny ViT: a row of the synthetic leaderboard.

    python tools/train.py configs/taskprompter/taskprompter_tiny_synthetic_1xb8_300.py

No paper reports on this data. Ours: see docs/leaderboard.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.vit_tiny_narrow import BACKBONE
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data
    from .._base_.synthetic_four_tasks import balancer, evaluation, optimizer, tasks, training

name = "taskprompter"
model = dict(
    backbone=BACKBONE,
    adapters=[dict(type="TaskPrompts", windows=2)],
    decoder=dict(type="TaskPrompterDecoder", width=32, out_width=32, reweight=4, upscale=2),
    head=dict(type="ConvHead", hidden=32, activation="gelu"),
)
