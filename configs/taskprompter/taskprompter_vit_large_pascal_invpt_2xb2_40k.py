"""TaskPrompter (Ye and Xu, ICLR 2023) on PASCAL-Context, five tasks: ViT-L.

    torchrun --nproc_per_node=2 tools/train.py \\
        configs/taskprompter/taskprompter_vit_large_pascal_invpt_2xb2_40k.py

401.105 M parameters with 1.051 M that the official model holds but never uses (400.054 M here), 496.4 G
multiply-accumulates.
Published: semseg 80.89, parts 68.89, saliency 84.83, normals 13.72 degrees, odsF 73.50 (quoted by TSP-
Transformer).
Ours: not run yet.
Differs from the authors' code: none that we know of, besides the suite's own augmentation and loss code.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.vit_large import BACKBONE
    from .._base_.datasets.pascal_invpt import evaluation, protocol, train_data, val_data
    from .._base_.schedules.taskprompter_40k import optimizer, training

name = "taskprompter"
model = dict(
    backbone=dict(**BACKBONE, img_size=(512, 512)),
    adapters=[dict(type="TaskPrompts", windows=1)],
    decoder=dict(type="TaskPrompterDecoder", width=300, out_width=350, reweight=16, upscale=1),
    head=dict(type="ConvHead", hidden=350, activation="gelu", enlarge=4),
)
