"""Boundaries and salient objects of photographs: a narrow InvPT.

    python tools/train.py configs/bsds_sod/invpt_lite0_bsds_sod_1xb4_200.py

The data are prepared as datasets/bsds_sod.md says.
No paper reports this set-up. Ours: see docs/real_pictures.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.lite0 import BACKBONE, INVPT
    from .._base_.real.bsds_sod import evaluation, optimizer, protocol, train_data, training, val_data

name = "invpt"
model = dict(backbone=BACKBONE, **INVPT)
