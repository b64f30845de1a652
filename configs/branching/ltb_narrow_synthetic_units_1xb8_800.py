"""Learning to Branch for tasks whose answer is known: depth in metres, in feet, and classes.

    python tools/search.py configs/branching/ltb_narrow_synthetic_units_1xb8_800.py

No paper reports on this data. Ours: see README.md in this folder.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.branching_units import balancer, evaluation, model, optimizer, tasks, training
    from .._base_.datasets.synthetic_units import protocol, provenance, test_data, train_data, val_data
    from .._base_.searches.ltb import ADAPTER, search, step

name = "LTB"
ADAPTER.update(iterations=800, copies=(1, 2, 3, 3), image_size=(96, 128), cost_weight=0.0)
model.update(adapters=[ADAPTER])
optimizer.update(architecture_lr=3e-2)
