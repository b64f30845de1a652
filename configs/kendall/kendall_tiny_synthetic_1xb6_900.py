"""Classes, instances and depth on synthetic streets with uncertainty weights, from scratch on one CPU core.

    python tools/train.py configs/kendall/kendall_tiny_synthetic_1xb6_900.py

No paper reports on this data. Ours, one run, 2.0 minutes of processor time: 15.7 mIoU, instance AP 0.4 (AP50
2.1), depth RMSE 3.26 m; the constant predictor has 1.0, 0, 0 and 4.96 m. A check that everything trains
together: finding persons and vehicles well takes a longer training.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.datasets.synthetic_streets import protocol, provenance, test_data, train_data, val_data

name = "uncertainty"
model = dict(
    backbone=dict(type="TimmBackbone", name="regnetx_002"),
    decoder=dict(type="ParallelDecoder", width=24),
    head=dict(type="ConvHead"),
)
balancer = dict(type="Uncertainty", factors=1.0)
optimizer = dict(type="AdamW", lr=3e-3, weight_decay=1e-4)
training = dict(iterations=900, checkpoint_interval=900, log_interval=100, clip_grad=10.0)
evaluation = dict(constant_predictor=100, pictures=4)
