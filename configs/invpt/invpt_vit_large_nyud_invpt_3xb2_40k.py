"""InvPT (Ye and Xu, ECCV 2022, arXiv 2203.07997) on NYUD-v2, four tasks: ViT-L.

    torchrun --nproc_per_node=3 tools/train.py configs/invpt/invpt_vit_large_nyud_invpt_3xb2_40k.py

402.093 M parameters with 6.640 M that the official model holds but never uses (395.453 M here), 596.5 G
multiply-accumulates; the official code computes an unused convolution and has 601.9.
Published: mIoU 53.56, RMSE 0.5183 m, normals 19.04 degrees, odsF 78.10 (paper).
Ours: not run yet.
Differs from the authors' code: none that we know of, besides the suite's own augmentation and loss code.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.vit_large import BACKBONE
    from .._base_.datasets.nyud_invpt import evaluation, protocol, train_data, val_data
    from .._base_.schedules.invpt_40k import optimizer, training

name = "invpt"
model = dict(
    backbone=dict(**BACKBONE, img_size=(448, 576)),
    decoder=dict(type="InvPTDecoder"),
    head=dict(type="ConvHead"),
)
