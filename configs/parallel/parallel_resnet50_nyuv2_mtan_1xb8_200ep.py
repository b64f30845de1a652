"""Multi-task baseline on MTAN's NYUv2: ResNet-50, decoders for 13 classes, depth and normals.

    python tools/train.py configs/parallel/parallel_resnet50_nyuv2_mtan_1xb8_200ep.py

One task alone is the single-task network: --cfg-options tasks="['normals']"

Published: none for this exact set-up. Ours: not run yet.
Schedule and data are those of LibMTL. Differs: a feature pyramid in place of a dilated network with DeepLab
heads. Scores are those of the last checkpoint, not of the epoch that is best on the test images.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.datasets.nyuv2_mtan import protocol, train_data, val_data
    from .._base_.schedules.libmtl_nyuv2_200ep import optimizer, schedule, training

name = "parallel"
model = dict(
    backbone=dict(type="TimmBackbone", name="resnet50.tv_in1k", pretrained=True),
    decoder=dict(type="ParallelDecoder", width=64),
    head=dict(type="ConvHead"),
)
train_data.update(batch_size=8)
train_data.dataset.update(transforms="mtan-eval")  # LibMTL does not augment by default
