"""Cityscapes as MTMamba uses it: images 512x1024, labels 1024x2048, no augmentation.

Pixels without disparity are trained towards -1, as in the released code; `invalid_disparity="ignore"` in the
data sets leaves them out.
"""

protocol = "cityscapes-mtmamba"
train_data = dict(
    dataset=dict(
        type="Cityscapes",
        root="data/cityscapes",
        split="train",
        transforms="mtmamba-cityscapes",
    ),
    batch_size=1,
    num_workers=4,
)
val_data = dict(
    dataset=dict(
        type="Cityscapes",
        root="data/cityscapes",
        split="val",
        transforms="mtmamba-cityscapes",
    ),
    batch_size=4,
    num_workers=4,
)
