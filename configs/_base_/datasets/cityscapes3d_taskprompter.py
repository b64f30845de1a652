"""Cityscapes as TaskPrompter uses it for its two-dimensional tasks: images 1024x2048, labels 512x1024.

The paper trains on images with a box of a vehicle, which needs the files of Cityscapes-3D; here all 2975 are
used.
"""

protocol = "cityscapes3d-taskprompter"
train_data = dict(
    dataset=dict(
        type="Cityscapes",
        root="data/cityscapes",
        split="train",
        transforms="taskprompter-cityscapes",
    ),
    batch_size=1,
    num_workers=4,
)
val_data = dict(
    dataset=dict(
        type="Cityscapes",
        root="data/cityscapes",
        split="val",
        transforms="taskprompter-cityscapes",
    ),
    batch_size=4,
    num_workers=4,
)
