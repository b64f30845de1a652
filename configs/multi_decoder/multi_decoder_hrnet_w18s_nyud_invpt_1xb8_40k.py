"""Multi-task baseline of ATRC's tables on NYUD-v2: the small HRNet-W18, a head for each of four tasks.

    python tools/train.py configs/multi_decoder/multi_decoder_hrnet_w18s_nyud_invpt_1xb8_40k.py

One task alone is the single-task network: --cfg-options tasks="['depth']"

HRNet: ATRC's, bilinear fusions and BatchNorm momentum 0.1.
Published: mIoU 36.4-36.8, RMSE 0.625-0.632 m, normals 21.0 degrees (users' reports in an issue of ATRC's
repository).
Ours: not run yet.
Schedule and published row are those of ATRC. Differs: details of ATRC's heads are not known to us. 425x560
frames are padded to 448x576, as InvPT does.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.datasets.nyud_invpt import evaluation, protocol, train_data, val_data
    from .._base_.schedules.atrc_40k import optimizer, training

name = "multi_decoder"
model = dict(
    backbone=dict(type="HRNetBackbone", name="hrnet_w18_small_v2", upsampling="bilinear", pretrained=True),
    decoder=dict(type="ConcatDecoder"),
    head=dict(type="HighResolutionHead"),
)
train_data.update(batch_size=8)
