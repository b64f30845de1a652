"""The network that comes with the package as `demo`: five tasks on synthetic scenes, small enough to ship.

    python tools/train.py configs/synthetic/demo_resnet10t_synthetic_1xb16_400.py --work-dir work_dirs/demo
    python tools/share.py work_dirs/demo --half --licence Apache-2.0 --out mtvision/demo

A light network of one million parameters; no paper reports on this data. Ours: `docs/python.md`.
"""

protocol = "synthetic-scenes"
tasks = ["semseg", "depth", "normals", "edge", "saliency"]
name = "demo"
provenance = "smoke"
model = dict(
    backbone=dict(type="TimmBackbone", name="resnet10t", stem_width=16, channels=(24, 48, 96, 192)),
    decoder=dict(type="ParallelDecoder", width=32),
    head=dict(type="ConvHead"),
)
AUGMENT = [
    dict(type="RandomHorizontalFlip"),
    dict(type="PhotoMetricDistortion", brightness=32.0, contrast=(0.5, 1.5), saturation=(0.5, 1.5), hue=18),
    dict(type="Normalize"),
]
train_data = dict(
    dataset=dict(
        type="SyntheticScenes", split="train", length=2000, transforms=AUGMENT, cache_dir="work_dirs/cache"
    ),
    batch_size=16,
    num_workers=1,
)
test_data = dict(
    dataset=dict(type="SyntheticScenes", split="test", length=100, transforms="tensor"), batch_size=10
)
balancer = dict(
    type="FixedWeights", weights=dict(semseg=4.0, depth=1.0, normals=10.0, edge=50.0, saliency=10.0)
)
optimizer = dict(type="AdamW", lr=3e-3, weight_decay=1e-4)
training = dict(iterations=400, checkpoint_interval=100, log_interval=50, clip_grad=10.0)
evaluation = dict(constant_predictor=200, pictures=6)
