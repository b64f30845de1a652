"""TaskExpert (Ye and Xu, ICCV 2023, arXiv 2307.15324) on NYUD-v2, four tasks: ViT-L.

    torchrun --nproc_per_node=2 tools/train.py configs/taskexpert/taskexpert_vit_large_nyud_invpt_2xb2_40k.py

Published: mIoU 55.35, RMSE 0.5157 m, normals 18.54 degrees, odsF 78.40 (from memory, unverified).
Ours: not run yet.
Differs: a re-implementation from the abstract and a figure caption, because no code was published
(docs/decoders/taskexpert.md). Widths, number of experts and schedule (that of TaskPrompter) are ours.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.vit_large import BACKBONE
    from .._base_.datasets.nyud_invpt import evaluation, protocol, train_data, val_data
    from .._base_.schedules.taskprompter_40k import optimizer, training

name = "taskexpert"
model = dict(
    backbone=dict(**BACKBONE, img_size=(448, 576)),
    decoder=dict(type="TaskExpertDecoder", width=384, experts=5, grid=(28, 36), upscale=1),
    head=dict(type="ConvHead", hidden=384, activation="gelu", enlarge=4),
)
optimizer.update(lr=1e-5)
