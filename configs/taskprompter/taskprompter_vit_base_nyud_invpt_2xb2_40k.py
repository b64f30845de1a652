"""TaskPrompter (Ye and Xu, ICLR 2023) on NYUD-v2, four tasks: ViT-B.

    torchrun --nproc_per_node=2 tools/train.py \\
        configs/taskprompter/taskprompter_vit_base_nyud_invpt_2xb2_40k.py

Parameters: tests/models/test_known_counts.py; none are published.
Published: mIoU 50.40, RMSE 0.5402 m, normals 18.91 degrees, odsF 77.60 (quoted by PRISM).
Ours: not run yet.
Differs from the authors' code: no ViT-B configuration for NYUD-v2 was released; widths are those of ViT-L,
the rate is that of ViT-B on PASCAL-Context.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.vit_base import BACKBONE
    from .._base_.datasets.nyud_invpt import evaluation, protocol, train_data, val_data
    from .._base_.schedules.taskprompter_40k import optimizer, training

name = "taskprompter"
model = dict(
    backbone=dict(**BACKBONE, img_size=(448, 576)),
    adapters=[dict(type="TaskPrompts", windows=4)],
    decoder=dict(type="TaskPrompterDecoder", width=768, out_width=768, upscale=1),
    head=dict(type="ConvHead", hidden=768, activation="gelu", enlarge=4),
)
