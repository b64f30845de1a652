"""Classes and albedo of shaded discs, with every part of `mylab`: 300 steps, half a minute on a CPU.

mtvision train configs/albedo_discs.py
"""

from mmengine.config import read_base

with read_base():
    from mtvision.configs._base_.synthetic_four_tasks import evaluation, optimizer, training

name = "gated"
plugins = ["mylab"]
protocol = dict(
    id="shaded-discs",
    tasks=dict(semseg=dict(class_names=["ground", "disc"]), albedo=dict()),
)
model = dict(
    backbone=dict(type="TimmBackbone", name="resnet10t", channels=(8, 16, 24, 32), stem_width=8),
    decoder=dict(type="GatedDecoder", width=16),
    head=dict(type="ConvHead"),
)
balancer = dict(type="RevisedUncertainty")
train_data = dict(dataset=dict(type="ShadedDiscs", split="train", transforms="light"), batch_size=4)
test_data = dict(dataset=dict(type="ShadedDiscs", split="test", length=8), batch_size=4)
evaluation.update(constant_predictor=8, pictures=2)
