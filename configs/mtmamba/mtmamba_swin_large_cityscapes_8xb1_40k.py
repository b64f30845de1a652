"""MTMamba (Lin et al., ECCV 2024, arXiv 2407.02228) on Cityscapes: Swin-L, classes and disparity.

    torchrun --nproc_per_node=8 tools/train.py configs/mtmamba/mtmamba_swin_large_cityscapes_8xb1_40k.py

252.272 M parameters, 754.9 G multiply-accumulates (docs/mamba.md): those of the official model.
Published: numbers of the paper were not available to us.
Ours: not run yet.
Differs from the authors' code: the last checkpoint is scored, not the best on the validation images.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.swin_large import BACKBONE
    from .._base_.datasets.cityscapes_mtmamba import protocol, train_data, val_data
    from .._base_.schedules.mtmamba_cityscapes_40k import balancer, optimizer, training

name = "mtmamba"
model = dict(
    backbone=BACKBONE,
    decoder=dict(type="MTMambaDecoder"),
    head=dict(type="ConvHead"),
)
