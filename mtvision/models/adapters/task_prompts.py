"""`TaskPrompts`: learnable prompts per task inside a backbone, for `TaskPrompterDecoder`."""

from __future__ import annotations

from collections.abc import Sequence

from mtvision.core.registry import ADAPTERS
from mtvision.core.task import Task
from mtvision.core.values import Positive, Rate
from mtvision.models.adapters import prompted_swin, prompted_vit
from mtvision.models.adapters.adapter import Adapter
from mtvision.models.adapters.class_token import DropClassToken
from mtvision.models.backbones.backbone import Backbone

DEAD = (
    "blocks.{last}.attn.token_trans1",
    "pos_embed[:, 0]",
)
"""Parameters of the official ViT whose gradient is exactly 0; not here, see `mtvision.models.convert`."""


@ADAPTERS.register_module()
class TaskPrompts(Adapter):
    """Adds one prompt per task to the tokens of a ViT or a Swin (TaskPrompter, Ye and Xu, ICLR 2023).

    The prompts run through all blocks beside the image. Their raw attention logits towards pixels, channels
    and one another go to the decoder with the pyramid. Some weights have one entry per position. The network
    therefore takes images of one size only: `img_size` of the backbone (for a Swin divided by `image_scale`).

    A ViT's class token is removed. For a Swin give `SwinBackbone(level_norms=False)`.

    Args:
        windows: g; in a ViT channels are compared within g x g windows of the map.
        channel_width: width of channel attention in a Swin.
        image_scale: images are resized by this factor before a Swin.
        extra: names of prompts without a task here, after those of the tasks (the official Cityscapes-3D
            model has `3ddet`).

    Raises:
        TypeError: neither a plain timm ViT nor a timm Swin.
        ValueError: an option does not fit the backbone.
    """

    def __init__(
        self,
        *,
        windows: Positive = 1,
        channel_width: Positive = 256,
        image_scale: Rate = 1.0,
        extra: Sequence[str] = (),
    ) -> None:
        self.windows, self.channel_width = windows, channel_width
        self.image_scale, self.extra = image_scale, tuple(extra)

    def apply(self, backbone: Backbone, tasks: Sequence[Task]) -> Backbone:
        """The prompted backbone."""
        prompts = [*(task.name for task in tasks), *self.extra]
        if prompted_vit.takes(backbone):
            if self.image_scale != 1:
                raise ValueError("TaskPrompts: image_scale is for Swin; give a ViT the img_size you want.")
            if backbone.model.cls_token is not None:
                DropClassToken().apply(backbone, tasks)  # in place
            return prompted_vit.PromptedViT(backbone, prompts, self.windows)
        if prompted_swin.takes(backbone):
            if backbone.level_norms is not None:
                raise ValueError(
                    "TaskPrompts: only the last level of a Swin is normed here; give the backbone "
                    "level_norms=False."
                )
            return prompted_swin.PromptedSwin(backbone, prompts, self.channel_width, self.image_scale)
        raise TypeError(
            f"TaskPrompts: {type(backbone).__name__} is neither a plain ViT (TimmBackbone, vit_*) nor a Swin "
            "(SwinBackbone, swin_*)."
        )
