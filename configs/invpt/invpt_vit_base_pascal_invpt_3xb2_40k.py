"""InvPT (Ye and Xu, ECCV 2022, arXiv 2203.07997) on PASCAL-Context, five tasks: ViT-B.

    torchrun --nproc_per_node=3 tools/train.py configs/invpt/invpt_vit_base_pascal_invpt_3xb2_40k.py

Parameters: tests/models/test_known_counts.py; none are published.
Published: semseg 77.33, parts 66.62, saliency 85.14, normals 13.78 degrees, odsF 73.20 (quoted by PRISM).
Ours: not run yet.
Differs from the authors' code: no ViT-B configuration was released; widths and schedule are those of ViT-L.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.vit_base import BACKBONE
    from .._base_.datasets.pascal_invpt import evaluation, protocol, train_data, val_data
    from .._base_.schedules.invpt_40k import optimizer, training

name = "invpt"
model = dict(
    backbone=dict(**BACKBONE, img_size=(512, 512)),
    decoder=dict(type="InvPTDecoder"),
    head=dict(type="ConvHead"),
)
