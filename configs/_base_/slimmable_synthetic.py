"""What the slimmable network and its separate baselines share: three tasks, 400 steps of 8 images."""

from mmengine.config import read_base

with read_base():
    from .datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data

tasks = ["semseg", "depth", "normals"]
model = dict(
    backbone=dict(type="TimmBackbone", name="regnetx_002"),
    decoder=dict(type="ParallelDecoder", width=32),
    head=dict(type="ConvHead"),
)
optimizer = dict(type="AdamW", lr=1e-3, weight_decay=1e-4)
balancer = dict(type="FixedWeights", weights=dict(semseg=4.0, depth=1.0, normals=10.0))
training = dict(iterations=400, checkpoint_interval=400, log_interval=50, clip_grad=10.0)
evaluation = dict(pictures=0)
