"""A base task, then its sub-tasks: classes alone first, then depth and normals with them.

    python tools/train.py configs/phases/sub_tasks_resnet10t_synthetic_1xb8_40.py

Decoders and heads of new tasks start fresh.
No paper reports on this data. Ours: not run yet; a tiny example for docs/phases.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data
    from .._base_.phases_synthetic import balancer, evaluation, model, optimizer, tasks, training

name = "base task, then sub-tasks"
phases = [
    dict(name="base", iterations=20, tasks=["semseg"], balancer=dict(type="FixedWeights")),
    dict(name="all", iterations=20),
]
