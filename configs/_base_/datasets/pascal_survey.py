"""PASCAL-Context as the survey uses it: rotated, zoomed, resized to 512x512; saliency scored as mIoU."""

protocol = "pascal-survey"
train_data = dict(
    dataset=dict(
        type="PascalContext",
        root="data/PASCALContext",
        split="train",
        transforms="survey-pascal-train",
    ),
    batch_size=8,
    num_workers=4,
)
val_data = dict(
    dataset=dict(
        type="PascalContext",
        root="data/PASCALContext",
        split="val",
        transforms="survey-eval",
    ),
    batch_size=8,
    num_workers=4,
)
# The papers' numbers: predictions brought back to the size of each label file, one image at a time.
test_data = dict(
    dataset=dict(
        type="PascalContext",
        root="data/PASCALContext",
        split="val",
        transforms=dict(preset="survey-eval", labels=False),
    ),
    batch_size=1,
    num_workers=4,
)
# Boundary scores are slow: 9 thresholds while training, the protocol's 99 at the end.
evaluation = dict(during_training=dict(edge=dict(thresholds=9)), workers=4)
