"""TaskExpert (Ye and Xu, ICCV 2023, arXiv 2307.15324) on PASCAL-Context, five tasks: ViT-B.

    torchrun --nproc_per_node=2 tools/train.py configs/taskexpert/taskexpert_vit_base_pascal_invpt_2xb2_40k.py

Published: semseg 78.45, parts 67.38, saliency 84.96, normals 13.55, odsF 72.30 (README of PRISM).
Ours: not run yet.
Differs: a re-implementation from the abstract and a figure caption, because no code was published
(docs/decoders/taskexpert.md). Widths, number of experts and schedule (that of TaskPrompter) are ours.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.vit_base import BACKBONE
    from .._base_.datasets.pascal_invpt import evaluation, protocol, train_data, val_data
    from .._base_.schedules.taskprompter_40k import optimizer, training

name = "taskexpert"
model = dict(
    backbone=dict(**BACKBONE, img_size=(512, 512)),
    decoder=dict(type="TaskExpertDecoder", width=384, experts=5, grid=(32, 32), upscale=1),
    head=dict(type="ConvHead", hidden=384, activation="gelu", enlarge=4),
)
