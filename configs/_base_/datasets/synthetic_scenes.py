"""Synthetic scenes, rendered on the CPU: 1000 images to train, 20 to validate, 60 to test.

Rendered images are kept below `work_dirs/cache`. Scores are no benchmark, hence the provenance.
"""

protocol = "synthetic-scenes"
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
