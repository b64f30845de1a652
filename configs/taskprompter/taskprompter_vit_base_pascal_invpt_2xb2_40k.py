"""TaskPrompter (Ye and Xu, ICLR 2023) on PASCAL-Context, five tasks: ViT-B.

    torchrun --nproc_per_node=2 tools/train.py \\
        configs/taskprompter/taskprompter_vit_base_pascal_invpt_2xb2_40k.py

418.332 M parameters with 0.788 M that the official model holds but never uses (417.544 M here), 1153.3 G
multiply-accumulates.
Published: semseg 79.00, parts 67.00, saliency 85.05, normals 13.47 degrees, odsF 73.50 (quoted by PRISM).
Ours: not run yet.
Differs from the authors' code: none that we know of, besides the suite's own augmentation and loss code.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.vit_base import BACKBONE
    from .._base_.datasets.pascal_invpt import evaluation, protocol, train_data, val_data
    from .._base_.schedules.taskprompter_40k import optimizer, training

name = "taskprompter"
model = dict(
    backbone=dict(**BACKBONE, img_size=(512, 512)),
    adapters=[dict(type="TaskPrompts", windows=4)],
    decoder=dict(type="TaskPrompterDecoder", width=780, out_width=1024, reweight=12, upscale=1),
    head=dict(type="ConvHead", hidden=1024, activation="gelu", enlarge=4),
)
