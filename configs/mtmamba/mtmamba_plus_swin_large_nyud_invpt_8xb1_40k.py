"""MTMamba++ (Lin et al., TPAMI 2025, arXiv 2408.15101) on NYUD-v2: Swin-L, four tasks.

    torchrun --nproc_per_node=8 tools/train.py configs/mtmamba/mtmamba_plus_swin_large_nyud_invpt_8xb1_40k.py

315.021 M parameters, 522.3 G multiply-accumulates (docs/mamba.md): those of the official model.
Published: mIoU 57.01, RMSE 0.4818 m, normals 18.27 degrees, odsF 79.40 (quoted from third parties).
Ours: not run yet.
Differs from the authors' code: none that we know of, besides the suite's own augmentation and loss code.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.swin_large import BACKBONE
    from .._base_.datasets.nyud_invpt import evaluation, protocol, train_data, val_data
    from .._base_.schedules.mtmamba_plus_40k import optimizer, training

name = "mtmamba_plus"
model = dict(
    backbone=BACKBONE,
    decoder=dict(type="MTMambaPlusDecoder"),
    head=dict(type="ConvHead"),
)
train_data.update(batch_size=1)
