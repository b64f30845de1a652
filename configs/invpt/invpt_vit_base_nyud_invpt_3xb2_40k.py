"""InvPT (Ye and Xu, ECCV 2022, arXiv 2203.07997) on NYUD-v2, four tasks: ViT-B.

    torchrun --nproc_per_node=3 tools/train.py configs/invpt/invpt_vit_base_nyud_invpt_3xb2_40k.py

Parameters: tests/models/test_known_counts.py; none are published.
Published: mIoU 50.30, RMSE 0.5367 m, normals 19.00 degrees, odsF 77.60 (quoted by PRISM).
Ours: not run yet.
Differs from the authors' code: no ViT-B configuration was released; widths and schedule are those of ViT-L.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.vit_base import BACKBONE
    from .._base_.datasets.nyud_invpt import evaluation, protocol, train_data, val_data
    from .._base_.schedules.invpt_40k import optimizer, training

name = "invpt"
model = dict(
    backbone=dict(**BACKBONE, img_size=(448, 576)),
    decoder=dict(type="InvPTDecoder"),
    head=dict(type="ConvHead"),
)
