"""The single-task network of depth on the synthetic leaderboard: what gains are computed over.

    python tools/train.py configs/single_task/depth_tiny_synthetic_1xb8_300.py

Like configs/parallel/parallel_tiny_synthetic_1xb8_300.py, with one task and its weight there. No paper
reports on this data. Ours: see docs/leaderboard.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.synthetic_four_tasks import (
        evaluation,
        optimizer,
        protocol,
        provenance,
        test_data,
        train_data,
        training,
        val_data,
    )

name = "single-task depth"
tasks = ["depth"]
balancer = dict(type="FixedWeights", weights=dict(depth=5.0))
model = dict(
    backbone=dict(type="TimmBackbone", name="regnetx_002"),
    decoder=dict(type="ParallelDecoder", width=32),
    head=dict(type="ConvHead"),
)
