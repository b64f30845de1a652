"""What all rows of the synthetic leaderboard share: four tasks, 300 steps of 8 images, from scratch.

A method's row adds `name` and `model` and nothing else, so that rows differ in the method alone.
"""

from mmengine.config import read_base

with read_base():
    from .datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data

tasks = ["semseg", "depth", "normals", "edge"]
optimizer = dict(type="AdamW", lr=4e-3, weight_decay=1e-4)
balancer = dict(type="FixedWeights", weights=dict(semseg=4.0, depth=5.0, normals=10.0, edge=50.0))
training = dict(iterations=300, checkpoint_interval=300, log_interval=50, clip_grad=10.0)
evaluation = dict(constant_predictor=200, pictures=4)
