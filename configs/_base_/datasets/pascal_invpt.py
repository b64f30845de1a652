"""PASCAL-Context as InvPT and its successors use it: five tasks, crops of 512x512, scored unscaled."""

protocol = "pascal-invpt"
train_data = dict(
    dataset=dict(
        type="PascalContext",
        root="data/PASCALContext",
        split="train",
        transforms="invpt-train",
    ),
    batch_size=2,
    num_workers=4,
)
val_data = dict(
    dataset=dict(
        type="PascalContext",
        root="data/PASCALContext",
        split="val",
        transforms="invpt-eval",
    ),
    batch_size=6,
    num_workers=4,
)
# Boundary scores are slow: 9 thresholds while training, the protocol's 101 at the end.
evaluation = dict(during_training=dict(edge=dict(thresholds=9)), workers=4)
