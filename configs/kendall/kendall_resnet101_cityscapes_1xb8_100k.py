"""Uncertainty weighting of classes, instances and disparity on Cityscapes, ResNet-101.

    python tools/train.py configs/kendall/kendall_resnet101_cityscapes_1xb8_100k.py

Published: semantic mIoU, instance AP and disparity RMSE on the test server, which this suite cannot score.
Ours: not run yet.
Deviations: the paper's code was not released. A pyramid decoder per task at stride 4 stands in for
DeepLabV3's atrous pooling; backbone at output stride 32 instead of 8. Instances have a centre map and classes
of their own beside the paper's offsets, and are grouped around centres (Panoptic-DeepLab) instead of by
OPTICS. The factors of the likelihoods are 1 for all three, since none of the losses is a squared error.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.datasets.cityscapes_kendall import protocol, train_data, val_data

name = "uncertainty"
model = dict(
    backbone=dict(type="TimmBackbone", name="resnet101.a1_in1k", pretrained=True),
    decoder=dict(type="ParallelDecoder", width=256),
    head=dict(type="ConvHead", hidden=128),
)
balancer = dict(type="Uncertainty", factors=1.0)
optimizer = dict(type="SGD", lr=2.5e-3, momentum=0.9, nesterov=True, weight_decay=1e-4)
training = dict(iterations=100_000, checkpoint_interval=10_000)
