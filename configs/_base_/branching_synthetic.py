"""What branching searches, their trees and the trees' baselines share: three tasks, 200 steps of 8 images."""

from mmengine.config import read_base

with read_base():
    from .datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data

tasks = ["semseg", "depth", "normals"]
model = dict(
    backbone=dict(type="TimmBackbone", name="resnet10t", stem_width=8, channels=(12, 24, 48, 96)),
    decoder=dict(type="ParallelDecoder", width=16),
    head=dict(type="ConvHead"),
)
optimizer = dict(type="AdamW", lr=4e-3, weight_decay=1e-4)
balancer = dict(type="FixedWeights", weights=dict(semseg=4.0, depth=5.0, normals=10.0))
training = dict(iterations=200, checkpoint_interval=50, log_interval=50, clip_grad=10.0)
evaluation = dict(pictures=0)
