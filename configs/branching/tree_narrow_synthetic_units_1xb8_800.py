"""The known answer trained: depth in metres and in feet share a narrow backbone, classes leave after a stage.

    python tools/train.py configs/branching/tree_narrow_synthetic_units_1xb8_800.py

A searched tree: --cfg-options model.adapters.0.tree=work_dirs/<search>/architecture.json

No paper reports on this data. Ours: see README.md in this folder.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.branching_units import balancer, evaluation, model, optimizer, tasks, training
    from .._base_.datasets.synthetic_units import protocol, provenance, test_data, train_data, val_data

name = "tree"
TOGETHER = [["depth", "depth_feet", "semseg"]]
APART = [["depth", "depth_feet"], ["semseg"]]
TREE = dict(blocks=[2, 1, 1, 1], levels=[TOGETHER, APART, APART, APART])
model.update(adapters=[dict(type="Branched", tree=TREE)])
