"""Kinect frames of objects on a table, six tasks: MTI-Net on three levels.

    python tools/train.py configs/mosd/mti_net_lite0_mosd_1xb4_240.py

The data are prepared as datasets/mosd.md says.
The level of stride 32 is left out: it alone has 100 million parameters in this decoder.
No paper reports this set-up. Ours: see docs/real_pictures.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.lite0 import FINE, MTI_NET
    from .._base_.real.mosd import evaluation, optimizer, protocol, train_data, training, val_data

name = "mti_net"
model = dict(backbone=FINE, **MTI_NET)
