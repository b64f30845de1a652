"""A quarter of ResNet-18's width, from scratch: for rows of the synthetic leaderboard."""

BACKBONE = dict(
    type="TimmBackbone", name="resnet18", channels=(16, 32, 64, 128), stem_type="deep", stem_width=8
)
