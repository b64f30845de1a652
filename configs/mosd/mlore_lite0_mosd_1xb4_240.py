"""Kinect frames of objects on a table, six tasks: a narrow MLoRE.

    python tools/train.py configs/mosd/mlore_lite0_mosd_1xb4_240.py

The data are prepared as datasets/mosd.md says.
No paper reports this set-up. Ours: see docs/real_pictures.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.lite0 import BACKBONE, MLORE
    from .._base_.real.mosd import evaluation, optimizer, protocol, train_data, training, val_data

name = "mlore"
model = dict(backbone=BACKBONE, **MLORE)
