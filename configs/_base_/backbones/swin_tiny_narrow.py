"""A narrow Swin-T of five blocks, from scratch: for rows of the synthetic leaderboard."""

BACKBONE = dict(
    type="TimmBackbone",
    name="swin_tiny_patch4_window7_224",
    embed_dim=24,
    depths=(1, 1, 2, 1),
    num_heads=(1, 2, 4, 8),
    window_size=4,
)
