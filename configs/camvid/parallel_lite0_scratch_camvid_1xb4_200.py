"""Classes and boundaries of street scenes, a part of CamVid: one light decoder per task, from random weights.

    python tools/train.py configs/camvid/parallel_lite0_scratch_camvid_1xb4_200.py

The data are prepared as datasets/camvid.md says.
The same with ImageNet weights is the file without `scratch`.
No paper reports this set-up. Ours: see docs/real_pictures.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.lite0 import PARALLEL
    from .._base_.real.camvid import evaluation, optimizer, protocol, train_data, training, val_data

name = "parallel from scratch"
model = dict(backbone=dict(type="TimmBackbone", name="tf_efficientnet_lite0", pretrained=False), **PARALLEL)
optimizer.update(backbone_lr=1.0)
