"""Boundaries and salient objects of photographs: PAD-Net with narrow tasks.

    python tools/train.py configs/bsds_sod/pad_net_lite0_bsds_sod_1xb4_200.py

The data are prepared as datasets/bsds_sod.md says.
No paper reports this set-up. Ours: see docs/real_pictures.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.lite0 import BACKBONE, PAD_NET
    from .._base_.real.bsds_sod import evaluation, optimizer, protocol, train_data, training, val_data

name = "pad_net"
model = dict(backbone=BACKBONE, **PAD_NET)
