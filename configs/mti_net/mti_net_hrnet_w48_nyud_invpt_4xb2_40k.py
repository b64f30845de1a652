"""MTI-Net (Vandenhende et al., ECCV 2020) in ATRC's tables on NYUD-v2: HRNet-W48, four tasks.

    torchrun --nproc_per_node=4 tools/train.py configs/mti_net/mti_net_hrnet_w48_nyud_invpt_4xb2_40k.py

HRNet: ATRC's, bilinear fusions and BatchNorm momentum 0.1.
Published: mIoU 45.97, RMSE 0.5365 m, normals 20.27 degrees, odsF 77.86 (from memory, unverified).
Ours: not run yet.
Schedule and published row are those of ATRC. Differs: details of ATRC's heads are not known to us. 425x560
frames are padded to 448x576, as InvPT does.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.datasets.nyud_invpt import evaluation, protocol, train_data, val_data
    from .._base_.schedules.atrc_40k import optimizer, training

name = "mti_net"
model = dict(
    backbone=dict(type="HRNetBackbone", name="hrnet_w48", upsampling="bilinear", pretrained=True),
    decoder=dict(type="MTINetDecoder"),
    head=dict(type="HighResolutionHead"),
)
