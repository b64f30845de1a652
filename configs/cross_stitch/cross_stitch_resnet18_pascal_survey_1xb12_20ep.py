"""Cross-Stitch networks (Misra et al., CVPR 2016), the survey's, on PASCAL-Context: five dilated ResNet-18.

    python tools/train.py configs/cross_stitch/cross_stitch_resnet18_pascal_survey_1xb12_20ep.py

Published runs start from trained single-task networks: train multi_decoder_resnet18_pascal with one task
at a time and give the checkpoints as `weights=dict(semseg="...", ...)` of the adapter. As it stands,
streams start from ImageNet.

Published: semseg 66.1, parts 60.6, saliency 66.8 (mIoU), edge 69.9, normals 13.9 degrees (quoted from
third-party notes on M3ViT's table).
Ours: not run yet.
The schedule moves with every iteration, the survey's with every epoch.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.datasets.pascal_survey import evaluation, protocol, test_data, train_data, val_data
    from .._base_.schedules.survey_stitched_pascal_20ep import optimizer, training

name = "cross_stitch"
model = dict(
    backbone=dict(type="TimmBackbone", name="resnet18.tv_in1k", pretrained=True, output_stride=8),
    adapters=[dict(type="CrossStitch", own=0.8, other=0.05)],
    decoder=dict(type="ConcatDecoder", levels=[-1]),
    head=dict(type="DeepLabHead"),
)
train_data.update(batch_size=12)
optimizer.update(lr_factors={"backbone.fusions.*": 100})
