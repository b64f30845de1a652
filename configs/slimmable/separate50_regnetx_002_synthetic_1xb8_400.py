"""A plain network of the widths that `0.5` of the slimmable one has, trained separately: its baseline.

    python tools/train.py configs/slimmable/separate50_regnetx_002_synthetic_1xb8_400.py

No paper reports on this data. Ours: see README.md in this folder.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data
    from .._base_.slimmable_synthetic import balancer, evaluation, model, optimizer, tasks, training

name = "separate 0.5"
FIXED = dict(encoder=0.5, decoders=dict(semseg=0.5, depth=0.5, normals=0.5))
model.update(adapters=[dict(type="Slimmable", fixed=FIXED)])
