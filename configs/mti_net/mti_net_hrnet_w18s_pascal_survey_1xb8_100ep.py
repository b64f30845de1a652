"""MTI-Net (Vandenhende et al., ECCV 2020) on PASCAL-Context: the small HRNet-W18, five tasks.

    python tools/train.py configs/mti_net/mti_net_hrnet_w18s_pascal_survey_1xb8_100ep.py

Three tasks: --cfg-options tasks="['semseg','human_parts','saliency']"

24.49 M parameters, 30.3 G multiply-accumulates: those of the official model.
HRNet: the survey's, bilinear fusions and BatchNorm momentum 0.01.
Published: semseg 62.8, parts 62.2, saliency 67.4 (mIoU), edge 73.0, normals 14.8 degrees, gain +2.72 %
(README of the code); three tasks 63.1, 62.1, 67.2, gain +3.20 %.
Ours: not run yet.
The schedule moves with every iteration, the survey's with every epoch.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.hrnet_w18_small_survey import BACKBONE
    from .._base_.datasets.pascal_survey import evaluation, protocol, test_data, train_data, val_data
    from .._base_.schedules.survey_pascal_100ep import optimizer, training

name = "mti_net"
model = dict(
    backbone=BACKBONE,
    decoder=dict(type="MTINetDecoder"),
    head=dict(type="HighResolutionHead"),
)
