"""Synthetic scenes whose depth is told in two units, metres and feet; 200 images to test."""

from mmengine.config import read_base

with read_base():
    from .synthetic_scenes import provenance, test_data, train_data, val_data

protocol = "synthetic-units"
test_data.dataset.update(length=200, cache_dir="work_dirs/cache")
