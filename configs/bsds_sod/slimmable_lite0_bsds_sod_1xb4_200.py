"""Boundaries and salient objects of photographs: a slimmable network, scored at full width.

    python tools/train.py configs/bsds_sod/slimmable_lite0_bsds_sod_1xb4_200.py

The data are prepared as datasets/bsds_sod.md says.
Two configurations a step, the largest and the smallest.
No paper reports this set-up. Ours: see docs/real_pictures.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.lite0 import BACKBONE, PARALLEL
    from .._base_.real.bsds_sod import evaluation, optimizer, protocol, train_data, training, val_data

name = "slimmable"
model = dict(backbone=BACKBONE, adapters=[dict(type="Slimmable")], **PARALLEL)
step = dict(type="SandwichStep", passes=2, warmup=12)
