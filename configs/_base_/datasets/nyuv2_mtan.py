"""NYUv2 as packaged with MTAN: 13 classes, depth, normals, 288x384.

Zooming crops and flips as in Nash-MTL and FAMO. MTAN and LibMTL train without by default:
`train_data.dataset.update(transforms="mtan-eval")`.
"""

protocol = "nyuv2-mtan"
train_data = dict(
    dataset=dict(
        type="MtanNpy",
        root="data/nyuv2_mtan",
        split="train",
        transforms="mtan-train",
    ),
    batch_size=2,
    num_workers=4,
)
val_data = dict(
    dataset=dict(
        type="MtanNpy",
        root="data/nyuv2_mtan",
        split="val",
        transforms="mtan-eval",
    ),
    batch_size=2,
    num_workers=4,
)
