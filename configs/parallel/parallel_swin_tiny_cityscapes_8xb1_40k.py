"""Multi-task baseline on Cityscapes: Swin-T, decoders for classes and disparity.

    torchrun --nproc_per_node=8 tools/train.py configs/parallel/parallel_swin_tiny_cityscapes_8xb1_40k.py

One task alone is the single-task network: --cfg-options tasks="['semseg']"

Published: none for this exact set-up (the papers' tables have Swin-L). Ours: not run yet.
Differs from MTMamba, whose schedule this is: backbone and decoder; the last checkpoint is scored, not the
best on the validation images.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.swin_tiny import BACKBONE
    from .._base_.datasets.cityscapes_mtmamba import protocol, train_data, val_data
    from .._base_.schedules.mtmamba_cityscapes_40k import balancer, optimizer, training

name = "parallel"
model = dict(
    backbone=dict(**BACKBONE, drop_path_rate=0.1, level_norms=True),
    decoder=dict(type="ParallelDecoder", width=128),
    head=dict(type="ConvHead"),
)
