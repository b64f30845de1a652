"""NYUD-v2 as ATRC, DeMT and MQTransformer use it: crops of 425x560, so nothing is padded at the test.

Scores compare with those of `nyud_invpt`. Those papers weigh edge pixels with 0.8, the protocol's loss with
0.95, as InvPT does; for theirs set `training = dict(..., loss_options=dict(edge=dict(positive_weight=0.8)))`.
"""

protocol = "nyud-invpt"
train_data = dict(
    dataset=dict(
        type="NYUDv2",
        root="data/NYUDv2",
        split="train",
        transforms=dict(preset="invpt-train", size=(425, 560)),
    ),
    batch_size=2,
    num_workers=4,
)
val_data = dict(
    dataset=dict(
        type="NYUDv2",
        root="data/NYUDv2",
        split="val",
        transforms=dict(preset="invpt-eval", size=(425, 560)),
    ),
    batch_size=8,
    num_workers=4,
)
