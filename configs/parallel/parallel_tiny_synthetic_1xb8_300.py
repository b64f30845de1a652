"""One network, one light decoder per task: the plain row of the synthetic leaderboard.

    python tools/train.py configs/parallel/parallel_tiny_synthetic_1xb8_300.py

With tasks=['depth'] it is the single-task network of depth, and so on: what rows with this backbone gain over
(see `make leaderboard-demo`). No paper reports on this data. Ours: see docs/leaderboard.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data
    from .._base_.synthetic_four_tasks import balancer, evaluation, optimizer, tasks, training

name = "parallel"
model = dict(
    backbone=dict(type="TimmBackbone", name="regnetx_002"),
    decoder=dict(type="ParallelDecoder", width=32),
    head=dict(type="ConvHead"),
)
