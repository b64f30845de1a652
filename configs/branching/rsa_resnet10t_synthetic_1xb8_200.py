"""A tree by representation similarity of single-task networks (Branched Multi-Task Networks), synthetic data.

    python tools/search.py configs/branching/rsa_resnet10t_synthetic_1xb8_200.py --budget 2

trains one network per task first. `--budget` is in units of one backbone's parameters. No paper reports on
this data. Ours: see README.md in this folder.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.branching_synthetic import balancer, evaluation, model, optimizer, tasks, training
    from .._base_.datasets.synthetic_scenes import protocol, provenance, test_data, train_data, val_data

name = "RSA"
search = dict(type="RSASearcher", held_out=0.2, images=64, image_size=(96, 128))
