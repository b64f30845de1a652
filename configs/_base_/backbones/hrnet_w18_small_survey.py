"""HRNet-18 small v2 as in the survey's code (Vandenhende et al., TPAMI 2021), pretrained on ImageNet.

Its fuse layers enlarge bilinearly, and its batch norms have a momentum of 0.01; timm's enlarge by nearest
neighbour and have 0.1.
"""

BACKBONE = dict(
    type="HRNetBackbone",
    name="hrnet_w18_small_v2",
    upsampling="bilinear",
    bn_momentum=0.01,
    pretrained=True,
)
