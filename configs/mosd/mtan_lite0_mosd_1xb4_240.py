"""Kinect frames of objects on a table, six tasks: MTAN's attention on three levels.

    python tools/train.py configs/mosd/mtan_lite0_mosd_1xb4_240.py

The data are prepared as datasets/mosd.md says.
The level of stride 32 is left out: its stage has one block, and MTAN needs two.
No paper reports this set-up. Ours: see docs/real_pictures.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.lite0 import FINE, PARALLEL
    from .._base_.real.mosd import evaluation, optimizer, protocol, train_data, training, val_data

name = "mtan"
model = dict(backbone=FINE, adapters=[dict(type="MTAN")], **PARALLEL)
