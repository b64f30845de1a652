"""Kinect frames of objects on a table, six tasks: one light decoder per task, from random weights.

    python tools/train.py configs/mosd/parallel_lite0_scratch_mosd_1xb4_240.py

The data are prepared as datasets/mosd.md says.
The same with ImageNet weights is the file without `scratch`.
No paper reports this set-up. Ours: see docs/real_pictures.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.lite0 import PARALLEL
    from .._base_.real.mosd import evaluation, optimizer, protocol, train_data, training, val_data

name = "parallel from scratch"
model = dict(backbone=dict(type="TimmBackbone", name="tf_efficientnet_lite0", pretrained=False), **PARALLEL)
optimizer.update(backbone_lr=1.0)
