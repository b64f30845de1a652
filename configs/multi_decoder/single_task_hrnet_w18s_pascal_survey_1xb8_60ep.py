"""Single-task network of the survey on PASCAL-Context: the small HRNet-W18.

    python tools/train.py configs/multi_decoder/single_task_hrnet_w18s_pascal_survey_1xb8_60ep.py

Other tasks: --cfg-options tasks="['human_parts']" and so on.

HRNet: the survey's, bilinear fusions and BatchNorm momentum 0.01.
Published: semseg 59.4, parts 60.3, saliency 67.0 (mIoU), edge 69.2, normals 14.6 degrees (README of the
code).
Ours: not run yet.
The schedule moves with every iteration, the survey's with every epoch.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.hrnet_w18_small_survey import BACKBONE
    from .._base_.datasets.pascal_survey import protocol, test_data, train_data, val_data
    from .._base_.schedules.survey_single_pascal_60ep import optimizer, training

name = "single_task"
tasks = ["semseg"]
model = dict(
    backbone=BACKBONE,
    decoder=dict(type="ConcatDecoder"),
    head=dict(type="HighResolutionHead"),
)
