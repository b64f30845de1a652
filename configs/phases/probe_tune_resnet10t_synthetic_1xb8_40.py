"""Probe, then fine-tune: the heads first, on a frozen backbone, then everything with a lower rate.

    python tools/train.py configs/phases/probe_tune_resnet10t_synthetic_1xb8_40.py

The backbone would start from pretrained weights in earnest.
No paper reports on this data. Ours: not run yet; a tiny example for docs/phases.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data
    from .._base_.phases_synthetic import balancer, evaluation, model, optimizer, tasks, training

name = "probe, then tune"
phases = [
    dict(name="probe", iterations=20, training=dict(freeze=["backbone.*"])),
    dict(name="tune", iterations=20, optimizer=dict(type="AdamW", lr=4e-4, weight_decay=1e-4)),
]
