"""Deep Safe Multi-Task Learning with gates from held-out images: a smoke row on synthetic scenes.

    python tools/train.py configs/necks/public_private_bilevel_tiny_synthetic_1xb8_300.py

No paper reports on this data. Ours: not run yet.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.vit_tiny_narrow import BACKBONE
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data
    from .._base_.synthetic_four_tasks import balancer, evaluation, optimizer, tasks, training

name = "public_private_bilevel"
model = dict(
    backbone=BACKBONE,
    adapters=[dict(type="PublicPrivate", gate="softmax")],
    decoder=dict(type="ParallelDecoder", width=32),
    head=dict(type="ConvHead"),
)
step = dict(type="SearchStep", held_out=0.2, look_ahead=1e-4)
