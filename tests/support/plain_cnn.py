"""ResNet and the heads of the survey from plain tensor operations, in evaluation mode, on the authors' names.

`w` maps names to tensors; names of a network start with `prefix`, e.g. `backbone.`.
"""

from __future__ import annotations

import torch
from plain import batch_norm, bilinear, conv, count, same_conv
from torch.nn import functional as F


def residual_block(x, w, name, stride=1, first_dilation=1, dilation=1, norm=batch_norm):
    """BasicBlock or Bottleneck, whichever the names say; the stride is that of its first 3x3 convolution."""
    y, layers = x, 3 if f"{name}.conv3.weight" in w else 2
    strided = 2 if layers == 3 else 1
    for index in range(1, layers + 1):
        at = {"stride": stride, "dilation": first_dilation} if index == strided else {"dilation": dilation}
        wide = w[f"{name}.conv{index}.weight"].shape[-1] > 1
        y = same_conv(y, w, f"{name}.conv{index}", **(at if wide else {}))
        y = norm(y, w, f"{name}.bn{index}")
        y = y.relu() if index < layers else y
    if f"{name}.downsample.0.weight" in w:
        x = norm(conv(x, w, f"{name}.downsample.0", stride=stride), w, f"{name}.downsample.1")
    return (x + y).relu()


def resnet_stem(image, w, prefix):
    x = same_conv(image, w, f"{prefix}conv1", stride=2)
    return F.max_pool2d(batch_norm(x, w, f"{prefix}bn1").relu(), 3, stride=2, padding=1)


def dilated_stage(x, w, prefix, k):
    """Maps before and behind the last block of stage k = 1..4 of a ResNet of output stride 8.

    Stages 3 and 4 have no stride; their 3x3 convolutions are 2 and 4 apart, the one that lost its stride half
    as much.
    """
    stride, dilation, first = {1: (1, 1, 1), 2: (2, 1, 1), 3: (1, 2, 1), 4: (1, 4, 2)}[k]
    before, blocks = x, count(w, f"{prefix}layer{k}.")
    for j in range(blocks):
        before, name = x, f"{prefix}layer{k}.{j}"
        options = {"stride": stride, "first_dilation": first} if j == 0 else {"first_dilation": dilation}
        x = residual_block(x, w, name, dilation=dilation, **options)
    return before, x


def deeplab(x, w, name):
    """Pyramid of dilated convolutions and the image's mean, projection, 3x3 convolution, logits."""
    parts = []
    for branch, rate in enumerate((1, 12, 24, 36)):
        y = same_conv(x, w, f"{name}.0.convs.{branch}.0", dilation=rate)
        parts.append(batch_norm(y, w, f"{name}.0.convs.{branch}.1").relu())
    mean = conv(x.mean(dim=(2, 3), keepdim=True), w, f"{name}.0.convs.4.1")
    parts.append(batch_norm(mean, w, f"{name}.0.convs.4.2").relu().expand_as(parts[0]))
    y = batch_norm(conv(torch.cat(parts, 1), w, f"{name}.0.project.0"), w, f"{name}.0.project.1").relu()
    y = batch_norm(same_conv(y, w, f"{name}.1"), w, f"{name}.2").relu()
    return conv(y, w, f"{name}.4")


def joined(maps):
    """All maps at the size of the finest, side by side."""
    return torch.cat([maps[0], *(bilinear(item, maps[0].shape[-2:]) for item in maps[1:])], dim=1)


def high_resolution(x, w, name):
    """Head of the joined maps."""
    y = batch_norm(conv(x, w, f"{name}.last_layer.0"), w, f"{name}.last_layer.1").relu()
    return conv(y, w, f"{name}.last_layer.3")
