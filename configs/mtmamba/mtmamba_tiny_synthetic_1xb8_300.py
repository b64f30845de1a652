"""A narrow MTMamba: a row of the synthetic leaderboard.

    python tools/train.py configs/mtmamba/mtmamba_tiny_synthetic_1xb8_300.py

The paper's decoder on a small RegNet; no paper reports on this data. Ours: see docs/leaderboard.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data
    from .._base_.synthetic_four_tasks import balancer, evaluation, optimizer, tasks, training

name = "mtmamba"
model = dict(
    backbone=dict(type="TimmBackbone", name="regnetx_002"),
    decoder=dict(type="MTMambaDecoder", widths=(64, 32, 16), num_blocks=1, states=8, upsample=2),
    head=dict(type="ConvHead"),
)
