"""MTMamba (Lin et al., ECCV 2024, arXiv 2407.02228) on PASCAL-Context: Swin-L, five tasks.

    torchrun --nproc_per_node=8 tools/train.py configs/mtmamba/mtmamba_swin_large_pascal_invpt_8xb1_50k.py

335.858 M parameters, 628.4 G multiply-accumulates (docs/mamba.md): those of the official model.
Published: mIoU 81.11, parts mIoU 72.62, saliency maxF 84.14, normals 14.14 degrees, odsF 78.80 (quoted from
third parties).
Ours: not run yet.
Differs from the authors' code: none that we know of, besides the suite's own augmentation and loss code.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.swin_large import BACKBONE
    from .._base_.datasets.pascal_invpt import evaluation, protocol, train_data, val_data
    from .._base_.schedules.mtmamba_50k import balancer, optimizer, training

name = "mtmamba"
model = dict(
    backbone=BACKBONE,
    decoder=dict(type="MTMambaDecoder"),
    head=dict(type="ConvHead"),
)
train_data.update(batch_size=1)
