"""Fork, then merge: one network for a start, a fork of it for each task, and heads that learn on their merge.

    python tools/train.py configs/phases/fork_merge_resnet10t_synthetic_1xb8_40.py

The merge is task arithmetic of the shared backbone.
No paper reports on this data. Ours: not run yet; a tiny example for docs/phases.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data
    from .._base_.phases_synthetic import balancer, evaluation, model, optimizer, tasks, training

name = "fork, then merge"
ALONE = dict(iterations=8, start=dict(phase="base"), balancer=dict(type="FixedWeights"))
FORKS = dict(semseg="classes", depth="distance", normals="directions")
MERGED = dict(merge="task_arithmetic", base="base", parents=FORKS, options=dict(scale=0.3))
phases = [
    dict(name="base", iterations=8),
    *[dict(name=fork, tasks=[task], **ALONE) for task, fork in FORKS.items()],
    dict(name="together", iterations=8, start=MERGED, training=dict(freeze=["backbone.*"])),
]
