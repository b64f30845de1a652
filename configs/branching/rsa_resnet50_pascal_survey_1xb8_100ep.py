"""Branched Multi-Task Networks on PASCAL-Context, ResNet-50: single-task networks, RSA, beam search.

    python tools/search.py configs/branching/rsa_resnet50_pascal_survey_1xb8_100ep.py --budget 2

The paper (Vandenhende et al., BMVC 2020) cuts ResNet-50 into four stages too, with other decoders; its
numbers are not comparable. Ours: not run yet.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.datasets.pascal_survey import protocol, test_data, train_data, val_data
    from .._base_.schedules.survey_pascal_100ep import optimizer, training

name = "RSA"
model = dict(
    backbone=dict(type="TimmBackbone", name="resnet50", pretrained=True),
    decoder=dict(type="ParallelDecoder", width=64),
    head=dict(type="ConvHead"),
)
search = dict(type="RSASearcher", held_out=0.2, images=256, image_size=(512, 512))
