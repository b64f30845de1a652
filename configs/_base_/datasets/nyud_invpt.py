"""NYUD-v2 as InvPT and successors use it: 425x560 frames, four tasks, crops of 448x576, unscaled at test."""

protocol = "nyud-invpt"
train_data = dict(
    dataset=dict(
        type="NYUDv2",
        root="data/NYUDv2",
        split="train",
        transforms="invpt-train",
    ),
    batch_size=2,
    num_workers=4,
)
val_data = dict(
    dataset=dict(
        type="NYUDv2",
        root="data/NYUDv2",
        split="val",
        transforms="invpt-eval",
    ),
    batch_size=6,
    num_workers=4,
)
# Boundary scores are slow: 9 thresholds while training, the protocol's 101 at the end.
evaluation = dict(during_training=dict(edge=dict(thresholds=9)), workers=4)
