"""One light decoder per task on a narrow Swin, on synthetic scenes.

    python tools/train.py configs/parallel/parallel_swin_tiny_synthetic_1xb8_300.py

The backbone is that of configs/vtagml/vtagml_tiny_synthetic_1xb8_300.py, the rest of
parallel_tiny_synthetic_1xb8_300.py. With tasks=['depth'] it is the single-task network of depth: rows
with this backbone gain over those (see `make leaderboard-demo`). No paper reports on this data.
Ours: the single-task networks, see docs/leaderboard.md; the row with all tasks was not run yet.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.swin_tiny_narrow import BACKBONE
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data
    from .._base_.synthetic_four_tasks import balancer, evaluation, optimizer, tasks, training

name = "parallel"
model = dict(
    backbone=BACKBONE,
    decoder=dict(type="ParallelDecoder", width=32),
    head=dict(type="ConvHead"),
)
