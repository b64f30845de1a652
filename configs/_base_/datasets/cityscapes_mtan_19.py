"""Cityscapes as packaged with MTAN: 19 classes and inverse depth, 128x256.

Zooming crops and flips as in FAMO. LibMTL trains without:
`train_data.dataset.update(transforms="mtan-eval")`. Zooming divides inverse depth, as the released code
does; `zoom_fix=True` in the data set multiplies.
"""

protocol = "cityscapes-mtan-19"
train_data = dict(
    dataset=dict(
        type="MtanNpy",
        root="data/cityscapes_mtan",
        split="train",
        transforms="mtan-train",
    ),
    batch_size=8,
    num_workers=4,
)
val_data = dict(
    dataset=dict(
        type="MtanNpy",
        root="data/cityscapes_mtan",
        split="val",
        transforms="mtan-eval",
    ),
    batch_size=8,
    num_workers=4,
)
