"""Tasks with a known answer: two are one map in two units, the third is another; a narrow backbone.

Heads are 1x1 convolutions on the last level, so everything is the backbone's work.
"""

from mmengine.config import read_base

with read_base():
    from .datasets.synthetic_units import protocol, provenance, test_data, train_data, val_data

tasks = ["depth", "depth_feet", "semseg"]
model = dict(
    backbone=dict(
        type="TimmBackbone", name="resnet10t", stem_width=8, channels=(20, 20, 20, 20), output_stride=8
    ),
    decoder=dict(type="ConcatDecoder", levels=[-1]),
    head=dict(type="ConvHead"),
)
optimizer = dict(type="AdamW", lr=4e-3, weight_decay=1e-4)
balancer = dict(type="FixedWeights", weights=dict(depth=5.0, depth_feet=5.0 / 3.28084, semseg=4.0))
training = dict(iterations=800, checkpoint_interval=400, log_interval=100, clip_grad=10.0)
evaluation = dict(pictures=0)
