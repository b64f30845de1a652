"""TaskPrompter (Ye and Xu, ICLR 2023) on NYUD-v2, four tasks: ViT-L.

    torchrun --nproc_per_node=2 tools/train.py \\
        configs/taskprompter/taskprompter_vit_large_nyud_invpt_2xb2_40k.py

513.506 M parameters with 1.034 M that the official model holds but never uses (512.471 M here), 839.5 G
multiply-accumulates.
Published: mIoU 55.30, RMSE 0.5152 m, normals 18.47 degrees, odsF 78.20 (quoted by TSP-Transformer).
Ours: not run yet.
Differs from the authors' code: none that we know of, besides the suite's own augmentation and loss code.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.vit_large import BACKBONE
    from .._base_.datasets.nyud_invpt import evaluation, protocol, train_data, val_data
    from .._base_.schedules.taskprompter_40k import optimizer, training

name = "taskprompter"
model = dict(
    backbone=dict(**BACKBONE, img_size=(448, 576)),
    adapters=[dict(type="TaskPrompts", windows=4)],
    decoder=dict(type="TaskPrompterDecoder", width=768, out_width=768, upscale=1),
    head=dict(type="ConvHead", hidden=768, activation="gelu", enlarge=4),
)
optimizer.update(lr=1e-5)
