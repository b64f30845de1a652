"""Which two networks to train for three tasks: data maps (STG-MTL) of a multi-task network's training.

    python tools/search.py configs/branching/grouping_data_maps_resnet10t_synthetic_1xb8_1000.py --budget 2

Ten epochs, as each is one value per image. Any other training run records too with step.type=DataMapStep. No
paper reports on this data. Ours: see README.md in this folder.
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

name = "grouping"
model = dict(backbone=BACKBONE, decoder=DECODER, head=dict(type="ConvHead"))
step = dict(type="DataMapStep")
search = dict(type="GroupingSearcher", held_out=0.2, affinity="data_maps", networks=2)
training.update(iterations=1000, checkpoint_interval=500)
