"""TaskExpert (Ye and Xu, ICCV 2023, arXiv 2307.15324) on PASCAL-Context, five tasks: ViT-L.

    torchrun --nproc_per_node=2 tools/train.py configs/taskexpert/taskexpert_vit_large_pascal_invpt_2xb2_40k.py

Published: semseg 80.64, parts 69.42, saliency 84.87, normals 13.56, odsF 73.30 (from memory, unverified).
Ours: not run yet.
Differs: a re-implementation from the abstract and a figure caption, because no code was published
(docs/decoders/taskexpert.md). Widths, number of experts and schedule (that of TaskPrompter) are ours.
"""  # noqa: E501

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.vit_large import BACKBONE
    from .._base_.datasets.pascal_invpt import evaluation, protocol, train_data, val_data
    from .._base_.schedules.taskprompter_40k import optimizer, training

name = "taskexpert"
model = dict(
    backbone=dict(**BACKBONE, img_size=(512, 512)),
    decoder=dict(type="TaskExpertDecoder", width=384, experts=5, grid=(32, 32), upscale=1),
    head=dict(type="ConvHead", hidden=384, activation="gelu", enlarge=4),
)
