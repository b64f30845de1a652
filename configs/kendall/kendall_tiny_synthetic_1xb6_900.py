"""Classes, instances and depth on synthetic streets with uncertainty weights, from scratch on one CPU core.

    python tools/train.py configs/kendall/kendall_tiny_synthetic_1xb6_900.py

No paper reports on this data. Ours, one run, 2.0 minutes of processor time: 15.7 mIoU, instance AP 0.4 (AP50
2.1), depth RMSE 3.26 m; the constant predictor has 1.0, 0, 0 and 4.96 m. A check that everything trains
together: finding persons and vehicles well takes a longer training.
"""

protocol = "synthetic-instances"
name = "uncertainty"
provenance = "smoke"
model = dict(
    backbone=dict(type="TimmBackbone", name="regnetx_002"),
    decoder=dict(type="ParallelDecoder", width=24),
    head=dict(type="ConvHead"),
)
SCENES = dict(type="SyntheticScenes", scenes=["street"], size=(64, 96))
train_data = dict(
    dataset=dict(
        **SCENES,
        split="train",
        length=600,
        transforms=[dict(type="RandomHorizontalFlip"), dict(type="Normalize")],
        cache_dir="work_dirs/cache",
    ),
    batch_size=6,
)
val_data = dict(dataset=dict(**SCENES, split="val", length=20, transforms="tensor"), batch_size=10)
test_data = dict(dataset=dict(**SCENES, split="test", length=60, transforms="tensor"), batch_size=10)
balancer = dict(type="Uncertainty", factors=1.0)
optimizer = dict(type="AdamW", lr=3e-3, weight_decay=1e-4)
training = dict(iterations=900, checkpoint_interval=900, log_interval=100, clip_grad=10.0)
evaluation = dict(constant_predictor=100, pictures=4)
