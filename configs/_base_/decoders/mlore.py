"""MLoRE's decoder on each data set: ranks of its experts, when unused ones are dropped, grid of ViT's tokens.

A config adds `width`, `task_rank` and `balance`, which depend on the backbone too.
"""

DECODER_NYUD = dict(
    type="MLoREDecoder",
    ranks=(16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240),
    drop="before",
    grid=(28, 36),
)
DECODER_PASCAL = dict(
    type="MLoREDecoder",
    ranks=(16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112, 120, 128),
    drop="after",
    grid=(32, 32),
)
