"""Learning to Branch on synthetic scenes: a tree for a tiny ResNet and three tasks.

    python tools/search.py configs/branching/ltb_resnet10t_synthetic_1xb8_200.py

writes work_dirs/ltb_resnet10t_synthetic_1xb8_200/architecture.json, which
tree_resnet10t_synthetic_1xb8_200.py trains anew. No paper reports on this data. Ours: see README.md in this
folder.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.branching_synthetic import balancer, evaluation, model, optimizer, tasks, training
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data
    from .._base_.searches.ltb import ADAPTER, search, step

name = "LTB"
ADAPTER.update(iterations=200, copies=(1, 2, 3, 3), image_size=(96, 128), cost_weight=0.0)
model.update(adapters=[ADAPTER])
optimizer.update(architecture_lr=3e-2)
