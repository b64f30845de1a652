"""Swin-T, pretrained on ImageNet-22k; timm's."""

BACKBONE = dict(
    type="TimmBackbone",
    name="swin_tiny_patch4_window7_224.ms_in22k_ft_in1k",
    pretrained=True,
)
