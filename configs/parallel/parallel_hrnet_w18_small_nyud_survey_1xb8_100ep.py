"""Multi-task baseline of the survey's protocol on NYUD-v2: the small HRNet-W18, two tasks.

    python tools/train.py configs/parallel/parallel_hrnet_w18_small_nyud_survey_1xb8_100ep.py

One task alone is the single-task network: --cfg-options tasks="['depth']"

HRNet: timm's, nearest-neighbour fusions and BatchNorm momentum 0.1,
with timm's bottlenecks after its branches.
Published: mIoU 33.9, RMSE 0.610 m for the survey's multi-task baseline (README of its code). It concatenates
the four branches of HRNet; this one sums a feature pyramid. Ours: not run yet.
The schedule moves with every iteration, the survey's with every epoch.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.datasets.nyud_survey import protocol, test_data, train_data, val_data
    from .._base_.schedules.survey_nyud_100ep import optimizer, training

name = "parallel"
tasks = ["semseg", "depth"]
model = dict(
    backbone=dict(type="TimmBackbone", name="hrnet_w18_small_v2", pretrained=True),
    decoder=dict(type="ParallelDecoder", width=64),
    head=dict(type="ConvHead"),
)
