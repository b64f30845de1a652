"""Kinect frames of objects on a table, six tasks: a branched encoder.

    python tools/train.py configs/mosd/tree_lite0_mosd_1xb4_240.py

The data are prepared as datasets/mosd.md says.
The first 11 of 16 blocks are shared. Then depth and normals part from the rest. The tree was not
searched.
No paper reports this set-up. Ours: see docs/real_pictures.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.lite0 import BACKBONE, PARALLEL
    from .._base_.real.mosd import evaluation, optimizer, protocol, train_data, training, val_data

name = "tree"
TREE = dict(
    blocks=[11, 5],
    levels=[
        [["semseg", "edge", "saliency", "instance", "depth", "normals"]],
        [["semseg", "edge", "saliency", "instance"], ["depth", "normals"]],
    ],
)
model = dict(backbone=BACKBONE, adapters=[dict(type="Branched", tree=TREE)], **PARALLEL)
