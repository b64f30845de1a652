"""Kinect frames of objects on a table, six tasks: a narrow InvPT.

    python tools/train.py configs/mosd/invpt_lite0_mosd_1xb4_240.py

The data are prepared as datasets/mosd.md says.
No paper reports this set-up. Ours: see docs/real_pictures.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.lite0 import BACKBONE, INVPT
    from .._base_.real.mosd import evaluation, optimizer, protocol, train_data, training, val_data

name = "invpt"
model = dict(backbone=BACKBONE, **INVPT)
