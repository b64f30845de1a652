"""A tree on NYUD-v2, ResNet-50: shared up to stride 16, last stage per task; or any searched one.

    python tools/train.py configs/branching/tree_resnet50_nyud_survey_1xb8_100ep.py

The tree below is written by hand. A searched one: --cfg-options
model.adapters.0.tree=work_dirs/<search>/architecture.json

Published: none for this set-up (Branched MTN's paper has other decoders). Ours: not run yet.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.datasets.nyud_survey import protocol, test_data, train_data, val_data
    from .._base_.schedules.survey_nyud_100ep import optimizer, training

name = "tree"
tasks = ["semseg", "depth"]
TOGETHER = [["semseg", "depth"]]
TREE = dict(blocks=[4, 4, 6, 3], levels=[TOGETHER, TOGETHER, TOGETHER, [["semseg"], ["depth"]]])
model = dict(
    backbone=dict(type="TimmBackbone", name="resnet50", pretrained=True),
    adapters=[dict(type="Branched", tree=TREE)],
    decoder=dict(type="ParallelDecoder", width=64),
    head=dict(type="ConvHead"),
)
