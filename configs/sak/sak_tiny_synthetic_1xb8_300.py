"""SAK on a narrow ViT, with EfficientNet-Lite0 as the teacher: a smoke row on synthetic scenes.

    python tools/train.py configs/sak/sak_tiny_synthetic_1xb8_300.py

The paper's second phase: losses of tasks and distillation, here from random weights.
No paper reports on this data. Ours: see docs/leaderboard.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.vit_tiny_narrow import BACKBONE
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data
    from .._base_.synthetic_four_tasks import balancer, evaluation, optimizer, tasks, training
    from .._base_.teachers import CHANNELS, HEAD, TEACHERS

name = "sak"
SAK = dict(type="SAK", teachers=CHANNELS, align=True)
model = dict(backbone=BACKBONE, adapters=[SAK], decoder=dict(type="ConcatDecoder"), head=HEAD)
step = dict(type="DistillStep", teachers=TEACHERS)
