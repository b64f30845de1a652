"""MTMamba++ (Lin et al., TPAMI 2025, arXiv 2408.15101) on Cityscapes: Swin-L, classes and disparity.

    torchrun --nproc_per_node=8 tools/train.py configs/mtmamba/mtmamba_plus_swin_large_cityscapes_8xb1_40k.py

258.596 M parameters, 745.6 G multiply-accumulates (docs/mamba.md): those of the official model.
Published: numbers of the paper were not available to us.
Ours: not run yet.
Differs from the authors' code: the last checkpoint is scored, not the best on the validation images.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.swin_large import BACKBONE
    from .._base_.datasets.cityscapes_mtmamba import protocol, train_data, val_data
    from .._base_.schedules.mtmamba_plus_40k import optimizer, training

name = "mtmamba_plus"
model = dict(
    backbone=BACKBONE,
    decoder=dict(type="MTMambaPlusDecoder"),
    head=dict(type="ConvHead"),
)
balancer = dict(type="LogSum")
optimizer.update(lr=1e-4)
