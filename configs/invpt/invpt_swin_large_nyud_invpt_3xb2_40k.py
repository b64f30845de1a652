"""InvPT (Ye and Xu, ECCV 2022, arXiv 2203.07997) on NYUD-v2, four tasks: Swin-L.

    torchrun --nproc_per_node=3 tools/train.py configs/invpt/invpt_swin_large_nyud_invpt_3xb2_40k.py

Parameters: tests/models/test_known_counts.py; none are published.
Published: mIoU 51.76, RMSE 0.5020 m, normals 19.39 degrees, odsF 77.6 (quoted by MQTransformer).
Ours: not run yet.
Differs from the authors' code: no Swin configuration was released; which levels join which stage is
inferred (docs/decoders/invpt.md).
"""

from mmengine.config import read_base

with read_base():
    from .._base_.backbones.swin_large import BACKBONE
    from .._base_.datasets.nyud_invpt import evaluation, protocol, train_data, val_data
    from .._base_.schedules.invpt_40k import optimizer, training

name = "invpt"
model = dict(
    backbone=dict(**BACKBONE, levels=(1, 2, 3), drop_path_rate=0.15),
    decoder=dict(type="InvPTDecoder"),
    head=dict(type="ConvHead"),
)
