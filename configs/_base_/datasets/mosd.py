"""mOSD: six tasks on 45 + 62 Kinect frames, crops of 192x256, scored as they are."""

protocol = "mosd"
train_data = dict(
    dataset=dict(
        type="Mosd",
        root="data/mosd",
        split="train",
        transforms=dict(preset="light", size=(192, 256)),
    ),
    batch_size=4,
    num_workers=1,
)
val_data = dict(dataset=dict(type="Mosd", root="data/mosd", split="val", transforms="tensor"), batch_size=2)
# Boundary scores are slow: 9 thresholds, where the protocol has 99.
evaluation = dict(
    constant_predictor=45,
    metric_options=dict(edge=dict(thresholds=9)),
    workers=2,
    leave_one_out=True,
)
