"""A small MTMamba++: six tasks on synthetic scenes, from scratch, on two CPU cores.

    python tools/train.py configs/mtmamba/mtmamba_plus_tiny_synthetic_1xb8_500.py

Same decoder as in the paper, narrow, on a small RegNet; no paper reports on this data. Ours: see the README.
"""

protocol = "synthetic-scenes"
name = "mtmamba_plus"
provenance = "smoke"
model = dict(
    backbone=dict(type="TimmBackbone", name="regnetx_002"),
    decoder=dict(type="MTMambaPlusDecoder", widths=(64, 32, 32), num_blocks=1, states=8),
    head=dict(type="ConvHead"),
)
train_data = dict(
    dataset=dict(
        type="SyntheticScenes", split="train", length=2000, transforms="light", cache_dir="work_dirs/cache"
    ),
    batch_size=8,
    num_workers=1,
)
val_data = dict(
    dataset=dict(type="SyntheticScenes", split="val", length=40, transforms="tensor"), batch_size=10
)
test_data = dict(
    dataset=dict(type="SyntheticScenes", split="test", length=100, transforms="tensor"), batch_size=10
)
optimizer = dict(type="AdamW", lr=1e-3, weight_decay=1e-4)
balancer = dict(type="LogSum")
training = dict(iterations=500, checkpoint_interval=250, val_interval=0, log_interval=50, clip_grad=10.0)
evaluation = dict(
    constant_predictor=200, during_training=dict(edge=dict(thresholds=9)), workers=2, pictures=6
)
