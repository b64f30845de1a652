"""BSDS with saliency: 200 + 100 photographs, crops of 192x256, scored one by one as they are."""

protocol = "bsds-sod"
train_data = dict(
    dataset=dict(
        type="BSDSSaliency",
        root="data/bsds_sod",
        split="train",
        transforms=dict(preset="light", size=(192, 256)),
    ),
    batch_size=4,
    num_workers=1,
)
val_data = dict(
    dataset=dict(type="BSDSSaliency", root="data/bsds_sod", split="val", transforms="tensor"), batch_size=1
)
# Boundary scores are slow: 9 thresholds, where the protocol has 99.
evaluation = dict(
    constant_predictor=200,
    metric_options=dict(edge=dict(thresholds=9)),
    workers=2,
    leave_one_out=True,
)
