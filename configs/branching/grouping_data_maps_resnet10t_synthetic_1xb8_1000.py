"""Which two networks to train for three tasks: data maps (STG-MTL) of a multi-task network's training.

    python tools/search.py configs/branching/grouping_data_maps_resnet10t_synthetic_1xb8_1000.py --budget 2

Ten epochs, as each is one value per image. Any other training run records too with step.type=DataMapStep. No
paper reports on this data. Ours: see README.md in this folder.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.branching_synthetic import balancer, evaluation, model, optimizer, tasks, training
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data

name = "grouping"
step = dict(type="DataMapStep")
search = dict(type="GroupingSearcher", held_out=0.2, affinity="data_maps", networks=2)
training.update(iterations=1000, checkpoint_interval=500)
