"""Leave one task out, with the ordinary decoder: normals on the frozen features of three other tasks.

    python tools/train.py configs/medusa/parallel_universal_tiny_synthetic_1xb8_600.py

The score of normals counts. The other tasks keep the networks of the first phase.
No paper reports on this data. Ours: not run yet.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.resnet18_quarter import BACKBONE
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data
    from .._base_.synthetic_four_tasks import balancer, evaluation, optimizer, tasks, training

name = "parallel, universal features"
model = dict(backbone=BACKBONE, decoder=dict(type="ParallelDecoder", width=32), head=dict(type="ConvHead"))
training.update(iterations=600, checkpoint_interval=600)
NEW = ["*", "!decoder.*.normals.*", "!heads.normals.*"]
phases = [
    dict(name="base", iterations=300, tasks=["semseg", "depth", "edge"]),
    dict(name="new", iterations=300, training=dict(freeze=NEW)),
]
