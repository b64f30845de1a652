"""NYUv2 as packaged with MTAN, with the crops and the image range of Auto-Lambda."""

protocol = "nyuv2-mtan"
train_data = dict(
    dataset=dict(
        type="MtanNpy",
        root="data/nyuv2_mtan",
        split="train",
        transforms="autolambda-train",
    ),
    batch_size=4,
    num_workers=4,
)
val_data = dict(
    dataset=dict(
        type="MtanNpy",
        root="data/nyuv2_mtan",
        split="val",
        transforms="autolambda-eval",
    ),
    batch_size=4,
    num_workers=4,
)
