"""BMTAS on synthetic scenes: a tree for a tiny ResNet and three tasks.

    python tools/search.py configs/branching/bmtas_resnet10t_synthetic_1xb8_200.py

One run per `model.adapters.0.cost_weight` gives the trade-off between cost and scores. No paper reports on
this data. Ours: see README.md in this folder.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.branching_synthetic import (
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

name = "BMTAS"
model = dict(
    backbone=BACKBONE,
    adapters=[
        dict(
            type="BranchingSearch",
            mixing="streams",
            iterations=200,
            image_size=(96, 128),
            cost_weight=10.0,  # the whole backbone is a hundredth of a GMAC
        )
    ],
    decoder=DECODER,
    head=dict(type="ConvHead"),
)
step = dict(type="SearchStep", held_out=0.2)
search = dict(type="BMTASSearcher", held_out=0.2)
optimizer.update(architecture_lr=3e-2)
