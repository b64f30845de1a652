"""TaskPrompter (Ye and Xu, ICLR 2023) on Cityscapes-3D, its two-dimensional tasks: Swin-B.

    torchrun --nproc_per_node=4 tools/train.py \\
        configs/taskprompter/taskprompter_swin_base_cityscapes3d_4xb1_40k.py

291.559 M parameters with the third task's convolutions (274.604 M here), 1838.5 G multiply-accumulates (the
official model without detection head has 1943.6, of which the third task's convolutions are 103.0).
Published, trained with three tasks: mIoU 79.38, disparity RMSE 4.67.
Ours: not run yet.
Differs from the authors' code: two tasks (detection is out of scope, its prompt is kept), all 2975 images,
a final norm that starts afresh. Number of processes inferred; no weight decay, as in the released code.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.swin_base import BACKBONE
    from .._base_.datasets.cityscapes3d_taskprompter import protocol, train_data, val_data
    from .._base_.schedules.taskprompter_40k import optimizer, training

name = "taskprompter"
model = dict(
    backbone=dict(**BACKBONE, img_size=(768, 1536), drop_path_rate=0.15, level_norms=False),
    adapters=[dict(type="TaskPrompts", image_scale=0.75, extra=("3ddet",))],
    decoder=dict(
        type="TaskPrompterDecoder", width=256, out_width=450, kernel=3, gate_upscale=2, upscale=1, smooth=True
    ),
    head=dict(type="DeconvHead"),
)
optimizer.update(weight_decay=0.0)
