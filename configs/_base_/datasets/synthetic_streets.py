"""Synthetic streets of 64x96 with classes, instances and depth: 600 images to train, mirrored at random."""

from mmengine.config import read_base

with read_base():
    from .synthetic_scenes import provenance, test_data, train_data, val_data

protocol = "synthetic-instances"
STREETS = dict(scenes=["street"], size=(64, 96))
train_data.update(batch_size=6)
train_data.dataset.update(
    **STREETS, length=600, transforms=[dict(type="RandomHorizontalFlip"), dict(type="Normalize")]
)
val_data.dataset.update(**STREETS)
test_data.dataset.update(**STREETS)
