"""Distil, then tune: slimmed passes learn from the full one, then the full network alone is trained.

    python tools/train.py configs/phases/distil_tune_resnet10t_synthetic_1xb8_40.py

The teacher is the network itself, see docs/slimmable.md.
No paper reports on this data. Ours: not run yet; a tiny example for docs/phases.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data
    from .._base_.phases_synthetic import balancer, evaluation, model, optimizer, tasks, training

name = "distil, then tune"
model.update(adapters=[dict(type="Slimmable")])
WIDTHS = dict(encoder=[0.5, 1.0], decoders=[0.5, 1.0])
phases = [
    dict(
        name="distil",
        iterations=20,
        step=dict(type="SandwichStep", **WIDTHS, distillation="nested", warmup=4),
    ),
    dict(name="tune", iterations=20, optimizer=dict(type="AdamW", lr=4e-4, weight_decay=1e-4)),
]
