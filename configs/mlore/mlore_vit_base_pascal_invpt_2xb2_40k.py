"""MLoRE (Yang et al., CVPR 2024, arXiv 2403.17749) on PASCAL-Context, five tasks: ViT-B.

    torchrun --nproc_per_node=2 tools/train.py configs/mlore/mlore_vit_base_pascal_invpt_2xb2_40k.py

Parameters and multiply-accumulates: tests/models/test_known_counts.py; none are published.
Published: semseg 79.26, parts 67.82, saliency 85.31, normals 13.65 degrees, odsF 74.69 (their README).
Ours: not run yet.
Differs from the authors' code: the position embedding has no unused row.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.vit_base import BACKBONE
    from .._base_.datasets.pascal_invpt import evaluation, protocol, train_data, val_data
    from .._base_.decoders.mlore import DECODER_PASCAL
    from .._base_.schedules.taskprompter_40k import optimizer, training

name = "mlore"
model = dict(
    backbone=dict(**BACKBONE, img_size=(512, 512)),
    adapters=[dict(type="DropClassToken")],
    decoder=dict(**DECODER_PASCAL, width=640, task_rank=64, balance=1e-4, upscale=1),
    head=dict(type="ConvHead", hidden=640, activation="gelu", enlarge=4),
)
