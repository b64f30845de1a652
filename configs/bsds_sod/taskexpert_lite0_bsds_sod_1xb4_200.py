"""Boundaries and salient objects of photographs: a narrow TaskExpert.

    python tools/train.py configs/bsds_sod/taskexpert_lite0_bsds_sod_1xb4_200.py

The data are prepared as datasets/bsds_sod.md says.
No paper reports this set-up. Ours: see docs/real_pictures.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.lite0 import BACKBONE, TASKEXPERT
    from .._base_.real.bsds_sod import evaluation, optimizer, protocol, train_data, training, val_data

name = "taskexpert"
model = dict(backbone=BACKBONE, **TASKEXPERT)
