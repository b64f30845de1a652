"""The known answer trained: depth in metres and in feet share a narrow backbone, classes leave after a stage.

    python tools/train.py configs/branching/tree_narrow_synthetic_units_1xb8_800.py

A searched tree: --cfg-options model.adapters.0.tree=work_dirs/<search>/architecture.json

No paper reports on this data. Ours: see README.md in this folder.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.branching_units import (
        BACKBONE,
        DECODER,
        balancer,
        evaluation,
        optimizer,
        protocol,
        provenance,
        tasks,
        test_data,
        train_data,
        training,
        val_data,
    )

name = "tree"
model = dict(
    backbone=BACKBONE,
    adapters=[
        dict(
            type="Branched",
            tree=dict(
                blocks=[2, 1, 1, 1],
                levels=[
                    [["depth", "depth_feet", "semseg"]],
                    [["depth", "depth_feet"], ["semseg"]],
                    [["depth", "depth_feet"], ["semseg"]],
                    [["depth", "depth_feet"], ["semseg"]],
                ],
            ),
        )
    ],
    decoder=DECODER,
    head=dict(type="ConvHead"),
)
