"""HRNet as the multi-task papers use it: its four branches, without the layers of the classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from timm.models.hrnet import HighResolutionNet
from torch import nn

from mtvision.core.registry import BACKBONES
from mtvision.models.backbones.names import TimmName
from mtvision.models.backbones.timm_backbone import TimmBackbone


@BACKBONES.register_module()
class HRNetBackbone(TimmBackbone):
    """The branches of timm's HRNet after their last fusion, e.g. 18, 36, 72, 144 channels at strides 4 to 32.

    `TimmBackbone` gives what timm calls its features: the branches after one more bottleneck each, which
    widens them to 128, 256, 512, 1024 channels and belongs to the ImageNet classifier. Multi-task papers
    leave these layers out. Weight files hold them; they are loaded and then removed.

    Two networks have these layers and the same names of weights. The defaults are timm's network, which is
    that of image classification. That of semantic segmentation has `upsampling="bilinear"`: ATRC (ICCV 2021)
    as it is, the survey's code (Vandenhende et al., TPAMI 2021) with `bn_momentum=0.01`. A checkpoint loads
    into either, but its outputs are right in the one that it was trained in.

    Args:
        name: timm name. The survey's (and ATRC's) "HRNet-18" is `hrnet_w18_small_v2`.
        pretrained: as in `TimmBackbone`.
        upsampling: how the fusions enlarge a coarser branch to the size of a finer one: `nearest`, or
            `bilinear` with `align_corners=False`.
        bn_momentum: of all batch norms of the backbone; None keeps timm's 0.1.
        options: as in `TimmBackbone`.

    Raises:
        UnknownNameError: timm has no such model.
        ValueError: the model is not an HRNet, or there is no such `upsampling`.
    """

    def __init__(
        self,
        name: TimmName,
        *,
        pretrained: bool | str | Path = False,
        upsampling: Literal["nearest", "bilinear"] = "nearest",
        bn_momentum: float | None = None,
        **options: Any,
    ) -> None:
        if not name.startswith("hrnet"):
            raise ValueError(f"HRNetBackbone: '{name}' is not an HRNet; use TimmBackbone for other models.")
        if upsampling not in ("nearest", "bilinear"):
            raise ValueError(f"HRNetBackbone: upsampling={upsampling!r}; choose 'nearest' or 'bilinear'.")
        super().__init__(name, pretrained=pretrained, **options)
        model: HighResolutionNet = self.model
        model.incre_modules = None
        for module in model.modules():
            if isinstance(module, nn.Upsample):
                module.mode = upsampling
                module.align_corners = False if upsampling == "bilinear" else None
            elif isinstance(module, nn.BatchNorm2d) and bn_momentum is not None:
                module.momentum = bn_momentum
        self.measure()
