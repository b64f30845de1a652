"""PRISM in its two phases: experts are routed by teachers alone, then by tasks as well. A smoke row.

    python tools/train.py configs/prism/prism_distil_tune_tiny_synthetic_1xb8_300.py

The paper's first phase has ImageNet without labels, larger rates for new modules, and starts from SAK's stem.
Here both phases have the synthetic scenes and one schedule, from random weights.
No paper reports on this data. Ours: see docs/leaderboard.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data
    from .._base_.synthetic_four_tasks import balancer, evaluation, optimizer, tasks, training
    from .prism_tiny_synthetic_1xb8_300 import model, step

name = "prism, distil then tune"
phases = [
    dict(name="distil", iterations=150, step=dict(**step, only=True)),
    dict(name="tune", iterations=150, step=step),
]
