"""MTI-Net (Vandenhende et al., ECCV 2020) on NYUD-v2, helped by normals and edges.

    python tools/train.py configs/mti_net/mti_net_helpers_hrnet_w18s_nyud_survey_1xb8_100ep.py

Normals and edges are predicted at every scale but have no final prediction; the paper scores semseg and
depth.

HRNet: the survey's, bilinear fusions and BatchNorm momentum 0.01.
Published: mIoU 37.6, RMSE 0.539 m, gain +10.32 % (README of the code); in the paper 37.49, 0.607 m, +10.91
% (third-party notes).
Ours: not run yet.
The schedule moves with every iteration, the survey's with every epoch.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.hrnet_w18_small_survey import BACKBONE
    from .._base_.datasets.nyud_survey import evaluation, protocol, test_data, train_data, val_data
    from .._base_.schedules.survey_nyud_100ep import optimizer, training

name = "mti_net"
model = dict(
    backbone=BACKBONE,
    decoder=dict(type="MTINetDecoder", helpers=["normals", "edge"]),
    head=dict(type="HighResolutionHead"),
    heads=dict(normals=dict(type="ConvHead"), edge=dict(type="ConvHead")),
)
