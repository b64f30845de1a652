"""InvPT (Ye and Xu, ECCV 2022, arXiv 2203.07997) on PASCAL-Context, five tasks: ViT-L.

    torchrun --nproc_per_node=3 tools/train.py configs/invpt/invpt_vit_large_pascal_invpt_3xb2_40k.py

422.930 M parameters with 6.972 M that the official model holds but never uses (415.958 M here), 666.9 G
multiply-accumulates; the official code computes an unused convolution and has 672.4.
Published: semseg 79.03, parts 67.61, saliency 84.81, normals 14.15 degrees, odsF 73.00 (paper).
Ours: not run yet.
Differs from the authors' code: none that we know of, besides the suite's own augmentation and loss code.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.vit_large import BACKBONE
    from .._base_.datasets.pascal_invpt import evaluation, protocol, train_data, val_data
    from .._base_.schedules.invpt_40k import optimizer, training

name = "invpt"
model = dict(
    backbone=dict(**BACKBONE, img_size=(512, 512)),
    decoder=dict(type="InvPTDecoder"),
    head=dict(type="ConvHead"),
)
