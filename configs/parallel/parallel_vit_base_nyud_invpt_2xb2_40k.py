"""Multi-task baseline on NYUD-v2: ViT-B, a decoder of its own for each of four tasks.

    torchrun --nproc_per_node=2 tools/train.py configs/parallel/parallel_vit_base_nyud_invpt_2xb2_40k.py

One task alone is the single-task network that gains are measured against: --cfg-options tasks="['depth']"

Published: none for this exact set-up. The nearest is the multi-task baseline in PRISM's README, with another
decoder and another boundary evaluator: mIoU 49.27, RMSE 0.5823 m, normals 19.92 degrees, (odsF 75.88).
Ours: not run yet.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.datasets.nyud_invpt import evaluation, protocol, train_data, val_data
    from .._base_.schedules.sak_40k import optimizer, training

name = "parallel"
model = dict(
    # ViT-B of InvPT and its successors; deviation: drop path is off, the papers use 0.15 with ViT-L only
    backbone=dict(type="TimmBackbone", name="vit_base_patch16_384.augreg_in21k_ft_in1k", pretrained=True),
    decoder=dict(type="ParallelDecoder", width=128),
    head=dict(type="ConvHead"),
)
