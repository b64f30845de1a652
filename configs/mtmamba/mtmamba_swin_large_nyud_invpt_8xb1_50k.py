"""MTMamba (Lin et al., ECCV 2024, arXiv 2407.02228) on NYUD-v2: Swin-L, four tasks.

    torchrun --nproc_per_node=8 tools/train.py configs/mtmamba/mtmamba_swin_large_nyud_invpt_8xb1_50k.py

307.999 M parameters, 538.2 G multiply-accumulates (docs/mamba.md): those of the official model.
Published: mIoU 55.82, RMSE 0.5066 m, normals 18.63 degrees, odsF 78.70 (quoted from third parties).
Ours: not run yet.
Differs from the authors' code: none that we know of, besides the suite's own augmentation and loss code.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.swin_large import BACKBONE
    from .._base_.datasets.nyud_invpt import evaluation, protocol, train_data, val_data
    from .._base_.schedules.mtmamba_50k import balancer, optimizer, training

name = "mtmamba"
model = dict(
    backbone=BACKBONE,
    decoder=dict(type="MTMambaDecoder"),
    head=dict(type="ConvHead"),
)
train_data.update(batch_size=1)
