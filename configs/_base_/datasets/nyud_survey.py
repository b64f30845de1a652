"""NYUD-v2 as the survey's code uses it: 480x640 frames, zoom 1, 1.2 or 1.5.

Papers score `semseg` and `depth` (`tasks = ["semseg", "depth"]` in a leaf) with or without the other two as
helper tasks.
"""

protocol = "nyud-survey"
train_data = dict(
    dataset=dict(
        type="NYUDv2",
        root="data/NYUD_MT",
        split="train",
        packaging="survey",
        transforms="survey-train",
    ),
    batch_size=8,
    num_workers=4,
)
val_data = dict(
    dataset=dict(
        type="NYUDv2",
        root="data/NYUD_MT",
        split="val",
        packaging="survey",
        transforms="survey-eval",
    ),
    batch_size=8,
    num_workers=4,
)
# The papers' numbers: predictions brought back to the size of each label file, one image at a time.
test_data = dict(
    dataset=dict(
        type="NYUDv2",
        root="data/NYUD_MT",
        split="val",
        packaging="survey",
        transforms=dict(preset="survey-eval", labels=False),
    ),
    batch_size=1,
    num_workers=4,
)
# Boundary scores are slow: 9 thresholds while training, the protocol's 99 at the end.
evaluation = dict(during_training=dict(edge=dict(thresholds=9)), workers=4)
