"""A tree by representation similarity for tasks whose answer is known: depth in metres, in feet, and classes.

    python tools/search.py configs/branching/rsa_narrow_synthetic_units_1xb8_800.py --budget 2

No paper reports on this data. Ours: see README.md in this folder.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.branching_units import balancer, evaluation, model, optimizer, tasks, training
    from .._base_.datasets.synthetic_units import protocol, provenance, test_data, train_data, val_data

name = "RSA"
search = dict(type="RSASearcher", held_out=0.2, images=64, image_size=(96, 128))
