"""Swin-L, pretrained on ImageNet-22k; with the padding of mmsegmentation's Swin."""

BACKBONE = dict(
    type="SwinBackbone",
    name="swin_large_patch4_window12_384.ms_in22k_ft_in1k",
    pretrained=True,
)
