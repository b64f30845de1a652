"""MTMamba (ECCV 2024) on Cityscapes: as on NYUD and PASCAL, but 40 000 iterations and less weight decay."""

from mmengine.config import read_base

with read_base():
    from .mtmamba_50k import balancer, optimizer, training

optimizer.update(weight_decay=1e-6)
training.update(iterations=40_000)
