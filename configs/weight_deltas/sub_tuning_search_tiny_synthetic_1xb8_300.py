"""SubTuning's search: heads are trained on a frozen backbone, then blocks are chosen for every task.

    python tools/search.py configs/weight_deltas/sub_tuning_search_tiny_synthetic_1xb8_300.py

`subset_tiny_synthetic_1xb8_300.py` trains what it finds, see README.md in this folder. The base is random.
No paper reports on this data. Ours: not run yet.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.vit_tiny_narrow import BACKBONE
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data
    from .._base_.synthetic_four_tasks import balancer, evaluation, optimizer, tasks, training

name = "SubTuning"
model = dict(backbone=BACKBONE, decoder=dict(type="ParallelDecoder", width=32), head=dict(type="ConvHead"))
training.update(freeze=["backbone.*"])
search = dict(type="SubTuningSearcher", held_out=0.2, iterations=20, lr=4e-3, most=2)
