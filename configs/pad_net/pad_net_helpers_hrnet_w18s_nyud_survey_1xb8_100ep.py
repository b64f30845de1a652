"""PAD-Net (Xu et al., CVPR 2018) in the survey's version on NYUD-v2, helped by normals and edges.

    python tools/train.py configs/pad_net/pad_net_helpers_hrnet_w18s_nyud_survey_1xb8_100ep.py

Normals and edges have initial predictions only; the paper scores semseg and depth.

HRNet: the survey's, bilinear fusions and BatchNorm momentum 0.01.
Published: mIoU 35.5, RMSE 0.593 m, gain +2.90 % (README of the code).
Ours: not run yet.
The schedule moves with every iteration, the survey's with every epoch.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.hrnet_w18_small_survey import BACKBONE
    from .._base_.datasets.nyud_survey import evaluation, protocol, test_data, train_data, val_data
    from .._base_.schedules.survey_nyud_100ep import optimizer, training

name = "pad_net"
model = dict(
    backbone=BACKBONE,
    decoder=dict(type="PADNetDecoder", helpers=["normals", "edge"]),
    head=dict(type="ResidualHead"),
    heads=dict(normals=dict(type="ConvHead"), edge=dict(type="ConvHead")),
)
