"""MTI-Net (Vandenhende et al., ECCV 2020) on NYUD-v2: the small HRNet-W18, two tasks.

    python tools/train.py configs/mti_net/mti_net_hrnet_w18s_nyud_survey_1xb8_100ep.py

8.58 M parameters, 17.1 G multiply-accumulates: those of the official model.
HRNet: the survey's, bilinear fusions and BatchNorm momentum 0.01.
Published: mIoU 36.2, RMSE 0.563 m, gain +6.36 % (README of the code); in the paper 35.12, 0.620 m, +6.40 %
(third-party notes).
Ours: not run yet.
The schedule moves with every iteration, the survey's with every epoch.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.hrnet_w18_small_survey import BACKBONE
    from .._base_.datasets.nyud_survey import protocol, test_data, train_data, val_data
    from .._base_.schedules.survey_nyud_100ep import optimizer, training

name = "mti_net"
tasks = ["semseg", "depth"]
model = dict(
    backbone=BACKBONE,
    decoder=dict(type="MTINetDecoder"),
    head=dict(type="HighResolutionHead"),
)
