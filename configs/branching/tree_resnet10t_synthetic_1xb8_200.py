"""A searched tree, trained anew: the tiny ResNet branches as trees/ltb_resnet10t_synthetic.json says.

    python tools/train.py configs/branching/tree_resnet10t_synthetic_1xb8_200.py

Another tree: --cfg-options model.adapters.0.tree=work_dirs/<search>/architecture.json

No paper reports on this data. Ours: see README.md in this folder.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.branching_synthetic import balancer, evaluation, model, optimizer, tasks, training
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data

name = "tree"
model.update(adapters=[dict(type="Branched", tree="configs/branching/trees/ltb_resnet10t_synthetic.json")])
