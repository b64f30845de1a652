"""Search, then retrain: Learning to Branch finds a tree, and the next phase trains it from fresh weights.

    python tools/train.py configs/phases/search_retrain_resnet10t_synthetic_1xb8_40.py

The tree is in architecture_search.json in the work dir.
No paper reports on this data. Ours: not run yet; a tiny example for docs/phases.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data
    from .._base_.phases_synthetic import balancer, evaluation, model, optimizer, tasks, training

name = "search, then retrain"
SUPERNET = dict(type="BranchingSearch", mixing="straight_through", iterations=20, copies=(1, 2, 3, 3))
SUPERNET["image_size"] = (96, 128)
STEP = dict(type="SearchStep", held_out=0.2)
ADAMW = dict(type="AdamW", lr=4e-3, weight_decay=1e-4, architecture_lr=3e-2)
search = dict(type="LTBSearcher", held_out=0.2)
phases = [
    dict(name="search", iterations=20, model={**model, "adapters": [SUPERNET]}, step=STEP, optimizer=ADAMW),
    dict(name="retrain", iterations=20, start="fresh"),
]
model.update(adapters=[dict(type="Branched", tree=dict(of_phase="search"))])
