"""MTMamba (Lin et al., ECCV 2024, arXiv 2407.02228) on Cityscapes: Swin-L, classes and disparity.

    torchrun --nproc_per_node=8 tools/train.py configs/mtmamba/mtmamba_swin_large_cityscapes_8xb1_40k.py

252.272 M parameters, 754.9 G multiply-accumulates (docs/mamba.md): those of the official model.
Published: numbers of the paper were not available to us.
Ours: not run yet.
Differs from the authors' code: the last checkpoint is scored, not the best on the validation images.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.datasets.cityscapes_mtmamba import protocol, train_data, val_data
    from .._base_.schedules.mtmamba_50k import balancer, optimizer, training

name = "mtmamba"
model = dict(
    backbone=dict(
        type="SwinBackbone",
        name="swin_large_patch4_window12_384.ms_in22k_ft_in1k",
        pretrained=True,
    ),
    decoder=dict(type="MTMambaDecoder"),
    head=dict(type="ConvHead"),
)
train_data.update(batch_size=1)
optimizer.update(weight_decay=1e-6)
training.update(iterations=40_000)
