"""ViT-B as InvPT and its successors use it, pretrained on ImageNet; a config adds the size of its images."""

BACKBONE = dict(
    type="TimmBackbone",
    name="vit_base_patch16_384.augreg_in21k_ft_in1k",
    pretrained=True,
    drop_path_rate=0.15,
)
