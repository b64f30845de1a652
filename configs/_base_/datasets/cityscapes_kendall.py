"""Cityscapes with classes, instances and disparity: crops of 512x1024, tested on whole images.

The tasks are those of Kendall et al. (CVPR 2018). Unlike MTMamba's variant, pixels without a disparity are
left out and the sky's disparity is 0.
"""

protocol = "cityscapes-kendall"
train_data = dict(
    dataset=dict(
        type="Cityscapes",
        root="data/cityscapes",
        split="train",
        sky_fix=True,
        transforms=[
            dict(type="RandomScale", low=0.5, high=2.0),
            dict(type="RandomCrop", size=(512, 1024)),
            dict(type="RandomHorizontalFlip"),
            dict(type="Normalize"),
            dict(type="PadImage", size=(512, 1024)),
        ],
    ),
    batch_size=8,
    num_workers=4,
)
val_data = dict(
    dataset=dict(
        type="Cityscapes",
        root="data/cityscapes",
        split="val",
        sky_fix=True,
        transforms="tensor",
    ),
    batch_size=1,
    num_workers=4,
)
