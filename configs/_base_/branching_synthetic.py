"""What branching searches, their trees and the trees' baselines share: three tasks, 200 steps of 8 images."""

protocol = "synthetic-scenes"
tasks = ["semseg", "depth", "normals"]
provenance = "smoke"
train_data = dict(
    dataset=dict(
        type="SyntheticScenes", split="train", length=1000, transforms="light", cache_dir="work_dirs/cache"
    ),
    batch_size=8,
)
val_data = dict(
    dataset=dict(type="SyntheticScenes", split="val", length=20, transforms="tensor"), batch_size=10
)
test_data = dict(
    dataset=dict(type="SyntheticScenes", split="test", length=60, transforms="tensor"), batch_size=10
)
optimizer = dict(type="AdamW", lr=4e-3, weight_decay=1e-4)
balancer = dict(type="FixedWeights", weights=dict(semseg=4.0, depth=5.0, normals=10.0))
training = dict(iterations=200, checkpoint_interval=50, log_interval=50, clip_grad=10.0)
evaluation = dict(pictures=0)
BACKBONE = dict(type="TimmBackbone", name="resnet10t", stem_width=8, channels=(12, 24, 48, 96))
DECODER = dict(type="ParallelDecoder", width=16)
