"""A narrow MLoRE: a row of the synthetic leaderboard.

    python tools/train.py configs/mlore/mlore_tiny_synthetic_1xb8_300.py

Its blocks on a small RegNet, whose levels are resized to stride 16. No paper reports on
this data. Ours: see docs/leaderboard.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data
    from .._base_.synthetic_four_tasks import balancer, evaluation, optimizer, tasks, training

name = "mlore"
model = dict(
    backbone=dict(type="TimmBackbone", name="regnetx_002"),
    decoder=dict(type="MLoREDecoder", width=48, ranks=(4, 8, 12, 16, 20, 24), task_rank=8, top_k=4),
    head=dict(type="ConvHead", hidden=48, activation="gelu"),
)
