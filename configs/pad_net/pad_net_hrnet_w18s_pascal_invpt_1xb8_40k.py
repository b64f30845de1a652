"""PAD-Net (Xu et al., CVPR 2018) in ATRC's tables on PASCAL-Context: the small HRNet-W18, five tasks.

    python tools/train.py configs/pad_net/pad_net_hrnet_w18s_pascal_invpt_1xb8_40k.py

HRNet: ATRC's, bilinear fusions and BatchNorm momentum 0.1.
Published: semseg 53.60, parts 59.60, saliency 65.80 (mIoU, not maxF), normals 15.30 degrees, odsF 72.50
(from memory, unverified; by the saliency score the survey's protocol).
Ours: not run yet.
Differs from ATRC, whose schedule this is: details of its heads are not known to us.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.datasets.pascal_invpt import evaluation, protocol, train_data, val_data
    from .._base_.schedules.atrc_40k import optimizer, training

name = "pad_net"
model = dict(
    backbone=dict(type="HRNetBackbone", name="hrnet_w18_small_v2", upsampling="bilinear", pretrained=True),
    decoder=dict(type="PADNetDecoder"),
    head=dict(type="ResidualHead"),
)
train_data.update(batch_size=8)
optimizer.update(lr=5e-3)  # ATRC's rate on PASCAL with HRNet-18
