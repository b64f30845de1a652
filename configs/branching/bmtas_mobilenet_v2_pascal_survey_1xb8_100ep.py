"""BMTAS on PASCAL-Context, MobileNetV2, five tasks at 512x512: the search.

    python tools/search.py configs/branching/bmtas_mobilenet_v2_pascal_survey_1xb8_100ep.py

`--cfg-options model.adapters.0.cost_weight=...` sweeps the trade-off (paper: 0.05 and others). The paper
(Brueggemann et al., BMVC 2020) trains R-ASPP and DeepLab-like decoders by another schedule; its numbers are
not comparable. Ours: not run yet. Differs from the paper: see README.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.datasets.pascal_survey import protocol, test_data, train_data, val_data
    from .._base_.schedules.survey_pascal_100ep import optimizer, training
    from .._base_.searches.bmtas import ADAPTER, search, step

name = "BMTAS"
model = dict(
    backbone=dict(type="TimmBackbone", name="mobilenetv2_100", pretrained=True),
    adapters=[dict(**ADAPTER, cuts="blocks", iterations=62_400, cost_weight=0.05, image_size=(512, 512))],
    decoder=dict(type="ParallelDecoder", width=64),
    head=dict(type="ConvHead"),
)
optimizer.update(architecture_lr=1e-2)
