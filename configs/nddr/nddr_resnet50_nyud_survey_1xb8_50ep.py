"""NDDR-CNN (Gao et al., CVPR 2019) in the survey's version on NYUD-v2: two dilated ResNet-50.

    python tools/train.py configs/nddr/nddr_resnet50_nyud_survey_1xb8_50ep.py

Published runs start from trained single-task networks: train multi_decoder_resnet50_nyud with one task at
a time and give the checkpoints as `weights=dict(semseg="...", ...)` of the adapter. As it stands, streams
start from ImageNet.

101.59 M parameters, 494.4 G multiply-accumulates: those of the official model.
Published: none available to us; the survey's code has this configuration.
Ours: not run yet.
The schedule moves with every iteration, the survey's with every epoch.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.datasets.nyud_survey import protocol, test_data, train_data, val_data
    from .._base_.schedules.survey_stitched_nyud_50ep import optimizer, training

name = "nddr"
tasks = ["semseg", "depth"]
model = dict(
    backbone=dict(type="TimmBackbone", name="resnet50.tv_in1k", pretrained=True, output_stride=8),
    adapters=[dict(type="NDDR", own=0.9, other=0.1, places=["model.maxpool", "levels"])],
    decoder=dict(type="ConcatDecoder", levels=[-1]),
    head=dict(type="DeepLabHead"),
)
optimizer.update(lr_factors={"backbone.fusions.*": 100})
