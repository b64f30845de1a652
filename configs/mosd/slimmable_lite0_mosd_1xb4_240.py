"""Kinect frames of objects on a table, six tasks: a slimmable network, scored at full width.

    python tools/train.py configs/mosd/slimmable_lite0_mosd_1xb4_240.py

The data are prepared as datasets/mosd.md says.
Two configurations a step, the largest and the smallest.
No paper reports this set-up. Ours: see docs/real_pictures.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.lite0 import BACKBONE, PARALLEL
    from .._base_.real.mosd import evaluation, optimizer, protocol, train_data, training, val_data

name = "slimmable"
model = dict(backbone=BACKBONE, adapters=[dict(type="Slimmable")], **PARALLEL)
step = dict(type="SandwichStep", passes=2, warmup=12)
