"""Multi-task baseline of the survey on NYUD-v2: dilated ResNet-50, a DeepLab head for each of two tasks.

    python tools/train.py configs/multi_decoder/multi_decoder_resnet50_nyud_survey_1xb8_100ep.py

One task alone is the single-task network: --cfg-options tasks="['depth']"

55.77 M parameters, 266.6 G multiply-accumulates: those of the official model.
Published: mIoU 39.8, RMSE 0.573 m, gain -0.55 %; single-task networks 40.1 and 0.571 m (README of the
code).
Ours: not run yet.
The schedule moves with every iteration, the survey's with every epoch.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.datasets.nyud_survey import protocol, test_data, train_data, val_data
    from .._base_.schedules.survey_nyud_100ep import optimizer, training

name = "multi_decoder"
tasks = ["semseg", "depth"]
model = dict(
    backbone=dict(type="TimmBackbone", name="resnet50.tv_in1k", pretrained=True, output_stride=8),
    decoder=dict(type="ConcatDecoder", levels=[-1]),
    head=dict(type="DeepLabHead"),
)
