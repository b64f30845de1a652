"""PAD-Net (Xu et al., CVPR 2018) in ATRC's tables on NYUD-v2: the small HRNet-W18, four tasks.

    python tools/train.py configs/pad_net/pad_net_hrnet_w18s_nyud_invpt_1xb8_40k.py

HRNet: ATRC's, bilinear fusions and BatchNorm momentum 0.1.
Published: mIoU 36.61, RMSE 0.6270 m, normals 20.85 degrees, odsF 76.38 (from memory, unverified).
Ours: not run yet.
Schedule and published row are those of ATRC. Differs: details of ATRC's heads are not known to us. 425x560
frames are padded to 448x576, as InvPT does.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.datasets.nyud_invpt import evaluation, protocol, train_data, val_data
    from .._base_.schedules.atrc_40k import optimizer, training

name = "pad_net"
model = dict(
    backbone=dict(type="HRNetBackbone", name="hrnet_w18_small_v2", upsampling="bilinear", pretrained=True),
    decoder=dict(type="PADNetDecoder"),
    head=dict(type="ResidualHead"),
)
train_data.update(batch_size=8)
