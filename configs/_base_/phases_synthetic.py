"""What runs in phases share: three tasks on synthetic scenes, 40 steps of 8 images, a tiny ResNet."""

from mmengine.config import read_base

with read_base():
    from .branching_synthetic import balancer, evaluation, model, optimizer, tasks

training = dict(iterations=40, checkpoint_interval=20, log_interval=10, clip_grad=10.0)
