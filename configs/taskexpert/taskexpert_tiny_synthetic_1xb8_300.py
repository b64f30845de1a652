"""A narrow TaskExpert: a row of the synthetic leaderboard.

    python tools/train.py configs/taskexpert/taskexpert_tiny_synthetic_1xb8_300.py

Its modules on a small RegNet, whose levels are resized to stride 16. No paper reports on
this data. Ours: see docs/leaderboard.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data
    from .._base_.synthetic_four_tasks import balancer, evaluation, optimizer, tasks, training

name = "taskexpert"
model = dict(
    backbone=dict(type="TimmBackbone", name="regnetx_002"),
    decoder=dict(type="TaskExpertDecoder", width=48, experts=5),
    head=dict(type="ConvHead", hidden=48, activation="gelu"),
)
