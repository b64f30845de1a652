"""A plain network of the widths that `1.0` of the slimmable one has, trained separately: its baseline.

    python tools/train.py configs/slimmable/separate100_regnetx_002_synthetic_1xb8_400.py

No paper reports on this data. Ours: see README.md in this folder.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data
    from .._base_.slimmable_synthetic import balancer, evaluation, model, optimizer, tasks, training

name = "separate 1.0"
FIXED = dict(encoder=1.0, decoders=dict(semseg=1.0, depth=1.0, normals=1.0))
model.update(adapters=[dict(type="Slimmable", fixed=FIXED)])
