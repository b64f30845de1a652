"""CamVid, the evenly spread 72 + 36 images, crops of 192x256, scored as they are."""

protocol = "camvid-sample"
train_data = dict(
    dataset=dict(
        type="CamVid",
        root="data/camvid",
        split="train",
        sample=True,
        transforms=dict(preset="light", size=(192, 256)),
    ),
    batch_size=4,
    num_workers=1,
)
val_data = dict(
    dataset=dict(type="CamVid", root="data/camvid", split="val", sample=True, transforms="tensor"),
    batch_size=4,
)
# Boundary scores are slow: 9 thresholds, where the protocol has 99.
evaluation = dict(
    constant_predictor=72,
    metric_options=dict(edge=dict(thresholds=9)),
    workers=2,
    leave_one_out=True,
)
