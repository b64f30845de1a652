"""The demo: six tasks at once on synthetic scenes, from scratch, in minutes on two CPU cores.

    python tools/train.py configs/synthetic/parallel_tiny_synthetic_1xb16_1000.py

A light multi-decoder network; no paper reports on this data. Ours: see the README.
"""

protocol = "synthetic-scenes"
name = "parallel"
provenance = "smoke"
model = dict(
    backbone=dict(type="TimmBackbone", name="regnetx_002"),
    decoder=dict(type="ParallelDecoder", width=32),
    head=dict(type="ConvHead"),
)
train_data = dict(
    dataset=dict(
        type="SyntheticScenes", split="train", length=2000, transforms="light", cache_dir="work_dirs/cache"
    ),
    batch_size=16,
    num_workers=1,
)
val_data = dict(
    dataset=dict(type="SyntheticScenes", split="val", length=40, transforms="tensor"), batch_size=10
)
test_data = dict(
    dataset=dict(type="SyntheticScenes", split="test", length=100, transforms="tensor"), batch_size=10
)
optimizer = dict(type="AdamW", lr=2e-3, weight_decay=1e-4)
training = dict(iterations=1000, checkpoint_interval=250, val_interval=500, log_interval=50, clip_grad=10.0)
evaluation = dict(
    constant_predictor=200, during_training=dict(edge=dict(thresholds=9)), workers=2, pictures=6
)
