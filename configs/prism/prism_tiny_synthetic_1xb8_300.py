"""PRISM with 8 experts on a narrow ViT, EfficientNet-Lite0 as the teacher: a smoke row on synthetic scenes.

    python tools/train.py configs/prism/prism_tiny_synthetic_1xb8_300.py

The paper's second phase: losses of tasks and distillation, here from random weights.
No paper reports on this data. Ours: see docs/leaderboard.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.vit_tiny_narrow import BACKBONE
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data
    from .._base_.synthetic_four_tasks import balancer, evaluation, optimizer, tasks, training
    from .._base_.teachers import CHANNELS, HEAD, TEACHERS

name = "prism"
PRISM = dict(type="PRISM", teachers=CHANNELS, experts=8)
model = dict(backbone=BACKBONE, adapters=[PRISM], decoder=dict(type="ConcatDecoder"), head=HEAD)
step = dict(type="DistillStep", teachers=TEACHERS, decorrelation=0.5)
