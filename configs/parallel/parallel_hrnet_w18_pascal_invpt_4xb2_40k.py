"""Multi-task baseline on PASCAL-Context: HRNet-W18, a decoder of its own for each of five tasks.

    torchrun --nproc_per_node=4 tools/train.py configs/parallel/parallel_hrnet_w18_pascal_invpt_4xb2_40k.py

One task alone is the single-task network: --cfg-options tasks="['human_parts']"

HRNet: timm's, nearest-neighbour fusions and BatchNorm momentum 0.1,
with timm's bottlenecks after its branches.
Published: none for this exact set-up. The survey's multi-task network with the small HRNet-W18 is scored by
another protocol (`pascal-survey`). Ours: not run yet.
Differs from ATRC, whose schedule this is: a feature pyramid in place of its decoder and auxiliary heads.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.datasets.pascal_invpt import evaluation, protocol, train_data, val_data
    from .._base_.schedules.atrc_40k import optimizer, training

name = "parallel"
model = dict(
    backbone=dict(type="TimmBackbone", name="hrnet_w18", pretrained=True),
    decoder=dict(type="ParallelDecoder", width=64),
    head=dict(type="ConvHead"),
)
optimizer.update(lr=5e-3)  # ATRC's rate on PASCAL with HRNet-18
