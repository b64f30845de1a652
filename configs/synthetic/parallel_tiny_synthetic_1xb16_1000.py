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
AUGMENT = [
    dict(type="RandomHorizontalFlip"),
    dict(type="PhotoMetricDistortion", brightness=24.0, contrast=(0.7, 1.3), saturation=(0.7, 1.3), hue=9),
    dict(type="Normalize"),
]
train_data = dict(
    dataset=dict(
        type="SyntheticScenes", split="train", length=2000, transforms=AUGMENT, cache_dir="work_dirs/cache"
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
balancer = dict(
    type="FixedWeights",
    weights=dict(semseg=4.0, depth=1.0, normals=10.0, edge=50.0, saliency=10.0, human_parts=20.0),
)
optimizer = dict(type="AdamW", lr=2e-3, weight_decay=1e-4)
training = dict(
    iterations=1000,
    checkpoint_interval=250,
    val_interval=500,
    log_interval=50,
    clip_grad=10.0,
    threads=1,  # the worker that renders has the other core
    channels_last=True,
)
evaluation = dict(
    constant_predictor=200, during_training=dict(edge=dict(thresholds=9)), workers=2, pictures=6
)
