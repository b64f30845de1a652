"""BMTAS on synthetic scenes: a tree for a tiny ResNet and three tasks.

    python tools/search.py configs/branching/bmtas_resnet10t_synthetic_1xb8_200.py

One run per `model.adapters.0.cost_weight` gives the trade-off between cost and scores. No paper reports on
this data. Ours: see README.md in this folder.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.branching_synthetic import balancer, evaluation, model, optimizer, tasks, training
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data
    from .._base_.searches.bmtas import ADAPTER, search, step

name = "BMTAS"
ADAPTER.update(iterations=200, image_size=(96, 128))
ADAPTER.update(cost_weight=10.0)  # the whole backbone is a hundredth of a GMAC
model.update(adapters=[ADAPTER])
optimizer.update(architecture_lr=3e-2)
