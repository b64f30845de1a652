"""HRNet as the multi-task papers use it: its four branches, without the layers of the classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from timm.models.hrnet import HighResolutionNet

from mtvision.core.registry import BACKBONES
from mtvision.models.backbones.names import TimmName
from mtvision.models.backbones.timm_backbone import TimmBackbone


@BACKBONES.register_module()
class HRNetBackbone(TimmBackbone):
    """The branches of timm's HRNet after their last fusion, e.g. 18, 36, 72, 144 channels at strides 4 to 32.

    `TimmBackbone` gives what timm calls its features: the branches after one more bottleneck each, which
    widens them to 128, 256, 512, 1024 channels and belongs to the ImageNet classifier. Multi-task papers
    leave these layers out. Weight files hold them; they are loaded and then removed.

    Args:
        name: timm name. The survey's (and ATRC's) "HRNet-18" is `hrnet_w18_small_v2`.
        pretrained: as in `TimmBackbone`.
        options: as in `TimmBackbone`.

    Raises:
        UnknownNameError: timm has no such model.
        ValueError: the model is not an HRNet.
    """

    def __init__(self, name: TimmName, *, pretrained: bool | str | Path = False, **options: Any) -> None:
        if not name.startswith("hrnet"):
            raise ValueError(f"HRNetBackbone: '{name}' is not an HRNet; use TimmBackbone for other models.")
        super().__init__(name, pretrained=pretrained, **options)
        model: HighResolutionNet = self.model
        model.incre_modules = None
        self.measure()
