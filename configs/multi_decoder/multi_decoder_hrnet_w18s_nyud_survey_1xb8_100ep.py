"""Multi-task baseline of the survey on NYUD-v2: the small HRNet-W18, a head for each of two tasks.

    python tools/train.py configs/multi_decoder/multi_decoder_hrnet_w18s_nyud_survey_1xb8_100ep.py

One task alone is the single-task network: --cfg-options tasks="['depth']"

4.02 M parameters, 12.8 G multiply-accumulates: those of the official model.
HRNet: the survey's, bilinear fusions and BatchNorm momentum 0.01.
Published: mIoU 33.9, RMSE 0.610 m, gain -0.75 %; single-task networks 34.5 and 0.610 m (README of the
code).
Ours: not run yet.
The schedule moves with every iteration, the survey's with every epoch.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.hrnet_w18_small_survey import BACKBONE
    from .._base_.datasets.nyud_survey import protocol, test_data, train_data, val_data
    from .._base_.schedules.survey_nyud_100ep import optimizer, training

name = "multi_decoder"
tasks = ["semseg", "depth"]
model = dict(
    backbone=BACKBONE,
    decoder=dict(type="ConcatDecoder"),
    head=dict(type="HighResolutionHead"),
)
