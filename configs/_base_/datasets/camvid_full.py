"""CamVid, 367 training images and 101 for validation, crops of 240x320, scored as they are."""

protocol = "camvid-full"
train_data = dict(
    dataset=dict(
        type="CamVid",
        root="data/camvid",
        split="train",
        transforms=dict(preset="light", size=(240, 320)),
    ),
    batch_size=8,
    num_workers=1,
)
val_data = dict(
    dataset=dict(type="CamVid", root="data/camvid", split="val", transforms="tensor"),
    batch_size=4,
)
# Boundary scores are slow: 9 thresholds, where the protocol has 99.
evaluation = dict(constant_predictor=367, metric_options=dict(edge=dict(thresholds=9)), workers=2)
