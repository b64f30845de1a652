"""A plain network of the widths that `1.0` of the slimmable one has, trained separately: its baseline.

    python tools/train.py configs/slimmable/separate100_regnetx_002_synthetic_1xb8_400.py

No paper reports on this data. Ours: see README.md in this folder.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.slimmable_synthetic import (
        balancer,
        evaluation,
        optimizer,
        protocol,
        provenance,
        tasks,
        test_data,
        train_data,
        training,
        val_data,
    )

name = "separate 1.0"
model = dict(
    backbone=dict(type="TimmBackbone", name="regnetx_002"),
    decoder=dict(type="ParallelDecoder", width=32),
    head=dict(type="ConvHead"),
    adapters=[
        dict(type="Slimmable", fixed=dict(encoder=1.0, decoders=dict(semseg=1.0, depth=1.0, normals=1.0)))
    ],
)
