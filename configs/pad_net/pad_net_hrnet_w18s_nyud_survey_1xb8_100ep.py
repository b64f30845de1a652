"""PAD-Net (Xu et al., CVPR 2018) in the survey's version on NYUD-v2: the small HRNet-W18, two tasks.

    python tools/train.py configs/pad_net/pad_net_hrnet_w18s_nyud_survey_1xb8_100ep.py

7.02 M parameters, 70.0 G multiply-accumulates: those of the official model, which also computes the
initial predictions when it is not training (70.3 G).
HRNet: the survey's, bilinear fusions and BatchNorm momentum 0.01.
Published: mIoU 35.4, RMSE 0.614 m, gain +1.13 % (README of the code; a user of it reports an RMSE of 0.727
m).
Ours: not run yet.
The schedule moves with every iteration, the survey's with every epoch.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.hrnet_w18_small_survey import BACKBONE
    from .._base_.datasets.nyud_survey import protocol, test_data, train_data, val_data
    from .._base_.schedules.survey_nyud_100ep import optimizer, training

name = "pad_net"
tasks = ["semseg", "depth"]
model = dict(
    backbone=BACKBONE,
    decoder=dict(type="PADNetDecoder"),
    head=dict(type="ResidualHead"),
)
