"""What all rows of the synthetic leaderboard share: four tasks, 300 steps of 8 images, from scratch.

A method's row adds `name` and `model` and nothing else, so that rows differ in the method alone.
"""

protocol = "synthetic-scenes"
tasks = ["semseg", "depth", "normals", "edge"]
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
balancer = dict(type="FixedWeights", weights=dict(semseg=4.0, depth=5.0, normals=10.0, edge=50.0))
training = dict(iterations=300, checkpoint_interval=300, log_interval=50, clip_grad=10.0)
evaluation = dict(constant_predictor=200, pictures=4)
