"""Multi-task baseline of the survey on PASCAL-Context: dilated ResNet-18, five DeepLab heads.

    python tools/train.py configs/multi_decoder/multi_decoder_resnet18_pascal_survey_1xb6_100ep.py

One task alone is the single-task network: --cfg-options tasks="['semseg']"

Published: semseg 63.8, parts 58.6, saliency 65.1 (mIoU), edge 69.2, normals 14.9 degrees; single-task
networks 66.2, 59.9, 66.3, 68.8, 13.9 (quoted from third-party notes on M3ViT's table).
Ours: not run yet.
The schedule moves with every iteration, the survey's with every epoch.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.datasets.pascal_survey import evaluation, protocol, test_data, train_data, val_data
    from .._base_.schedules.survey_pascal_100ep import optimizer, training

name = "multi_decoder"
model = dict(
    backbone=dict(type="TimmBackbone", name="resnet18.tv_in1k", pretrained=True, output_stride=8),
    decoder=dict(type="ConcatDecoder", levels=[-1]),
    head=dict(type="DeepLabHead"),
)
train_data.update(batch_size=6)
training.update(iterations=83_300)  # 100 epochs of 833 batches
