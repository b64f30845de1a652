"""MLoRE (Yang et al., CVPR 2024, arXiv 2403.17749) on NYUD-v2, four tasks: ViT-L.

    torchrun --nproc_per_node=2 tools/train.py configs/mlore/mlore_vit_large_nyud_invpt_2xb2_40k.py

551.63 M parameters, 1405.8 G multiply-accumulates before folding: those of the official model.
Published: mIoU 55.96, RMSE 0.5076 m, normals 18.33 degrees, odsF 78.43 (their README).
Ours: not run yet.
Differs from the authors' code: the position embedding has no unused row.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.vit_large import BACKBONE
    from .._base_.datasets.nyud_invpt import evaluation, protocol, train_data, val_data
    from .._base_.decoders.mlore import DECODER_NYUD
    from .._base_.schedules.taskprompter_40k import optimizer, training

name = "mlore"
model = dict(
    backbone=dict(**BACKBONE, img_size=(448, 576)),
    adapters=[dict(type="DropClassToken")],
    decoder=dict(**DECODER_NYUD, width=768, task_rank=16, balance=5e-4, upscale=1),
    head=dict(type="ConvHead", hidden=768, activation="gelu", enlarge=4),
)
optimizer.update(lr=1e-5)
training.update(loss_options=dict(edge=dict(positive_weight=0.88)))  # the authors'; 0.95 elsewhere
