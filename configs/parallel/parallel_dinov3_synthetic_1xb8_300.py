"""A narrow DINOv3 with a feature pyramid, of which the last two blocks and all biases learn: a smoke row.

    python tools/train.py configs/parallel/parallel_dinov3_synthetic_1xb8_300.py

It shows `pyramid`, partial thawing and layer decay in one config. The frozen weights are random here, so
scores say nothing about DINOv3. For real weights leave out the options that make it small, and set
`pretrained=True`. No paper reports on this data. Ours: not run yet.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data
    from .._base_.synthetic_four_tasks import balancer, evaluation, optimizer, tasks, training

name = "parallel"
SMALL = dict(embed_dim=96, depth=6, num_heads=4)
PYRAMID = dict(pyramid="simple", pyramid_width=64)
model = dict(
    backbone=dict(type="TimmBackbone", name="vit_small_patch16_dinov3", **SMALL, **PYRAMID),
    decoder=dict(type="ParallelDecoder", width=32),
    head=dict(type="ConvHead"),
)
training.update(freeze=["backbone.model.*", "!backbone.model.blocks.[45].*", "!backbone.model.*bias"])
optimizer.update(layer_decay=0.8)
