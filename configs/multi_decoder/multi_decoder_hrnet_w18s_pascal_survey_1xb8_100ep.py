"""Multi-task baseline of the survey on PASCAL-Context: the small HRNet-W18, a head for each of five tasks.

    python tools/train.py configs/multi_decoder/multi_decoder_hrnet_w18s_pascal_survey_1xb8_100ep.py

Three tasks, 80 epochs: --cfg-options tasks="['semseg','human_parts','saliency']" training.iterations=49920

HRNet: the survey's, bilinear fusions and BatchNorm momentum 0.01.
Published: semseg 55.4, parts 59.4, saliency 65.4 (mIoU), edge 71.6, normals 15.0 degrees, gain -1.98 %
(README of the code); three tasks 56.3, 60.4, 65.8, gain -2.26 %.
Ours: not run yet.
The schedule moves with every iteration, the survey's with every epoch.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.hrnet_w18_small_survey import BACKBONE
    from .._base_.datasets.pascal_survey import evaluation, protocol, test_data, train_data, val_data
    from .._base_.schedules.survey_pascal_100ep import optimizer, training

name = "multi_decoder"
model = dict(
    backbone=BACKBONE,
    decoder=dict(type="ConcatDecoder"),
    head=dict(type="HighResolutionHead"),
)
