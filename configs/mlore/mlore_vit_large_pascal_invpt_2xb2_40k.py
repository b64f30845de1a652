"""MLoRE (Yang et al., CVPR 2024, arXiv 2403.17749) on PASCAL-Context, five tasks: ViT-L.

    torchrun --nproc_per_node=2 tools/train.py configs/mlore/mlore_vit_large_pascal_invpt_2xb2_40k.py

407.69 M parameters, 826.6 G multiply-accumulates before folding: those of the official model.
Published: semseg 81.41, parts 70.52, saliency 84.90, normals 13.51 degrees, odsF 75.42 (their README).
Ours: not run yet.
Differs from the authors' code: the position embedding has no unused row.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.vit_large import BACKBONE
    from .._base_.datasets.pascal_invpt import evaluation, protocol, train_data, val_data
    from .._base_.decoders.mlore import DECODER_PASCAL
    from .._base_.schedules.taskprompter_40k import optimizer, training

name = "mlore"
model = dict(
    backbone=dict(**BACKBONE, img_size=(512, 512)),
    adapters=[dict(type="DropClassToken")],
    decoder=dict(**DECODER_PASCAL, width=452, task_rank=72, balance=3e-4, upscale=1),
    head=dict(type="ConvHead", hidden=452, activation="gelu", enlarge=4),
)
training.update(loss_options=dict(edge=dict(positive_weight=0.925)))  # the authors'; 0.95 elsewhere
