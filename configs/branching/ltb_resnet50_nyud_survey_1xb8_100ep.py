"""Learning to Branch on NYUD-v2, ResNet-50, the survey's protocol: the search.

    python tools/search.py configs/branching/ltb_resnet50_nyud_survey_1xb8_100ep.py

The paper (Guo et al., ICML 2020) has no dense numbers on NYUD; it reports Taskonomy with ResNet-34. Ours:
not run yet. Differs from the paper: see README.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.datasets.nyud_survey import protocol, test_data, train_data, val_data
    from .._base_.schedules.survey_nyud_100ep import optimizer, training
    from .._base_.searches.ltb import ADAPTER, search, step

name = "LTB"
tasks = ["semseg", "depth"]
model = dict(
    backbone=dict(type="TimmBackbone", name="resnet50", pretrained=True),
    adapters=[dict(**ADAPTER, iterations=9900, copies=(2, 2, 2, 2), image_size=(480, 640))],
    decoder=dict(type="ParallelDecoder", width=64),
    head=dict(type="ConvHead"),
)
optimizer.update(architecture_lr=1e-3)
