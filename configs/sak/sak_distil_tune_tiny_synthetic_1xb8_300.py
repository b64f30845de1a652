"""SAK in its two phases: first distillation alone, then tasks and distillation. A smoke row.

    python tools/train.py configs/sak/sak_distil_tune_tiny_synthetic_1xb8_300.py

The paper's first phase has ImageNet without labels, and its learning rate is 50 times that of the second.
Here both have the synthetic scenes and one schedule.
No paper reports on this data. Ours: see docs/leaderboard.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data
    from .._base_.synthetic_four_tasks import balancer, evaluation, optimizer, tasks, training
    from .sak_tiny_synthetic_1xb8_300 import model, step

name = "sak, distil then tune"
phases = [
    dict(name="distil", iterations=150, step=dict(**step, only=True)),
    dict(name="tune", iterations=150, step=step),
]
