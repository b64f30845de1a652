"""MTI-Net (Vandenhende et al., ECCV 2020) in ATRC's tables on PASCAL-Context: the small HRNet-W18.

    python tools/train.py configs/mti_net/mti_net_hrnet_w18s_pascal_invpt_1xb8_40k.py

HRNet: ATRC's, bilinear fusions and BatchNorm momentum 0.1.
Published: semseg 61.70, parts 60.18, saliency 84.78 (maxF), normals 14.23 degrees, odsF 70.80 (from
memory, unverified).
Ours: not run yet.
Differs from ATRC, whose schedule this is: details of its heads are not known to us.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.datasets.pascal_invpt import evaluation, protocol, train_data, val_data
    from .._base_.schedules.atrc_40k import optimizer, training

name = "mti_net"
model = dict(
    backbone=dict(type="HRNetBackbone", name="hrnet_w18_small_v2", upsampling="bilinear", pretrained=True),
    decoder=dict(type="MTINetDecoder"),
    head=dict(type="HighResolutionHead"),
)
train_data.update(batch_size=8)
optimizer.update(lr=5e-3)  # ATRC's rate on PASCAL with HRNet-18
