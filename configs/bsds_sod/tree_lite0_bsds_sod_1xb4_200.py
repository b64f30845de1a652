"""Boundaries and salient objects of photographs: a branched encoder.

    python tools/train.py configs/bsds_sod/tree_lite0_bsds_sod_1xb4_200.py

The data are prepared as datasets/bsds_sod.md says.
The first 11 of 16 blocks are shared. Then the tasks part. The tree was not searched.
No paper reports this set-up. Ours: see docs/real_pictures.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.lite0 import BACKBONE, PARALLEL
    from .._base_.real.bsds_sod import evaluation, optimizer, protocol, train_data, training, val_data

name = "tree"
TREE = dict(blocks=[11, 5], levels=[[["edge", "saliency"]], [["edge"], ["saliency"]]])
model = dict(backbone=BACKBONE, adapters=[dict(type="Branched", tree=TREE)], **PARALLEL)
