"""Which two networks to train for three tasks: look-ahead affinities (TAG) of a multi-task network.

    python tools/search.py configs/branching/grouping_resnet10t_synthetic_1xb8_200.py --budget 2

`search.affinity` is `lookahead`, `gradient` or `rsa`. No paper reports on this data. Ours: see README.md in
this folder.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.branching_synthetic import balancer, evaluation, model, optimizer, tasks, training
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data

name = "grouping"
search = dict(type="GroupingSearcher", held_out=0.2, affinity="lookahead", networks=2)
