"""PAD-Net (Xu et al., CVPR 2018), the survey's, on PASCAL-Context: the small HRNet-W18, three tasks.

    python tools/train.py configs/pad_net/pad_net_hrnet_w18s_pascal_survey_1xb8_100ep.py

With all five tasks: 29.30 M parameters, 424.8 G multiply-accumulates.
HRNet: the survey's, bilinear fusions and BatchNorm momentum 0.01.
Published: semseg 52.7, parts 60.5, saliency 66.0 (mIoU), gain -4.08 % (README of the code).
Ours: not run yet.
The schedule moves with every iteration, the survey's with every epoch.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.hrnet_w18_small_survey import BACKBONE
    from .._base_.datasets.pascal_survey import protocol, test_data, train_data, val_data
    from .._base_.schedules.survey_pascal_100ep import optimizer, training

name = "pad_net"
tasks = ["semseg", "human_parts", "saliency"]
model = dict(
    backbone=BACKBONE,
    decoder=dict(type="PADNetDecoder"),
    head=dict(type="ResidualHead"),
)
