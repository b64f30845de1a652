"""DeepLab v3's head (Chen et al., 2017) for dilated networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtvision.core.registry import HEADS
from mtvision.core.task import Task
from mtvision.core.values import Positive, Share


@HEADS.register_module()
class DeepLabHead(nn.Module):
    """Atrous spatial pyramid pooling, a 3x3 convolution, and a 1x1 convolution to the logits.

    Side by side: a 1x1 convolution, a 3x3 convolution for each rate, and the mean of the whole map; then a
    1x1 convolution and dropout. All have `width` channels, no bias, batch norm and ReLU.

    Args:
        in_channels: of the feature map (supplied).
        task: whose logits are made (supplied).
        width: channels of all hidden maps.
        rates: dilations; the published ones suit output stride 8.
        dropout: after the pyramid pooling.
    """

    def __init__(
        self,
        in_channels: int,
        task: Task,
        *,
        width: Positive = 256,
        rates: Sequence[Positive] = (12, 24, 36),
        dropout: Share = 0.5,
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                _conv(in_channels, width, 1),
                *(_conv(in_channels, width, 3, rate) for rate in rates),
                ImagePooling(in_channels, width),
            ]
        )
        self.project = nn.Sequential(_conv(width * len(self.branches), width, 1), nn.Dropout(dropout))
        self.hidden = _conv(width, width, 3)
        self.logits = nn.Conv2d(width, task.out_channels, 1)

    def output_layer(self) -> nn.Conv2d:
        """See `mtvision.models.heads.output`."""
        return self.logits

    def forward(self, feature: Tensor) -> Tensor:
        """Logits (B, task.out_channels, h, w) of a map (B, in_channels, h, w)."""
        joined = torch.cat([branch(feature) for branch in self.branches], dim=1)
        logits: Tensor = self.logits(self.hidden(self.project(joined)))
        return logits


class ImagePooling(nn.Module):
    """The mean of the map through a 1x1 convolution, batch norm and ReLU, at every position.

    With a batch of one, batch norm has a single value per channel, which has no variance. Running statistics
    are then used, in training too.
    """

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, feature: Tensor) -> Tensor:
        """Map (B, width, h, w) that is constant over positions."""
        mean = self.conv(feature.mean(dim=(2, 3), keepdim=True))
        norm = self.norm
        if self.training and mean.shape[0] == 1 and type(norm) is nn.BatchNorm2d:
            mean = F.batch_norm(
                mean, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps
            )
        else:
            mean = norm(mean)
        return F.relu(mean).expand(-1, -1, *feature.shape[-2:])


def _conv(in_channels: int, out_channels: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))
