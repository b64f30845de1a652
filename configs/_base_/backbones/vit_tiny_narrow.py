"""A narrow, shallow ViT-T for images of 96x128, from scratch: for rows of the synthetic leaderboard."""

BACKBONE = dict(
    type="TimmBackbone",
    name="vit_tiny_patch16_224",
    img_size=(96, 128),
    embed_dim=96,
    depth=6,
    num_heads=4,
    patch_size=8,
)
