"""MTAN (Liu et al., CVPR 2019) in the survey's version on NYUD-v2: dilated ResNet-50, two tasks.

    python tools/train.py configs/mtan/mtan_resnet50_nyud_survey_1xb8_100ep.py

72.05 M parameters, 394.3 G multiply-accumulates: those of the official model.
Published: mIoU 40.0, RMSE 0.572 m, gain -0.17 % (README of the code).
Ours: not run yet.
The schedule moves with every iteration, the survey's with every epoch.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.datasets.nyud_survey import protocol, test_data, train_data, val_data
    from .._base_.schedules.survey_nyud_100ep import optimizer, training

name = "mtan"
tasks = ["semseg", "depth"]
model = dict(
    backbone=dict(type="TimmBackbone", name="resnet50.tv_in1k", pretrained=True, output_stride=8),
    adapters=[dict(type="MTAN")],
    decoder=dict(type="ConcatDecoder", levels=[-1]),
    head=dict(type="DeepLabHead"),
)
