"""Learning to Branch for tasks whose answer is known: depth in metres, in feet, and classes.

    python tools/search.py configs/branching/ltb_narrow_synthetic_units_1xb8_800.py

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

name = "LTB"
model = dict(
    backbone=BACKBONE,
    adapters=[
        dict(
            type="BranchingSearch",
            mixing="straight_through",
            iterations=800,
            copies=(1, 2, 3, 3),
            image_size=(96, 128),
            cost_weight=0.0,
        )
    ],
    decoder=DECODER,
    head=dict(type="ConvHead"),
)
step = dict(type="SearchStep", held_out=0.2)
search = dict(type="LTBSearcher", held_out=0.2)
optimizer.update(architecture_lr=3e-2)
